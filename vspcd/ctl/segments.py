"""A console's log files, read as one: the current file and the rotated ones before it.

Does: opens them in one consistent look, finds times and lines in them, reads ranges, goes on over rotations.
Owns: the open files.
Never: writes; needs the daemon.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional, Union

from vspcd.core.indexfile import Entry, Index

BLOCK = 65536
LOOKS = 10
"""How often to look again when files are rotated meanwhile."""


class Segment:
    """One log file and its index."""

    def __init__(self, log: str, index: str, indexed: bool = True) -> None:
        """Raises OSError when the log cannot be opened. Not ``indexed``: its times are not wanted."""
        self.fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)
        self.size, self.changed = status.st_size, status.st_mtime
        self.index = Index(_mapped(index) if indexed else b"")
        self._known: tuple[int, int, Optional[float]] = (0, 0, None)

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self.fd, size, at)

    def since(self, moment: float) -> Optional[int]:
        """The first byte from ``moment`` on; None when all is older. Without an index a file goes as one."""
        if not self.index:
            return 0 if self.changed >= moment else None
        at = self.index.byte_since(moment)
        return None if at is None or at >= self.size else at

    def until(self, moment: float) -> Optional[int]:
        """The first byte behind ``moment``; None when all is older."""
        at = self.index.byte_after(moment)
        return None if at is None else min(at, self.size)

    def moment(self, byte: int) -> Optional[float]:
        """When a byte came; asked for one byte after the other, the index is looked at once a second of them."""
        begin, end, moment = self._known
        if not begin <= byte < end:
            moment, until = self.index.arrival(byte)
            self._known = (byte, sys.maxsize if until is None else until, moment)
        return moment

    def close(self) -> None:
        os.close(self.fd)


def _mapped(path: str) -> Union[bytes, mmap.mmap]:
    """The index file's bytes; none when there is no index."""
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return b""  # mmap refuses an empty file.


class Place(NamedTuple):
    """A byte in one of the segments."""

    segment: int
    byte: int


class Segments:
    """All files of one console, oldest first. A context manager."""

    def __init__(self, path: str, numbers: Optional[list[int]] = None, indexed: bool = True) -> None:
        """``path`` is the current log file's. Raises OSError when there is none that can be read.

        ``numbers`` of the rotated files, if somebody has looked already.
        """
        self.path = path
        self.all = _opened(path, numbers, indexed)

    def __enter__(self) -> Segments:
        return self

    def __exit__(self, *_: object) -> None:
        for segment in self.all:
            segment.close()

    @property
    def end(self) -> Place:
        return Place(len(self.all) - 1, self.all[-1].size)

    def since(self, moment: float) -> Place:
        """The first byte that came at ``moment`` or later."""
        found = ((number, segment.since(moment)) for number, segment in enumerate(self.all))
        return next((Place(number, at) for number, at in found if at is not None), self.end)

    def until(self, moment: float) -> Place:
        """The first byte that came after ``moment``."""
        found = ((number, segment.until(moment)) for number, segment in enumerate(self.all))
        return next((Place(number, at) for number, at in found if at is not None), self.end)

    def last_lines(self, count: int, start: Place, end: Place) -> Place:
        """Where the last ``count`` lines before ``end`` begin, but not before ``start``."""
        ends = 1  # The newline at the very end begins no line.
        left = count
        for place, data in self._backwards(start, end):
            at = len(data) - ends * data.endswith(b"\n")
            ends = 0
            while left and at >= 0:
                at = data.rfind(b"\n", 0, at)
                left -= at >= 0
            if not left:
                return Place(place.segment, place.byte + at + 1) if count else end
        return start

    def _backwards(self, start: Place, end: Place) -> Iterator[tuple[Place, bytes]]:
        for number in range(end.segment, start.segment - 1, -1):
            segment = self.all[number]
            low = start.byte if number == start.segment else 0
            at = end.byte if number == end.segment else segment.size
            while at > low:
                begin = max(at - BLOCK, low)
                yield Place(number, begin), segment.read(begin, at - begin)
                at = begin

    def read(self, start: Place, end: Place) -> Iterator[tuple[Place, bytes]]:
        """All bytes of a range in pieces, each with its place."""
        for number in range(start.segment, end.segment + 1):
            segment = self.all[number]
            at = start.byte if number == start.segment else 0
            stop = end.byte if number == end.segment else segment.size
            while at < stop:
                data = segment.read(at, min(BLOCK, stop - at))
                if not data:
                    break
                yield Place(number, at), data
                at += len(data)

    def moment(self, place: Place) -> Optional[float]:
        """When the byte at a place came."""
        return self.all[place.segment].moment(place.byte)

    def events(self, words: Iterable[str]) -> Iterator[tuple[Entry, Place]]:
        """What happened, of these kinds, oldest first, each with its place."""
        for number, segment in enumerate(self.all):
            for entry, byte in segment.index.events(words):
                yield entry, Place(number, min(max(byte, 0), segment.size))


