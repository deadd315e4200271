"""vspcctl expect and wait-for: wait until a VM says something.

Does: looks for patterns in what comes from now on, or also in the latest output; types something first if asked to.
Owns: the exit codes of several patterns.
Never: gives up because a worker or the daemon has died: it gets on again.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl.client import socket_path
from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.failure import OK, TIMEOUT, USAGE, Failure
from vspcd.ctl.outcome import Outcome, told
from vspcd.ctl.transcript import Found, Transcript, compiled
from vspcd.ctl.typed import ENTER, typed

OTHERS = 10
"""The second pattern's exit code is this plus one, and so on."""

MOST = 50
SHOWN = 300
TYPED_WITHIN = 10.0


def run(arguments: Namespace) -> int:
    """Wait for the first of some patterns."""
    return told(lambda: _expect(arguments, arguments.pattern), arguments.json)


def wait_for(arguments: Namespace) -> int:
    """Wait for a pattern."""
    return told(lambda: _expect(arguments, [arguments.pattern]), arguments.json)


def _expect(arguments: Namespace, patterns: Sequence[str]) -> Outcome:
    if len(patterns) > MOST:
        raise Failure(f"{len(patterns)} patterns are too many; there may be {MOST}", USAGE)
    regular = compiled(patterns, arguments.ignore_case)
    said = None if arguments.send is None else typed(arguments.send) + ENTER
    began = time.monotonic()
    path = socket_path(arguments.socket, arguments.root)
    with Dialogue(path, arguments.name, "ro" if said is None else "rw", replay=arguments.replay) as dialogue:
        if said is not None:
            dialogue.must_be_connected()
            dialogue.type(said, TYPED_WITHIN)
        found = wait(dialogue, Transcript(), regular, arguments.timeout)
        if found is None:
            raise late(dialogue, patterns, arguments.timeout)
    if not arguments.json:
        sys.stdout.write(visible(found.line)[:SHOWN] + "\n")
    facts = {"console": dialogue.id, "name": dialogue.name, "number": found.number + 1}
    seconds = round(time.monotonic() - began, 3)
    code = OTHERS + found.number if found.number else OK
    return code, {
        **facts, "pattern": patterns[found.number], "match": found.match, "line": found.line, "seconds": seconds
    }  # fmt: skip


def wait(
    dialogue: Dialogue,
    transcript: Transcript,
    patterns: Sequence[re.Pattern[str]],
    seconds: Optional[float],
) -> Optional[Found]:
    """What is found first within so many seconds; None when nothing was."""
    end = None if not seconds else time.monotonic() + seconds
    while True:
        left = None if end is None else end - time.monotonic()
        found = _search(transcript, patterns, left)
        if found is not None:
            return found
        data = dialogue.read(left)
        if data is None:
            return None
        transcript.feed(data)


class _Late(Exception):
    """A pattern has taken all the time that there was."""


def _search(
    transcript: Transcript, patterns: Sequence[re.Pattern[str]], seconds: Optional[float]
) -> Optional[Found]:
    """A pattern can take for ever; the time limit holds for that too."""
    try:
        with _limited(seconds):
            return transcript.search(patterns)
    except _Late:
        raise Failure(
            "the time was over while a pattern was still at work: it may need simplifying", TIMEOUT
        ) from None


@contextmanager
def _limited(seconds: Optional[float]) -> Iterator[None]:
    if seconds is None:
        yield
        return

    def late(_number: int, _frame: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.0) + 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def late(dialogue: Dialogue, patterns: Sequence[str], seconds: float) -> Failure:
    """What to say when nothing came, and what the reason may be."""
    what = repr(patterns[0]) + " was not" if len(patterns) == 1 else f"none of {len(patterns)} patterns was"
    hint = None if dialogue.state == "connected" else f"{dialogue.name} was {visible(dialogue.state)}"
    return Failure(f"{dialogue.name}: {what} seen within {seconds:g} s", TIMEOUT, hint)
