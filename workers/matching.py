"""Looks for patterns in lines, however long a pattern would take.

Does: cuts a console's bytes into lines without escape sequences, and searches each line for each pattern.
Owns: the limit of time: a pattern that spends LIMIT seconds of processor time on a piece is stopped.
Never: runs in a console's worker; lets one pattern keep the others from their turn.

Python's regular expressions look for signals while they work, so a timer of processor time ends one that would go back
and forth for ever.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LIMIT = 0.5
LINE_LIMIT = 4096
SHOWN = 200
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ`-~])|[\x00-\x08\x0b-\x1f\x7f]"
)


class TooSlow(Exception):
    """A pattern has had its time."""


class Lines:
    """The lines of one console: whole ones, and the beginning of the next, which a prompt may be."""

    def __init__(self) -> None:
        self._rest = b""
        self.seen: set[str] = set()  # whose patterns the beginning of the line has matched already

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Whole lines and the beginning of the next one, of what the VM has said now."""
        data = self._rest + data
        *whole, self._rest = data.split(b"\n")
        while len(self._rest) > LINE_LIMIT:
            whole.append(self._rest[:LINE_LIMIT])
            self._rest = self._rest[LINE_LIMIT:]
        return [_plain(line) for line in whole], _plain(self._rest)


def _plain(line: bytes) -> bytes:
    return _ESCAPES.sub(b"", line[: LINE_LIMIT * 4])


def found(pattern: re.Pattern[bytes], lines: Sequence[bytes]) -> list[int]:
    """Which lines match. Raises TooSlow."""
    with _limited():
        return [number for number, line in enumerate(lines) if pattern.search(line)]


@contextmanager
def _limited() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _stop(_number: int, _frame: object) -> None:
    raise TooSlow


def prepare() -> None:
    """Once, in the process that matches."""
    signal.signal(signal.SIGVTALRM, _stop)


def shown(line: bytes) -> str:
    """A line for people."""
    return line[:SHOWN].decode("utf-8", "replace")
