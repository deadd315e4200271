"""A console's log: the file that holds exactly the VM's bytes, and its index beside it.

Does: appends, rotates by size, reopens after someone renamed the file, reads any position that is still
there.
Owns: the descriptors of the log, of its index and of rotated files that a slow client still reads.
Never: opens a name that a VM chose (the stem is a checked identity); stops the console when the disk does:
what cannot be written is counted, marked in the log and in the index, and writing goes on as soon as it can.

The index is text, ``<unix ms> <journal position> <word> [JSON object]`` a line. ``base`` says that from here
on position p lies at byte p - base of the file; ``mark`` that a position was reached at that time.
"""

from __future__ import annotations

import json
import os
import time
from typing import Callable, NamedTuple, Optional

from vspcd.core.indexfile import parse_line
from vspcd.core.journal import Buffer, Segments, Tail

TAIL = 65536
MARK_EVERY = 1.0
SYNC_EVERY = 0.4
ROTATE_RETRY = 1.0
ROTATING = 0  # no file has this inode: the next one begins at the position beside it
MAX_SEGMENTS = 32
INDEX_BLOCK = 65536
INDEX_LIMIT = 16 << 20  # bytes; a VM that only makes events must not fill the disk with them
POSITION_LIMIT = 1 << 60  # no console ever says that much: a larger number is damage
FLAGS = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
MODE = 0o640


class LogSettings(NamedTuple):
    """The ``log`` section as the worker needs it. Sizes in bytes; ``sync``: interval, always or never."""

    enabled: bool = True
    max_size: int = 64 << 20
    keep: int = 5
    sync: str = "interval"


class Place(NamedTuple):
    """Where a log stands: the file's inode, the position of its first byte; ``head`` if neither can be believed."""

    inode: int
    base: int
    head: int


