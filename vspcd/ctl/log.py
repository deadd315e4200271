"""vspcctl log: shows a console's log from the files, with or without the daemon.

Does: shows a range of it, as it is, by lines that match, as JSON or as a recording, and follows it over rotations.
Owns: the form of what is shown.
Never: changes a byte when stdout is no terminal and nothing but a range is wanted; on a terminal it leaves out
what would steer it, unless --raw.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import DENIED, INTERRUPTED, NO_CONSOLE, OK, USAGE, Failure
from vspcd.ctl.lines import Choice, Chosen, Line, Splitter, chosen, lines_of
from vspcd.ctl.logplace import find_log
from vspcd.ctl.logrange import Range, Times, chosen_range, times, warn_without_index
from vspcd.ctl.pager import Output
from vspcd.ctl.pattern import compiled
from vspcd.ctl.plain import PlainText
from vspcd.ctl.printer import GAP, Look, as_json, rendered, time_before
from vspcd.ctl.segments import Follower, Place, Segments
from vspcd.ctl.table import colours_wanted

FOLLOW_EVERY = 0.1
FOLLOWED_LINES = 10
"""Lines that -f shows first unless told otherwise."""


def run(arguments: Namespace) -> int:
    when = times(arguments)
    _check(arguments, when)
    path = find_log(arguments)
    try:
        with Segments(path) as segments:
            if when or arguments.timestamps or arguments.json or arguments.export:
                warn_without_index(segments)
            return _run(segments, arguments, when)
    except PermissionError as error:
        reason = f"permission denied on {visible(str(error.filename or path))}"
        raise Failure(f"{reason}: root and the members of the group vspc may read it", DENIED) from None
    except FileNotFoundError as error:
        raise Failure(f"there is no log at {visible(str(error.filename or path))}", NO_CONSOLE) from None


def _check(arguments: Namespace, when: Times) -> None:
    """Raises Failure for options that exclude each other, or mean nothing together."""
    shows = bool(arguments.export or arguments.list_boots)
    choosing = bool(
        arguments.grep is not None or arguments.json or arguments.timestamps or arguments.lines is not None
    )
    wrong = (
        (arguments.follow and when.until is not None, "-f and --until exclude each other"),
        (arguments.follow and (arguments.boot or 0) < 0, "-f follows the latest boot alone"),
        (arguments.follow and shows, "-f goes neither with --export nor with --list-boots"),
        (bool(arguments.export) and choosing, "--export goes with --since, --until and --boot alone"),
        (arguments.output is not None and not arguments.export, "--output goes with --export"),
        (arguments.list_boots and bool(arguments.export), "--list-boots and --export exclude each other"),
        (_has_context(arguments) and arguments.grep is None, "-A, -B and -C go with --grep"),
        (arguments.raw and arguments.json, "--raw and --json exclude each other"),
    )
    for is_wrong, message in wrong:
        if is_wrong:
            raise Failure(message, USAGE)


def _has_context(arguments: Namespace) -> bool:
    return any(count is not None for count in (arguments.after, arguments.before, arguments.context))


def _run(segments: Segments, arguments: Namespace, when: Times) -> int:
    if arguments.list_boots:
        from vspcd.ctl import bootlist

        return bootlist.show(segments, arguments.json, not arguments.no_pager)
    wanted = chosen_range(segments, when, arguments.boot)
    if arguments.export:
        from vspcd.ctl import asciicast

        return asciicast.export(segments, wanted, arguments.name, arguments.output)
    paged = not (arguments.follow or arguments.raw or arguments.no_pager)
    with Output(paged) as output:
        by_lines = arguments.grep is not None or arguments.json
        shown = _Lines(segments, arguments, output) if by_lines else _Bytes(segments, arguments, output)
        try:
            shown.range(wanted, _count(arguments, when))
            if arguments.follow:
                _follow(segments, wanted.end, shown)
        except KeyboardInterrupt:
            shown.finish()
            return INTERRUPTED
        shown.finish()
    return OK


def _count(arguments: Namespace, when: Times) -> Optional[int]:
    """How many lines, or matches, are wanted; None for all."""
    lines: Optional[int] = arguments.lines
    whole = lines is None and arguments.follow and when.since is None and arguments.boot is None
    return FOLLOWED_LINES if whole else lines


class _Shown:
    """What both ways to show a log have."""

    def __init__(self, segments: Segments, arguments: Namespace, output: Output) -> None:
        self._segments = segments
        self._output = output
        self._timestamps: bool = arguments.timestamps
        self._terminal = os.isatty(1) and not arguments.raw

    def range(self, wanted: Range, count: Optional[int]) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def _moment(self, place: Optional[Place]) -> Optional[float]:
        return time.time() if place is None else self._segments.moment(place)


class _Bytes(_Shown):
    """All of it, in pieces of any size."""

    def __init__(self, segments: Segments, arguments: Namespace, output: Output) -> None:
        super().__init__(segments, arguments, output)
        self._plain = PlainText() if self._terminal else None
        self._at_line_start = True

    def range(self, wanted: Range, count: Optional[int]) -> None:
        start = wanted.start if count is None else self._segments.last_lines(count, wanted.start, wanted.end)
        for place, data in self._segments.read(start, wanted.end):
            self.feed(data, place)

    def feed(self, data: bytes, place: Optional[Place] = None) -> None:
        """Show a piece; without a place it has come just now."""
        if self._timestamps:
            data = self._stamped(data, place)
        self._output.write(self._plain.feed(data) if self._plain else data)

    def finish(self) -> None:
        if self._plain:
            self._output.write(self._plain.finish())

    def _stamped(self, data: bytes, place: Optional[Place]) -> bytes:
        pieces: list[bytes] = []
        passed = 0
        for line in _lines(data):
            if self._at_line_start:
                at = place and Place(place.segment, place.byte + passed)
                pieces.append(time_before(self._moment(at)))
            pieces.append(line)
            passed += len(line)
            self._at_line_start = line.endswith(b"\n")
        return b"".join(pieces)


def _lines(data: bytes) -> list[bytes]:
    """The lines of some data; only a line feed ends one."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]