class Follower:
    """What is appended from a place on, over any rotation."""

    def __init__(self, path: str, last: Segment, at: int) -> None:
        """Goes on in ``last``, which it owns from now on."""
        self._path, self._file, self._at = path, last, at
        self._later: list[Segment] = []

    def read(self) -> bytes:
        """What has come; empty when nothing has."""
        data = self._file.read(self._at, BLOCK)
        if not data:
            if not self._later:
                self._look()
            # A file that was renamed is written to until the next one is.
            left = bool(self._later and self._later[0].read(0, 1))
            data = self._file.read(self._at, BLOCK)
            if left and not data:
                self._file.close()
                self._file, self._at = self._later.pop(0), 0
                data = self._file.read(0, BLOCK)
        self._at += len(data)
        return data

    @property
    def place(self) -> tuple[tuple[int, int], int]:
        """Which file it reads, by device and inode, and the next byte of it."""
        return self._file.identity, self._at

    def _look(self) -> None:
        """Open what has come behind the file that we read."""
        try:
            status = os.stat(self._path)
        except OSError:
            return  # It is being rotated.
        if (status.st_dev, status.st_ino) == self._file.identity:
            if status.st_size < self._at:
                self._at = 0  # Somebody has cut the file off.
            return
        segments = _opened(self._path)
        known = [segment.identity for segment in segments]
        later = known.index(self._file.identity) + 1 if self._file.identity in known else len(known) - 1
        for segment in segments[:later]:
            segment.close()
        self._later = segments[later:]

    def close(self) -> None:
        for segment in (self._file, *self._later):
            segment.close()


def _opened(path: str, numbers: Optional[list[int]] = None, indexed: bool = True) -> list[Segment]:
    """All files of a log, oldest first, as they are at one moment."""
    for _ in range(LOOKS):
        numbers = rotated(path) if numbers is None else numbers
        segments = [
            segment for segment in (_open(*names, indexed) for names in _files(path, numbers)) if segment
        ]
        if segments and _is_one_moment(segments) and _is_current(segments[-1], path):
            return segments
        for segment in segments:
            segment.close()
        if not segments and not rotated(path) and not os.path.exists(path):
            raise FileNotFoundError(2, "no such log", path)
        numbers = None
    raise FileNotFoundError(2, "the log is rotated without a pause", path)


def _open(log: str, index: str, indexed: bool) -> Optional[Segment]:
    """None when there is no such file (any more). Raises OSError."""
    try:
        return Segment(log, index, indexed)
    except FileNotFoundError:
        return None


def _is_one_moment(segments: list[Segment]) -> bool:
    return len({segment.identity for segment in segments}) == len(segments)


def _is_current(segment: Segment, path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return True  # Only rotated files are left.
    return (status.st_dev, status.st_ino) == segment.identity


def rotated(path: str) -> list[int]:
    """The numbers of the rotated files of a log."""
    directory, name = os.path.split(path)
    numbered = re.compile(re.escape(name) + r"\.(\d{1,6})", re.ASCII)
    return [int(match[1]) for match in map(numbered.fullmatch, os.listdir(directory or ".")) if match]


def _files(path: str, numbers: list[int]) -> list[tuple[str, str]]:
    """The paths of log and index, oldest first."""
    stem = path[: -len(".log")]
    old = [(f"{path}.{number}", f"{stem}.idx.{number}") for number in sorted(numbers, reverse=True)]
    return [*old, (path, f"{stem}.idx")]