class LogFile:
    """The journal of one console: an in-memory tail, and the log files when logging is on.

    ``directory`` is an open descriptor of the log directory, ``stem`` the console's identity. ``changed`` is
    called at most every 0.4 s with new bytes in the file, so that somebody can bring them to the disk;
    ``trouble`` when writing begins or ceases to fail, with the reason or an empty text.
    """

    def __init__(
        self,
        directory: int,
        stem: str,
        settings: LogSettings,
        changed: Callable[[], None],
        trouble: Callable[[str], None],
        placed: Callable[[int, int], None] = lambda _inode, _base: None,
        resume: Optional[Place] = None,
    ) -> None:
        self.stem = stem
        self.settings = settings
        self.not_logged = 0
        self._directory = directory
        self._changed = changed
        self._trouble = trouble
        self._placed = placed
        self._resume_at = resume
        self._segments = Segments()
        self._file = -1
        self._index = -1
        self._size = 0
        self._index_size = 0
        self._gap = 0
        self._gapped = False
        self._failing = ""
        self._rotate_again = 0.0
        self._last_mark = 0.0
        self._last_sync = 0.0
        self.tail = Tail(TAIL)
        if settings.enabled:
            self._open(None)

    @property
    def head(self) -> int:
        """The position behind the last byte."""
        return self.tail.head

    @property
    def name(self) -> str:
        """The log file's name in its directory."""
        return f"{self.stem}.log"

    # Writing.

    def append(self, data: Buffer) -> None:
        """Take what the VM said. Never raises: what the disk refuses is counted."""
        if self.settings.enabled:
            self._log(data)
        self.tail.append(data)

    def _log(self, data: Buffer) -> None:
        if self._gapped and not self._resume():
            self._lose(len(data), self._failing)
            return
        self._mark()
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                if self._due_to_rotate(self._size >= self.settings.max_size):
                    # What this call has written so far is not yet in the head.
                    self._rotate(self.head + done)
                done += self._write(view[done:])
            if self.settings.sync == "always":
                os.fdatasync(self._file)
        except OSError as error:
            self._lose(len(view) - done, os.strerror(error.errno or 0))

    def _write(self, data: memoryview) -> int:
        """Write what the file has room for before it is rotated, at least something: how much. Raises OSError."""
        room = self.settings.max_size - self._size
        size = os.write(self._file, data[:room] if 0 < room < len(data) else data)
        self._wrote(size)
        return size

    def _due_to_rotate(self, full: bool) -> bool:
        full = full or self._index_size >= INDEX_LIMIT
        return full and time.monotonic() >= self._rotate_again

    def _wrote(self, size: int) -> None:
        self._size += size
        current = self._segments.current
        if current is not None:
            current.length += size
        if self.settings.sync == "interval":
            now = time.monotonic()
            if now - self._last_sync >= SYNC_EVERY:
                self._last_sync = now
                self._changed()

    def _lose(self, size: int, reason: str) -> None:
        self._gapped = True
        self._gap += size
        self.not_logged += size
        if reason != self._failing:
            self._failing = reason
            self._trouble(reason)

    def _resume(self) -> bool:
        """Write the marker for what was lost; whether the log takes bytes again."""
        if self._file < 0 and not self._open(self.head):
            return False
        if not self._mark_gap():
            return False
        self._gapped, self._gap, self._failing = False, 0, ""
        self._segments.begin(self.head, self._size, self._file)
        self._base(self.head - self._size)
        self._placed(os.fstat(self._file).st_ino, max(0, self.head - self._size))
        self._trouble("")
        return True

    def _mark_gap(self) -> bool:
        """Say in the log how much is missing; whether that could be written."""
        if not self._gap:
            return True
        marker = f"\r\n[vspcd: {self._gap} bytes not logged: {self._failing}]\r\n".encode()
        try:
            done = os.write(self._file, marker)
        except OSError:
            return False
        self._size += done
        if done < len(marker):
            return False
        self.event("lost", {"bytes": self._gap})
        return True

    # Opening, rotating.

    def _open(self, head: Optional[int]) -> bool:
        """Open log and index; ``head`` None finds out where the journal stands."""
        try:
            self._file = os.open(self.name, FLAGS | os.O_RDWR, MODE, dir_fd=self._directory)
            self._index = os.open(f"{self.stem}.idx", FLAGS | os.O_RDWR, MODE, dir_fd=self._directory)
        except OSError as error:
            self._close()
            self._lose(0, os.strerror(error.errno or 0))
            return False
        self._size = os.fstat(self._file).st_size
        self._index_size = os.fstat(self._index).st_size
        if head is None and self._resume_at is not None:
            head = self._resumed_head(self._resume_at)
            self.tail.head = head
            self._segments.begin(head - self._size, 0, self._file, self._size)
        elif head is None:
            base, last = self._index_end()
            self._segments.begin(base, 0, self._file, self._size)
            # The log may have been moved away while nobody wrote it: positions do not go back.
            head = max(base + self._size, last)
            self.tail.head = head
        if self._segments.end != head or self._segments.fd != self._file:
            self._segments.begin(head, self._size, self._file)
        self._base(head - self._size)
        self._placed(os.fstat(self._file).st_ino, head - self._size)
        return True

    def _resumed_head(self, place: Place) -> int:
        """Where the journal stands after a dead worker: the file tells, unless it was just being replaced."""
        if os.fstat(self._file).st_ino == place.inode:
            return place.base + self._size
        return place.base if place.inode == ROTATING else place.head

    def _index_end(self) -> tuple[int, int]:
        """The base in force at the end of the index and the last position that it knows; zeros in an empty one."""
        end = os.fstat(self._index).st_size
        last: Optional[int] = None
        cut = b""
        while end > 0:
            begin = max(0, end - INDEX_BLOCK)
            lines = (os.pread(self._index, end - begin, begin) + cut).split(b"\n")
            if begin:
                cut = lines.pop(0)
            for entry in filter(None, map(parse_line, reversed(lines))):
                if abs(entry.position) > POSITION_LIMIT:
                    continue
                if entry.word == "base":
                    return entry.position, entry.position if last is None else last
                if last is None:
                    last = entry.position
            end = begin
        return 0, last or 0

    def _rotate(self, head: int) -> None:
        """Rename the files one further and begin new ones; readers keep the old."""
        self.event("rotated", {}, at=head)
        self._placed(ROTATING, head)
        try:
            for suffix in ("log", "idx"):
                self._shift(suffix)
        except OSError as error:
            # A directory that refuses to rename must not cost a rotation per write.
            self._rotate_again = time.monotonic() + ROTATE_RETRY
            self._trouble(f"cannot rotate: {os.strerror(error.errno or 0)}")
            self._placed(os.fstat(self._file).st_ino, head - self._size)
            return
        self._begin_file(head)

    def _shift(self, suffix: str) -> None:
        names = [
            f"{self.stem}.{suffix}",
            *(f"{self.stem}.{suffix}.{n}" for n in range(1, self.settings.keep + 1)),
        ]
        try:
            if len(names) == 1:
                os.unlink(names[0], dir_fd=self._directory)
        except FileNotFoundError:
            pass
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1])):
            try:
                os.rename(newer, older, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except FileNotFoundError:
                pass

    def _begin_file(self, head: int) -> None:
        self._close_index()
        self._file = -1  # the segment keeps the descriptor
        self._open(head)

    def reopen(self) -> None:
        """Someone may have renamed the files: go on in those that now bear the names. Nothing is lost."""
        if not self.settings.enabled or self._file < 0:
            return
        if not self._is_ours(self.name, self._file):
            self.event("reopened", {})
            self._placed(ROTATING, self.head)
            self._begin_file(self.head)
        elif not self._is_ours(f"{self.stem}.idx", self._index):
            self._close_index()
            self._reopen_index()

    def _reopen_index(self) -> None:
        try:
            self._index = os.open(f"{self.stem}.idx", FLAGS | os.O_RDWR, MODE, dir_fd=self._directory)
        except OSError as error:
            self._trouble(f"no index: {os.strerror(error.errno or 0)}")
        self._base(self.head - self._size)

    def _is_ours(self, name: str, fd: int) -> bool:
        try:
            there, ours = os.stat(name, dir_fd=self._directory, follow_symlinks=False), os.fstat(fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    # Reading.

    @property
    def oldest(self) -> int:
        """The first position of what can be read without a gap up to the head."""
        return min(self.tail.start, self._segments.unbroken_from(self.head))

    @property
    def rotated_files(self) -> bool:
        """Whether files are open that are no longer written."""
        return self._segments.several

    def read(self, position: int, size: int) -> Optional[bytes]:
        """Up to ``size`` bytes from ``position`` on; empty at the head, None when that place is gone."""
        if position >= self.head:
            return b""
        data = self.tail.read(position, size)
        if data is not None:
            return data
        place = self._segments.locate(position)
        if place is None:
            return None
        fd, at, length = place
        try:
            return os.pread(fd, min(size, length), at) or None
        except OSError:
            return None

    def reach(self, position: int) -> None:
        """Open rotated files as far back as this position, for a reader who stood there before this process began."""
        for number in range(1, self.settings.keep + 1):
            oldest = self._segments.start
            if oldest is None or oldest <= position:
                return
            try:
                fd = os.open(f"{self.stem}.log.{number}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            except OSError:
                return
            size = os.fstat(fd).st_size
            self._segments.before(oldest - size, fd, size)

    def next_readable(self, position: int) -> int:
        """Where a reader can go on whose ``position`` is gone."""
        found = self._segments.next_after(position)
        return self.tail.start if found is None else min(found, self.tail.start)

    def release(self, needed_from: int) -> None:
        """No reader stands before ``needed_from``: older files can be closed."""
        for fd in self._segments.release(needed_from, MAX_SEGMENTS):
            if fd != self._file:
                os.close(fd)

    # The index.

    def _mark(self) -> None:
        now = time.time()
        if abs(now - self._last_mark) >= MARK_EVERY:
            self._last_mark = now
            self._write_index(f"{int(now * 1000)} {self.head} mark\n")

    def event(self, word: str, facts: dict[str, object], at: Optional[int] = None) -> None:
        """Note an event at this position, or at ``at``."""
        if at is None and self._due_to_rotate(False):
            self._rotate(self.head)
        position = self.head if at is None else at
        text = f" {json.dumps(facts, separators=(',', ':'))}" if facts else ""
        self._write_index(f"{int(time.time() * 1000)} {position} {word}{text}\n")

    def _base(self, base: int) -> None:
        self._write_index(f"{int(time.time() * 1000)} {base} base\n")

    def _write_index(self, line: str) -> None:
        if self._index >= 0:
            try:
                self._index_size += os.write(self._index, line.encode())
            except OSError:
                pass  # the log itself tells of a disk in trouble

    def _close_index(self) -> None:
        if self._index >= 0:
            os.close(self._index)
            self._index = -1

    def _close(self) -> None:
        self._close_index()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Let go of all files."""
        for fd in self._segments.release(self.head + 1, 0):
            if fd != self._file:
                os.close(fd)
        self._close()