class _Lines(_Shown):
    """Line by line: those that match, or each as an object."""

    def __init__(self, segments: Segments, arguments: Namespace, output: Output) -> None:
        super().__init__(segments, arguments, output)
        pattern = None
        if arguments.grep is not None:
            pattern = compiled(arguments.grep, arguments.ignore_case, arguments.fixed_strings)
        both = arguments.context or 0
        before, after = (both if n is None else n for n in (arguments.before, arguments.after))
        self._choice = Choice(pattern, before, after)
        self._look = Look(self._terminal, self._timestamps, self._terminal and colours_wanted(1), pattern)
        self._json: bool = arguments.json
        self._come = Splitter()

    def range(self, wanted: Range, count: Optional[int]) -> None:
        lines = chosen(lines_of(self._segments, wanted.start, wanted.end), self._choice)
        for each in lines if count is None else _last(lines, count):
            self._show(each)

    def feed(self, data: bytes) -> None:
        for line in self._come.feed(data):
            self._choose(line)

    def finish(self) -> None:
        for line in self._come.rest():
            self._choose(line)

    def _choose(self, line: Line) -> None:
        for each in self._choice.feed(line):
            self._show(each)

    def _show(self, each: Chosen) -> None:
        line = each.line
        moment = self._moment(line.place) if self._json or self._timestamps else None
        if self._json:
            self._output.write(as_json(line.text, moment, context=not each.matches))
            return
        look = self._look if each.matches else self._look._replace(matches=None)
        self._output.write((GAP if each.gap else b"") + rendered(line.text, look, moment))


def _last(lines: Iterable[Chosen], count: int) -> Iterator[Chosen]:
    """The last ``count`` matches with what stands around them."""
    kept: deque[Chosen] = deque()
    matches = 0
    for each in lines:
        kept.append(each)
        matches += each.matches
        while matches > count:
            matches -= kept.popleft().matches
    if kept and count:
        yield kept.popleft()._replace(gap=False)
        yield from kept


def _follow(segments: Segments, end: Place, shown: _Shown) -> None:
    """Show what comes, for ever; ends by a signal or a reader that has gone."""
    follower = Follower(segments.path, segments.all.pop(), end.byte)
    try:
        while True:
            data = follower.read()
            if data:
                shown.feed(data)
            else:
                time.sleep(FOLLOW_EVERY)
    finally:
        follower.close()
