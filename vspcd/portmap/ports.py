"""Which console has which TCP port (sticky, unique, from a first one upward), and which have expired.

Pure. Owns the numbers only: it opens no socket, keeps no file and reads no clock. Times are seconds of any
one clock of the caller; with a monotonic one a jump of the wall clock expires nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Optional

LAST_PORT = 65535

_FREE, _OWNED, _BUSY = 0, 1, 2


class PortsExhausted(Exception):
    """No port is free from the first one up to 65535."""


class PortTaken(Exception):
    """The port belongs to another console."""


class Ports:
    """The allocation rules. `first` 0: the system chooses, and assign says so with 0 for a new console."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._ports: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._lost: dict[str, int] = {}
        # One byte per port: find() is one memchr of at most 64 KiB, about a microsecond.
        self._states = bytearray(LAST_PORT + 1)
        self._ages = _Ages()

    def port(self, console: str) -> Optional[int]:
        return self._ports.get(console)

    def owner(self, port: int) -> Optional[str]:
        return self._owners.get(port)

    def assign(self, console: str) -> int:
        """The console's port: the one it has, else the first free one. Raises PortsExhausted.

        A console that lost its port to something else gets the next free one above. 0: ask the system for
        a port and call fix.
        """
        port = self._ports.get(console)
        if port is not None:
            return port
        self._ages.begin(console)
        if self._first == 0:
            return 0
        port = self._next_free(self._lost.get(console, 0) + 1)
        self._own(console, port)
        return port

    def fix(self, console: str, port: int) -> None:
        """The console has this port, whatever it had before. PortTaken: nothing has changed."""
        if not 0 < port <= LAST_PORT:
            raise ValueError(f"{port} is no port")
        owner = self._owners.get(port)
        if owner not in (None, console):
            raise PortTaken(f"port {port} belongs to console {owner}")
        self._release(console)
        self._own(console, port)
        self._ages.begin(console)

    def busy(self, port: int) -> Optional[str]:
        """Something outside holds the port. Returns the console that lost it and needs another."""
        console = self._owners.get(port)
        if console is not None:
            self._release(console)
            self._lost[console] = port
        self._states[port] = _BUSY
        return console

    def retry_busy(self) -> None:
        """Ports that were busy may be tried again."""
        self._states = self._states.replace(bytes([_BUSY]), bytes([_FREE]))

    def forget(self, console: str) -> None:
        """The console is unknown from now on and its port is free; it need not have been known."""
        self._release(console)
        self._lost.pop(console, None)
        self._ages.end(console)

    def seen(self, console: str, when: float) -> None:
        """The console was in use at that time. To be called when the last user leaves, and at loading."""
        self._ages.set(console, when)

    def expire(self, now: float, seconds: float, in_use: Callable[[str], bool]) -> list[str]:
        """Forgets, and returns, the consoles that nobody has used for this long.

        A console that was never seen counts from the first call. in_use is asked about a console once in the
        period at most, and one that is in use counts as seen now.
        """
        expired = []
        for console in self._ages.due(now, seconds):
            if in_use(console):
                self._ages.set(console, now)
            else:
                self.forget(console)
                expired.append(console)
        return expired

    def _next_free(self, start: int) -> int:
        port = self._states.find(_FREE, max(start, self._first))
        if port < 0:
            port = self._states.find(_FREE, self._first)
        if port < 0:
            raise PortsExhausted(f"no port is free from {self._first} to {LAST_PORT}")
        return port

    def _own(self, console: str, port: int) -> None:
        self._ports[console] = port
        self._owners[port] = console
        self._states[port] = _OWNED
        self._lost.pop(console, None)

    def _release(self, console: str) -> None:
        port = self._ports.pop(console, None)
        if port is not None:
            del self._owners[port]
            self._states[port] = _FREE


class _Ages:
    """When each console was last seen, and a heap of them that is put right only when a console comes up."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._unseen: dict[str, None] = {}
        self._heap: list[tuple[float, str]] = []
        self._queued: dict[str, float] = {}

    def begin(self, console: str) -> None:
        if console not in self._seen:
            self._unseen[console] = None

    def set(self, console: str, when: float) -> None:
        self._unseen.pop(console, None)
        self._seen[console] = when
        if when < self._queued.get(console, float("inf")):
            self._queue(console, when)

    def end(self, console: str) -> None:
        self._unseen.pop(console, None)
        self._seen.pop(console, None)

    def due(self, now: float, seconds: float) -> list[str]:
        """The consoles last seen at least that long ago; each is to be set or ended afterwards."""
        for console in list(self._unseen):
            self.set(console, now)
        found = []
        while self._heap and self._heap[0][0] + seconds <= now:
            queued, console = heapq.heappop(self._heap)
            if self._queued.get(console) != queued:
                continue
            del self._queued[console]
            seen = self._seen.get(console)
            if seen is None:
                continue
            if seen + seconds <= now:
                found.append(console)
            else:
                self._queue(console, seen)
        return found

    def _queue(self, console: str, when: float) -> None:
        self._queued[console] = when
        heapq.heappush(self._heap, (when, console))
