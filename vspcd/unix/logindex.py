"""The index beside a console's log: writes it, and reads where an earlier process left off.

Does: appends lines ``<unix ms> <journal position> <word> [JSON object]``. ``base`` says that from here on position p
lies at byte p - base of the log file, ``mark`` that a position was reached at that time; the rest are events.
Owns: the descriptor of the index.
Never: raises for a disk in trouble. A log without an index is a log, and a line that could not be written is absent;
only a base is owed until it is written, since what follows would be misread without it.
"""

from __future__ import annotations

import os
import time
from typing import Callable, NamedTuple, Optional

from vspcd.core.indexfile import Entry, parse_line
from vspcd.proto.jsontext import ascii_text
from vspcd.unix.logfolder import Folder

BLOCK = 65536
LAST_LINE = 4096  # more than a line about lost bytes has
LOST, IN_DOUBT = "lost", "in-doubt"  # words of lines that tell of a marker
POSITION_LIMIT = 1 << 60  # no console ever says that much: a larger number is damage


class End(NamedTuple):
    """What an index tells at its end: the base in force, and the last position."""

    base: int
    last: int


class IndexFile:
    """The index ``name`` of one console; ``trouble`` is told when it cannot be opened."""

    name = ""

    def __init__(self, folder: Folder, trouble: Callable[[str], None]) -> None:
        self._trouble = trouble
        self._complaint = ""
        self.size = 0
        self._folder = folder
        self._fd = -1
        self._torn = False
        self._owed: Optional[int] = None

    def open(self) -> None:
        """Open it, or the one that has the name now."""
        self.close()
        complaint = self._try_to_open()
        if complaint and complaint != self._complaint:
            self._trouble(complaint)
        self._complaint = complaint

    def _try_to_open(self) -> str:
        try:
            self._fd = self._folder.open(self.name)
            self.size = os.fstat(self._fd).st_size
            self._torn = self.size > 0 and os.pread(self._fd, 1, self.size - 1) != b"\n"
        except OSError as error:
            self.close()
            return f"no index: {os.strerror(error.errno or 0)}"
        return ""

    def is_ours(self) -> bool:
        """Whether the file that is written has the name."""
        return self._fd >= 0 and self._folder.has(self.name, self._fd)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Writing.

    def base(self, base: int) -> None:
        """From here on a position p is at byte p - base."""
        self._owed = base
        self._write("")

    def mark(self, position: int) -> None:
        """The journal is here by now."""
        self._write(_line(position, "mark"))

    def event(self, position: int, word: str, facts: dict[str, object]) -> None:
        """Something happened here."""
        text = f" {ascii_text(facts)}" if facts else ""
        self._write(_line(position, word + text))

    def _write(self, line: str) -> None:
        if self._fd < 0:
            return
        first = "" if self._owed is None else _line(self._owed, "base")
        before = "\n" if self._torn else ""
        wire = f"{before}{first}{line}".encode()
        try:
            done = os.write(self._fd, wire)
        except OSError:
            return  # the log itself tells of a disk in trouble
        self.size += done
        if done >= len(before) + len(first):
            self._owed = None
        self._torn = done < len(wire) and (self._torn or done > 0)

    # Reading.

    def end(self) -> End:
        """What it tells of the journal; zeros when it is empty or cannot be read."""
        base = _last(self._fd, self.size, b" base\n", "base")
        last = _last(self._fd, self.size, b"\n", "")
        return End(0 if base is None else base.position, 0 if last is None else last.position)

    def since(self, base: int) -> int:
        """The first position behind the last marker in a file with this base, or the base."""
        return _since(self._fd, self.size, base)

    def ends_with(self, word: str) -> bool:
        """Whether this word is the last line's."""
        entry = _last(self._fd, self.size, b"\n", "")
        return entry is not None and entry.word == word

    def told_up_to(self) -> int:
        """The end of the doubtful bytes that the last line about such tells of; -1 when there is none."""
        entry = _last(self._fd, self.size, f" {IN_DOUBT} ".encode(), IN_DOUBT)
        told = None if entry is None else entry.details().get("until")
        return told if isinstance(told, int) else -1

    def take_back_marker(self, position: int) -> None:
        """Remove the last line if it tells of a marker at this position."""
        try:
            begin = max(0, self.size - LAST_LINE)
            text = os.pread(self._fd, self.size - begin, begin)
            at = text.rfind(b"\n", 0, -1) + 1
            entry = parse_line(text[at:-1])
            if entry is not None and _marker_at(entry) == position:
                os.ftruncate(self._fd, begin + at)
                self.size = begin + at
        except OSError:
            pass  # an index that cannot be mended is still one


def end_of_file(folder: Folder, name: str) -> Optional[End]:
    """What the index with this name tells: its last base, and the first position behind its last marker."""
    fd = folder.open_to_read(name)
    if fd < 0:
        return None
    try:
        size = os.fstat(fd).st_size
        base = _last(fd, size, b" base\n", "base")
        return None if base is None else End(base.position, _since(fd, size, base.position))
    finally:
        os.close(fd)


def _marker_at(entry: Entry) -> int:
    """Where the marker stands that a line tells of; -1 when it tells of none."""
    if entry.word == IN_DOUBT:
        return entry.position
    size = entry.details().get("bytes")
    return entry.position - size if entry.word == LOST and isinstance(size, int) else -1


def _since(fd: int, size: int, base: int) -> int:
    found = (_last(fd, size, f" {word} ".encode(), word) for word in (LOST, IN_DOUBT))
    return max([base, *(entry.position for entry in found if entry is not None)])


def _last(fd: int, end: int, mark: bytes, word: str) -> Optional[Entry]:
    """The last line that has this mark and word; an empty word is any but base. However long the index is."""
    behind = b""  # the beginning of a line whose end lies in the block before this one
    while end > 0 and fd >= 0:
        begin = max(0, end - BLOCK)
        try:
            text = os.pread(fd, end - begin, begin) + behind
        except OSError:
            return None
        first = text.find(b"\n") + 1 if begin else 0
        entry = _last_in(text, first, mark, word)
        if entry is not None:
            return entry
        behind = text[:first]
        end = begin
    return None


def _last_in(text: bytes, first: int, mark: bytes, word: str) -> Optional[Entry]:
    at = len(text)
    while at > first:
        at = text.rfind(mark, first, at)
        if at < 0:
            return None
        begin = text.rfind(b"\n", 0, at) + 1
        behind = text.find(b"\n", at)
        entry = parse_line(text[begin:behind]) if behind >= 0 else None
        if entry is None or abs(entry.position) > POSITION_LIMIT:
            continue
        if entry.word == word or (not word and entry.word != "base"):
            return entry
    return None


def _line(position: int, text: str) -> str:
    return f"{int(time.time() * 1000)} {position} {text}\n"
