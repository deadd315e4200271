"""The journal's positions: where every byte that the VM said can be read again.

Does: keeps the last bytes in memory, and the map from journal positions to places in log files.
Owns: the in-memory tail and the list of segments. File descriptors are numbers here, opaque.
Never: reads or writes a file.

A journal position counts the console's bytes from its first one on; it never goes back, over rotations and
restarts.
"""

from __future__ import annotations

from typing import Optional, Union

Buffer = Union[bytes, bytearray, memoryview]


class Tail:
    """The last ``limit`` bytes (up to twice that, so that trimming costs nothing per byte)."""

    __slots__ = ("_data", "head", "limit")

    def __init__(self, limit: int, head: int = 0) -> None:
        self.limit = limit
        self.head = head
        self._data = bytearray()

    @property
    def start(self) -> int:
        """The oldest position that is still here."""
        return self.head - len(self._data)

    def append(self, data: Buffer) -> None:
        """Add what came last."""
        size = len(data)
        self.head += size
        if size >= self.limit:
            self._data[:] = data[size - self.limit :]
            return
        self._data += data
        if len(self._data) > 2 * self.limit:
            del self._data[: -self.limit]

    def skip(self, head: int) -> None:
        """What comes next has this position; what was before is gone."""
        self.head = head
        self._data.clear()

    def read(self, position: int, size: int) -> Optional[bytes]:
        """Up to ``size`` bytes from ``position`` on, None when they are gone from memory."""
        if position < self.start:
            return None
        begin = position - self.start
        return bytes(self._data[begin : begin + size])


class Segment:
    """A run of the journal that lies in one file: ``length`` bytes from position ``base`` at byte ``at`` of ``fd``."""

    __slots__ = ("at", "base", "fd", "length")

    def __init__(self, base: int, at: int, fd: int, length: int = 0) -> None:
        self.base = base
        self.at = at
        self.fd = fd
        self.length = length

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self.base + self.length


class Segments:
    """The runs that can still be read, oldest first; the last one grows."""

    def __init__(self) -> None:
        self._runs: list[Segment] = []

    @property
    def current(self) -> Optional[Segment]:
        """The run that grows."""
        return self._runs[-1] if self._runs else None

    @property
    def end(self) -> int:
        """The position behind the last run, -1 without any."""
        return self._runs[-1].end if self._runs else -1

    @property
    def fd(self) -> int:
        """The descriptor of the run that grows, -1 without any."""
        return self._runs[-1].fd if self._runs else -1

    @property
    def several(self) -> bool:
        """Whether there are runs beside the one that grows."""
        return len(self._runs) > 1

    @property
    def files(self) -> int:
        """How many files have the runs."""
        return len({run.fd for run in self._runs})

    def unbroken_from(self, head: int) -> int:
        """The first position from which every byte up to ``head`` can be read; ``head`` when there is none."""
        for run in reversed(self._runs):
            if run.end != head:
                break
            head = run.base
        return head

    @property
    def oldest(self) -> Optional[Segment]:
        """The oldest run, None without any."""
        return self._runs[0] if self._runs else None

    def before(self, fd: int, at: int, length: int) -> None:
        """An older run, which comes just before the oldest one."""
        self._runs.insert(0, Segment(self._runs[0].base - length, at, fd, length))

    def begin(self, base: int, at: int, fd: int, length: int = 0) -> None:
        """What follows lies elsewhere: behind a gap, or in another file."""
        self._runs.append(Segment(base, at, fd, length))

    def forget(self, fd: int) -> None:
        """What this descriptor had is not there any more."""
        self._runs = [run for run in self._runs if run.fd != fd]

    def close(self) -> set[int]:
        """Forget all; returns descriptors to close."""
        fds, self._runs = {run.fd for run in self._runs}, []
        return fds

    def locate(self, position: int) -> Optional[tuple[int, int, int]]:
        """Where ``position`` can be read: descriptor, byte in the file, bytes from there on. None when nowhere."""
        for run in reversed(self._runs):
            if run.base <= position < run.end:
                skip = position - run.base
                return run.fd, run.at + skip, run.length - skip
        return None

    def next_after(self, position: int) -> Optional[int]:
        """The first readable position behind ``position``, for a reader whose place is gone."""
        later = [run.base for run in self._runs if run.base > position and run.length]
        return min(later) if later else None

    def release(self, needed_from: int, most: int) -> set[int]:
        """Forget runs that no reader needs any more, and the oldest past ``most``; returns descriptors to close."""
        before = {run.fd for run in self._runs}
        while len(self._runs) > 1 and (self._runs[0].end <= needed_from or len(self._runs) > most):
            del self._runs[0]
        return before - {run.fd for run in self._runs}
