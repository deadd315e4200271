"""What happens by itself: the events of consoles, hooks that wait for them, triggers that watch what VMs say.

Pure. Does: says which hooks an event of a console means.
Owns: the names of the events.
Never: runs or sends anything; looks into what a VM said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from vspcd.core.names import Named
from vspcd.core.patterns import matches

CONNECTED, DISCONNECTED, RENAMED, MOVED = "connected", "disconnected", "renamed", "moved"
EXPIRED, FORGOTTEN, ATTACHED, DETACHED = "expired", "forgotten", "attached", "detached"
QUARANTINED, PARKED, TRIGGERED = "quarantined", "parked", "triggered"

EVENTS = (
    CONNECTED,
    DISCONNECTED,
    RENAMED,
    MOVED,
    EXPIRED,
    FORGOTTEN,
    ATTACHED,
    DETACHED,
    QUARANTINED,
    PARKED,
    TRIGGERED,
)
TIMEOUT = 30.0


class Action(NamedTuple):
    """What is done: a command with its words, or a URL that the facts are posted to. ``timeout`` 0: the usual one."""

    run: tuple[str, ...] = ()
    post: str = ""
    timeout: float = 0.0

    def told(self, usual: float) -> dict[str, Any]:
        """As it goes to who does it."""
        return {"run": list(self.run), "post": self.post, "timeout": self.timeout or usual}


class Hook(NamedTuple):
    """Do this on these events of the consoles that the patterns mean."""

    events: tuple[str, ...]
    consoles: tuple[str, ...]
    action: Action


class Trigger(NamedTuple):
    """Tell when a line of these consoles matches: once per console in ``every`` seconds; consoles that match within
    ``gather`` seconds are told together. Without an action, hooks on ``triggered`` have theirs."""

    name: str
    pattern: str
    consoles: tuple[str, ...]
    every: float
    gather: float
    action: Optional[Action]


def actions_for(hooks: Sequence[Hook], event: str, console: Named) -> Iterator[Action]:
    """What is to be done about this."""
    return (hook.action for hook in hooks if event in hook.events and matches(hook.consoles, console))
