"""The port map of a daemon that need not remember: a table in memory, by the same rules as the durable ones.

Owns its table. Never writes anything anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vspcd.portmap.base import Change, Entry, PortMapError, outcome


class MemoryBackend:
    """A Backend whose entries end with the process."""

    notes: Sequence[str] = ()

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.console: entry for entry in entries}

    def load(self) -> list[Entry]:
        return sorted(self._entries.values(), key=lambda entry: entry.console)

    def apply(self, changes: Sequence[Change]) -> None:
        after = dict(self._entries)
        for console, entry in outcome(changes).items():
            after.pop(console, None)
            if entry is not None:
                after[console] = entry
        _check_ports(after.values())
        self._entries = after

    def close(self) -> None:
        pass


def _check_ports(entries: Iterable[Entry]) -> None:
    owners: dict[int, str] = {}
    for entry in entries:
        if not 0 <= entry.port <= 65535:
            raise PortMapError(f"port {entry.port} of console {entry.console} is out of range")
        if entry.port and owners.setdefault(entry.port, entry.console) != entry.console:
            raise PortMapError(f"port {entry.port} is wanted by {owners[entry.port]} and by {entry.console}")
