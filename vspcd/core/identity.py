"""Who may have a console that somebody has already.

Does: states the rule for a second connection with the identity of a connected VM.
Owns: nothing.
Never: looks at a socket; finding out whether the old peer still answers is the caller's work.

The two connections are never merged. A VM that dials again from the host it was on has lost its old
connection. From another host it may be the same VM after a host crash, a clone or an impostor: the old peer's
silence tells.
"""

from __future__ import annotations

from typing import Optional

from vspcd.core.address import host_of

TAKE = "take"
PROBE = "probe"

PROBE_SECONDS = 2.0
"""A live host's kernel acknowledges an IAC NOP well within this time."""


TAKEOVERS = 3
WITHIN = 60.0
"""So many takeovers from one host within so many seconds are two ports with one identity, not a VM that dials again."""

BLANK = "0" * 32


def verdict(old_peer: Optional[str], new_peer: str, takeovers: int = 0) -> str:
    """TAKE the console over, or PROBE the old peer first. Peers are ``host:port``; None: there is no old one.

    ``takeovers`` counts those of the last minute in which the old connection was alive.
    """
    if old_peer is None:
        return TAKE
    same_host = host_of(old_peer) == host_of(new_peer)
    return TAKE if same_host and takeovers < TAKEOVERS else PROBE


def refusal(old_peer: str, new_peer: str) -> str:
    """What is said when the old peer is alive; names both sources."""
    old, new = host_of(old_peer), host_of(new_peer)
    if old == new:
        return (
            f"two ports of this VM dial in from {new} without a label and take the console from each other; give each "
            "a label of its own in its service URI, such as vSPC.py?port=serial1 and vSPC.py?port=serial2"
        )
    return (
        f"{new} claims to be this VM, but it is connected from {old}, which still answers: "
        "a clone with the same UUID, or an impostor"
    )
