"""The part of a log that was asked for: by times, by the VM's boots, by a number of lines.

Does: turns --since, --until and --boot into places in the log's files.
Owns: nothing.
Never: reads the log itself, but for what boots are known by.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import NamedTuple, Optional

from vspcd.ctl.failure import NO_CONSOLE, USAGE, Failure
from vspcd.ctl.segments import Place, Segments


class Times(NamedTuple):
    """What --since and --until mean; None for what was not given."""

    since: Optional[float]
    until: Optional[float]

    def __bool__(self) -> bool:
        return self != (None, None)


class Range(NamedTuple):
    start: Place
    end: Place


def times(arguments: Namespace) -> Times:
    """Raises Failure for a time that is none."""
    now = time.time()
    return Times(_moment(arguments.since, "--since", now), _moment(arguments.until, "--until", now))


def chosen_range(segments: Segments, when: Times, boot: Optional[int]) -> Range:
    """The range in the files. Raises Failure when there is no such boot."""
    start = Place(0, 0) if when.since is None else segments.since(when.since)
    end = segments.end if when.until is None else segments.until(when.until)
    if boot is not None:
        found = _boot(segments, boot)
        start, end = max(start, found.start), min(end, found.end)
    return Range(min(start, end), end)


def _boot(segments: Segments, number: int) -> Range:
    from vspcd.ctl.boots import boots, numbered

    known = boots(segments)
    at = numbered(number, len(known))
    if at is None:
        raise Failure(
            f"there is no boot {number} in this log; --list-boots shows the {len(known)} there are",
            NO_CONSOLE,
        )
    return Range(known[at].start, known[at].end)


def _moment(text: Optional[str], option: str, now: float) -> Optional[float]:
    if text is None:
        return None
    from vspcd.ctl.times import parse_moment

    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from None


def warn_without_index(segments: Segments) -> None:
    if not all(segment.index for segment in segments.all):
        sys.stderr.write("vspcctl: a part of this log has no index; its times are not known\n")
