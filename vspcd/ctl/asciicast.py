"""vspcctl log --export asciicast: a range of a log as a recording, version 2 of asciinema's format.

Does: writes the header, what the VM said with its times, and a marker where the VM connected, left or was moved.
Owns: the file that it writes.
Never: filters; whoever plays a recording plays what the VM said, escape sequences and all. The file itself is JSON,
which is harmless to look at.

https://docs.asciinema.org/manual/asciicast/v2/
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional, Union

from vspcd.core.names import visible
from vspcd.ctl.failure import FAILED, INTERRUPTED, OK, Failure
from vspcd.ctl.logrange import Range
from vspcd.ctl.pager import write_all
from vspcd.ctl.segments import Place, Segments
from vspcd.ctl.timeline import Piece, pieces

WIDTH, HEIGHT = 80, 24
"""What a serial line is taken for; nobody tells its terminal's size."""
IDLE = 2.0
"""Seconds that a player shows of a longer pause, unless told otherwise."""
MARKED: Mapping[str, str] = {"connected": "connected", "disconnected": "disconnected", "vmotion": "moved"}
WRITTEN = 1 << 16
MODE = 0o640


class Marker(NamedTuple):
    place: Place
    moment: float
    label: str


def export(segments: Segments, wanted: Range, name: str, path: Optional[str]) -> int:
    """Write the recording to ``path`` or stdout."""
    fd = 1 if path is None else _created(path)
    try:
        _write(fd, _recording(segments, wanted, name))
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if path is not None:
            os.close(fd)
    return OK


def _created(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise Failure(f"{visible(path)}: {error.strerror}", FAILED) from None


def _write(fd: int, lines: Iterator[object]) -> None:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(json.dumps(line).encode() + b"\n")
        size += len(held[-1])
        if size >= WRITTEN:
            write_all(fd, b"".join(held))
            held, size = [], 0
    write_all(fd, b"".join(held))


def _recording(segments: Segments, wanted: Range, name: str) -> Iterator[object]:
    """The header and the events, with times in seconds since the first one."""
    began: Optional[float] = None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for event in _events(segments, wanted):
        if began is None:
            began = event.moment
            yield _header(began, name)
        passed = round(max(event.moment - began, 0.0), 6)
        if isinstance(event, Marker):
            yield [passed, "m", event.label]
        else:
            text = decoder.decode(event.data)
            if text:
                yield [passed, "o", text]
    if began is None:
        yield _header(0.0, name)


def _header(began: float, name: str) -> dict[str, object]:
    return {
        "version": 2,
        "width": WIDTH,
        "height": HEIGHT,
        "timestamp": int(began),
        "title": visible(name),
        "idle_time_limit": IDLE,
        "env": {"TERM": "vt100"},
    }


def _events(segments: Segments, wanted: Range) -> Iterator[Union[Piece, Marker]]:
    """What was said and what happened, in order."""
    markers = list(_markers(segments, wanted))
    last = 0.0
    for piece in pieces(segments, wanted):
        while markers and markers[0].place <= piece.place:
            yield markers[0]._replace(moment=max(min(markers[0].moment, piece.moment), last))
            markers.pop(0)
        last = piece.moment
        yield piece
    for marker in markers:
        yield marker._replace(moment=max(marker.moment, last))


def _markers(segments: Segments, wanted: Range) -> Iterator[Marker]:
    for entry, place in segments.events(MARKED):
        if wanted.start < wanted.end and wanted.start <= place <= wanted.end:
            yield Marker(place, entry.moment, MARKED[entry.word])
