"""vspcctl log: shows a console's log from the files, with or without the daemon.

Does: chooses the range by lines and times, shows it, and follows it over rotations.
Owns: the form of what is shown.
Never: changes a byte when stdout is no terminal and no timestamps are wanted; on a terminal it leaves out
what would steer it, unless --raw.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import DENIED, INTERRUPTED, NO_CONSOLE, OK, USAGE, Failure
from vspcd.ctl.logplace import find_log
from vspcd.ctl.plain import PlainText
from vspcd.ctl.segments import Follower, Place, Segments
from vspcd.ctl.times import parse_moment, stamp

FOLLOW_EVERY = 0.1
FOLLOWED_LINES = 10
"""Lines that -f shows first unless told otherwise."""
UNKNOWN_TIME = "-" * len("2026-01-01 00:00:00")


def run(arguments: Namespace) -> int:
    now = time.time()
    since, until = _moment(arguments.since, "--since", now), _moment(arguments.until, "--until", now)
    if arguments.follow and until is not None:
        raise Failure("-f and --until exclude each other", USAGE)
    path = find_log(arguments)
    try:
        with Segments(path) as segments:
            _warn_without_index(segments, since, until, arguments.timestamps)
            return _show(segments, arguments, since, until)
    except PermissionError as error:
        reason = f"permission denied on {visible(str(error.filename or path))}"
        raise Failure(f"{reason}: root and the members of the group vspc may read it", DENIED) from None
    except FileNotFoundError:
        raise Failure(f"there is no log at {visible(path)}", NO_CONSOLE) from None


def _show(segments: Segments, arguments: Namespace, since: Optional[float], until: Optional[float]) -> int:
    end = segments.end if until is None else segments.until(until)
    start = Place(0, 0) if since is None else segments.since(since)
    start = min(start, end)
    lines: Optional[int] = arguments.lines
    if lines is None and arguments.follow and since is None:
        lines = FOLLOWED_LINES
    if lines is not None:
        start = segments.last_lines(lines, start, end)
    printer = Printer(arguments.timestamps, plain=os.isatty(1) and not arguments.raw)
    try:
        for place, data in segments.read(start, end):
            printer.show(data, segments, place)
        if arguments.follow:
            _follow(segments, end, printer)
    except KeyboardInterrupt:
        printer.finish()
        return INTERRUPTED
    printer.finish()
    return OK


def _follow(segments: Segments, end: Place, printer: Printer) -> None:
    """Show what comes, for ever; ends by a signal or a reader that has gone."""
    follower = Follower(segments.path, segments.all.pop(), end.byte)
    try:
        while True:
            data = follower.read()
            if data:
                printer.show(data)
            else:
                time.sleep(FOLLOW_EVERY)
    finally:
        follower.close()


class Printer:
    """Writes the log's bytes to stdout as they are wanted there."""

    def __init__(self, timestamps: bool, plain: bool) -> None:
        self._timestamps = timestamps
        self._plain = PlainText() if plain else None
        self._at_line_start = True
        self._stamp = b""
        self._stamp_ends: Optional[Place] = None

    def show(self, data: bytes, segments: Optional[Segments] = None, place: Optional[Place] = None) -> None:
        """Write a piece; without a place it has come just now."""
        if self._timestamps:
            data = self._stamped(data, segments, place)
        self._write(self._plain.feed(data) if self._plain else data)

    def finish(self) -> None:
        if self._plain:
            self._write(self._plain.finish())

    def _stamped(self, data: bytes, segments: Optional[Segments], place: Optional[Place]) -> bytes:
        now = f"{stamp(time.time())}  ".encode()
        pieces: list[bytes] = []
        passed = 0
        for line in _lines(data):
            if self._at_line_start:
                at = Place(place.segment, place.byte + passed) if place else None
                pieces.append(self._stamp_of(segments, at) if segments and at else now)
            pieces.append(line)
            passed += len(line)
            self._at_line_start = line.endswith(b"\n")
        return b"".join(pieces)

    def _stamp_of(self, segments: Segments, place: Place) -> bytes:
        """The time of a line's first byte; kept as long as the index tells no other."""
        ends = self._stamp_ends
        if ends is None or place.segment != ends.segment or place.byte >= ends.byte:
            moment, until = segments.all[place.segment].index.arrival(place.byte)
            self._stamp = f"{UNKNOWN_TIME if moment is None else stamp(moment)}  ".encode()
            self._stamp_ends = Place(place.segment, sys.maxsize if until is None else until)
        return self._stamp

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def _lines(data: bytes) -> list[bytes]:
    """The lines of some data; only a line feed ends one."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]


def _moment(text: Optional[str], option: str, now: float) -> Optional[float]:
    if text is None:
        return None
    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from None


def _warn_without_index(
    segments: Segments, since: Optional[float], until: Optional[float], timestamps: bool
) -> None:
    if (since is not None or until is not None or timestamps) and not all(s.index for s in segments.all):
        sys.stderr.write("vspcctl: a part of this log has no index; its times are not known\n")
