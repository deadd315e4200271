"""A log in its own time: what came, piece by piece, and when.

Does: takes the times from the index, and spreads what came within one second over that second.
Owns: nothing.
Never: waits; lets time run backwards.

The index knows times to a second. What came between two of its marks came within a second of the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vspcd.core.indexfile import MARK_EVERY
from vspcd.ctl.logrange import Range
from vspcd.ctl.segments import BLOCK, Place, Segment, Segments

FRAMES = 25
"""Pieces that a second is spread over, at most, but for large ones."""


class Piece(NamedTuple):
    """What came at a moment, in Unix seconds."""

    moment: float
    data: bytes
    place: Place


class Stretch(NamedTuple):
    """Bytes of a file from ``begin`` to ``end``, which came from ``moment`` on within ``seconds``."""

    begin: int
    end: int
    moment: float
    seconds: float


def pieces(segments: Segments, wanted: Range) -> Iterator[Piece]:
    """The range from its beginning to its end. Bytes without a known time come with those before them."""
    moment = 0.0
    for number in range(wanted.start.segment, wanted.end.segment + 1):
        segment = segments.all[number]
        low = wanted.start.byte if number == wanted.start.segment else 0
        high = wanted.end.byte if number == wanted.end.segment else segment.size
        for stretch in _stretches(segment, low, high, moment or segment.changed):
            for at, data in _read(segment, stretch):
                passed = (at - stretch.begin) / (stretch.end - stretch.begin)
                moment = max(moment, stretch.moment + stretch.seconds * passed)
                yield Piece(moment, data, Place(number, at))


def _stretches(segment: Segment, low: int, high: int, moment: float) -> Iterator[Stretch]:
    begin = low
    for entry, byte in segment.index.entries():
        at = min(max(byte, low), high)
        if at > begin:
            yield Stretch(begin, at, moment, min(max(entry.moment - moment, 0.0), MARK_EVERY))
            begin = at
        if begin >= high:
            return
        moment = entry.moment
    if begin < high:
        yield Stretch(begin, high, moment, MARK_EVERY)


def _read(segment: Segment, stretch: Stretch) -> Iterator[tuple[int, bytes]]:
    """The stretch in at most FRAMES pieces of whole lines, or in blocks when it is large."""
    size = max((stretch.end - stretch.begin) // FRAMES, 1)
    at = stretch.begin
    while at < stretch.end:
        data = segment.read(at, min(BLOCK, stretch.end - at))
        if not data:
            return
        passed = 0
        while passed < len(data):
            end = data.find(b"\n", passed + size - 1) + 1 or len(data)
            yield at + passed, data[passed:end]
            passed = end
        at += len(data)
