"""Reads the index beside a console's log: when which byte of the log file came, and what happened.

Does: parses lines ``<unix ms> <journal position> <word> [JSON object]``, and answers time → byte and
byte → time by bisection, however long the index is. Lines that are torn or damaged count as absent.
Owns: nothing; the text is the caller's.
Never: opens a file.

A ``base`` line says that from here on a journal position p lies at byte p - base of the file. Every other
line says that the bytes before its position had come by its time and those behind it had not; bytes without a
line of their own came within MARK_EVERY of the line before. A clock that was set back makes answers inexact,
never an error.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from mmap import mmap
from typing import Any, Callable, NamedTuple, Optional, Union

MARK_EVERY = 1.0
"""Seconds within which bytes come without a new mark."""
LINE_LIMIT = 65536

_LINE = re.compile(rb"(\d{1,16}) (\d{1,20}|-\d{1,20}(?= base)) ([a-z][a-z-]*)(?: (\{.*\}))?", re.ASCII)
_BASE = re.compile(rb" base\n")


class Entry(NamedTuple):
    """One line. ``moment`` in Unix seconds; ``position`` in the journal; ``facts`` as text."""

    moment: float
    position: int
    word: str
    facts: bytes

    def details(self) -> dict[str, Any]:
        """What the line tells beside its word; empty when that is damaged."""
        try:
            found = json.loads(self.facts or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Place(NamedTuple):
    """A line's meaning for the log file: before ``byte`` is what had come by ``moment``."""

    moment: float
    byte: int


def parse_line(line: bytes) -> Optional[Entry]:
    """The entry of a line without its newline; None for a damaged one."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return Entry(int(match[1]) / 1000, int(match[2]), match[3].decode("ascii"), match[4] or b"")


class Index:
    """The index of one log file."""

    def __init__(self, text: Union[bytes, mmap]) -> None:
        self._text = text
        self._end = text.rfind(b"\n") + 1
        found = [(match.end(), self._base_in(match.end())) for match in _BASE.finditer(text)]
        self._bases = [(at, base) for at, base in found if base is not None]

    def __bool__(self) -> bool:
        """Whether it can tell anything about the file."""
        return bool(self._bases)

    def byte_since(self, moment: float) -> Optional[int]:
        """The first byte that came at ``moment`` or later, perhaps a second sooner. None: all is older."""
        at = self._first(lambda place: place.moment > moment)
        following = self._place_from(at)
        before = self._place_before(at)
        if before is None:
            return 0
        if moment <= before.moment + MARK_EVERY:
            return before.byte
        return None if following is None else following.byte

    def byte_after(self, moment: float) -> Optional[int]:
        """The first byte that came after ``moment``, perhaps a second later. None: all is older."""
        following = self._place_from(self._first(lambda place: place.moment > moment))
        if following is None:
            return None
        return following.byte

    def arrival(self, byte: int) -> tuple[Optional[float], Optional[int]]:
        """When a byte of the file came, and the first byte that may have another time, if there is one."""
        at = self._first(lambda place: place.byte > byte)
        before, following = self._place_before(at), self._place_from(at)
        return before and before.moment, following and following.byte

    def entries(self) -> Iterator[tuple[Entry, int]]:
        """All entries but bases, oldest first, each with its byte in the file."""
        at = 0
        while at < self._end:
            line, at = self._line(at)
            entry = parse_line(line)
            base = self._base_at(at)
            if entry is not None and entry.word != "base" and base is not None:
                yield entry, entry.position - base

    def events(self, words: Iterable[str]) -> Iterator[tuple[Entry, int]]:
        """The entries with these words, oldest first, each with its byte in the file; fast on a long index."""
        wanted = frozenset(words)
        found = re.compile(b" (?:%s)[ \\n]" % "|".join(sorted(wanted)).encode())
        at = 0
        for match in found.finditer(self._text):
            begin = self._text.rfind(b"\n", 0, match.start() + 1) + 1
            if begin < at:
                continue  # a name or a reason in the facts reads like a word
            line, at = self._line(begin)
            entry, base = parse_line(line), self._base_at(begin)
            if at and entry is not None and entry.word in wanted and base is not None:
                yield entry, entry.position - base

    def _base_in(self, end: int) -> Optional[int]:
        """The base that the line before ``end`` gives."""
        begin = self._text.rfind(b"\n", 0, end - 1) + 1
        entry = parse_line(self._text[begin : end - 1]) if end - begin < LINE_LIMIT else None
        return entry.position if entry is not None and entry.word == "base" else None

    def _base_at(self, at: int) -> Optional[int]:
        """The base in force at this place of the text."""
        number = bisect_right(self._bases, (at, float("inf")))
        return self._bases[number - 1][1] if number else None

    def _line(self, at: int) -> tuple[bytes, int]:
        behind = self._text.find(b"\n", at) + 1
        return self._text[at : behind - 1], behind

    def _place(self, at: int) -> tuple[Optional[Place], int]:
        """What the line at ``at`` says, and where the next one begins."""
        line, behind = self._line(at)
        entry, base = parse_line(line), self._base_at(at)
        if entry is None or entry.word == "base" or base is None:
            return None, behind
        return Place(entry.moment, max(entry.position - base, 0)), behind

    def _place_from(self, at: int) -> Optional[Place]:
        while at < self._end:
            place, at = self._place(at)
            if place is not None:
                return place
        return None

    def _place_before(self, at: int) -> Optional[Place]:
        while at > 0:
            at = self._text.rfind(b"\n", 0, at - 1) + 1
            place, _ = self._place(at)
            if place is not None:
                return place
        return None

    def _first(self, later: Callable[[Place], bool]) -> int:
        """Where the first line begins that is ``later``, given that all behind it are too; else the end."""
        low, high = 0, self._end
        while low < high:
            middle = self._text.rfind(b"\n", low, (low + high) // 2) + 1
            middle = max(middle, low)
            at, place = middle, None
            while place is None and at < high:
                place, at = self._place(at)
            if place is None or later(place):
                high = middle
            else:
                low = at
        return low
