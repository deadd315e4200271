"""A log's lines, each with its place, and those of them that match, with what stands around them.

Does: cuts a stream into lines in pieces of any size; chooses lines by a pattern.
Owns: the line that is not complete yet, and the lines that may become the context of a match.
Never: opens or writes anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from vspcd.ctl.pattern import Pattern
from vspcd.ctl.segments import Place, Segments

LINE_LIMIT = 1 << 20
"""A longer line is cut here."""


class Line(NamedTuple):
    """``text`` with its end, if it has one; ``place`` of its first byte, None for what has come just now."""

    text: bytes
    place: Optional[Place]


class Chosen(NamedTuple):
    """A line that is to be shown: one that matches, or one beside it. ``gap``: lines were left out before it."""

    line: Line
    matches: bool
    gap: bool


class Splitter:
    """Cuts a stream into lines."""

    def __init__(self) -> None:
        self._begun = b""
        self._place: Optional[Place] = None

    def feed(self, data: bytes, place: Optional[Place] = None) -> Iterator[Line]:
        """The lines that are complete now."""
        if not self._begun:
            self._place = place
        *whole, rest = data.split(b"\n")
        passed = 0
        for text in whole:
            yield Line(self._begun + text + b"\n", self._place)
            passed += len(text) + 1
            self._begun = b""
            self._place = place and Place(place.segment, place.byte + passed)
        self._begun += rest
        if len(self._begun) > LINE_LIMIT:
            yield from self.rest()

    def rest(self) -> Iterator[Line]:
        """What has no end yet."""
        if self._begun:
            yield Line(self._begun, self._place)
        self._begun = b""

    @property
    def waits(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._begun)


def lines_of(segments: Segments, start: Place, end: Place) -> Iterator[Line]:
    """The lines of a range; one that was rotated away in its middle is one."""
    splitter = Splitter()
    for place, data in segments.read(start, end):
        yield from splitter.feed(data, place)
    yield from splitter.rest()


class Choice:
    """Chooses lines, one after the other."""

    def __init__(self, pattern: Optional[Pattern], before: int = 0, after: int = 0) -> None:
        self._pattern = pattern
        self._after = after
        self._before: deque[Line] = deque(maxlen=before)
        self._left = 0
        self._gap = self._begun = False
        self._context = bool(before or after)

    def feed(self, line: Line) -> Iterator[Chosen]:
        if self._pattern is None:
            yield Chosen(line, True, False)
        elif self._pattern.matches(line.text):
            yield from self._flushed()
            yield Chosen(line, True, self._is_gap())
            self._left = self._after
        elif self._left:
            self._left -= 1
            yield Chosen(line, False, False)
        else:
            if len(self._before) == self._before.maxlen:
                self._gap = True
            self._before.append(line)

    def _flushed(self) -> Iterator[Chosen]:
        while self._before:
            yield Chosen(self._before.popleft(), False, self._is_gap())

    def _is_gap(self) -> bool:
        gap, self._gap = self._gap and self._begun and self._context, False
        self._begun = True
        return gap


def chosen(lines: Iterable[Line], choice: Choice) -> Iterator[Chosen]:
    for line in lines:
        yield from choice.feed(line)
