"""What the persistent port map holds and what each back end can do: the words between the map and its keeper.

Pure. Owns no storage and no rule of allocation (see ports). A back end belongs to one process and one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, Union


class PortMapError(Exception):
    """The map cannot be read or a change cannot be kept; nothing of the batch has been applied."""


@dataclass(frozen=True)
class Entry:
    """A console that is known. `port` 0: it has none. `last_seen`: seconds since the epoch."""

    console: str
    uuid: str
    label: str
    name: str
    port: int
    last_seen: float
    bios_uuid: Optional[str] = None
    location_uuid: Optional[str] = None


@dataclass(frozen=True)
class Put:
    """The console is known from now on, in place of anything said about it before."""

    entry: Entry


@dataclass(frozen=True)
class Forget:
    """The console is unknown from now on; it need not have been known."""

    console: str


Change = Union[Put, Forget]


class Backend(Protocol):
    """A store of entries. `notes`: what its user must be told loudly after opening, such as damage."""

    @property
    def notes(self) -> Sequence[str]: ...

    def load(self) -> list[Entry]:
        """All entries in the order of their consoles. Raises PortMapError."""

    def apply(self, changes: Sequence[Change]) -> None:
        """Applies all changes or, with PortMapError, none. On return they survive a loss of power.

        Two consoles never have one port; inside a batch only its outcome counts, so ports can be swapped.
        """

    def close(self) -> None:
        """Ends the use of the store; what was applied is kept already."""


def outcome(changes: Sequence[Change]) -> dict[str, Optional[Entry]]:
    """What a batch comes to, by console; None is forgotten. The last change of a console counts."""
    return dict(_effect(change) for change in changes)


def _effect(change: Change) -> tuple[str, Optional[Entry]]:
    return (change.entry.console, change.entry) if isinstance(change, Put) else (change.console, None)
