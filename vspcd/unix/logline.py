"""The daemon's own log: one line per event, with key=value fields, to stderr or the journal.

Does: formats and writes lines; under systemd it puts the priority in front instead of the time.
Owns: nothing but the knowledge of how many lines could not be written.
Never: blocks the process when nobody reads stderr; prints a control character or a console byte.
"""

from __future__ import annotations

import os
import select
import time
from typing import Union

from vspcd.core.names import visible

Field = Union[str, int, float, None]

LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@%+[],~")


def quote(value: Field) -> str:
    """A value as it stands in a line: bare when it is one plain word, else in double quotes, always on one line."""
    if value is None:
        return "-"
    text = visible(str(value))
    if text and _BARE.issuperset(text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def line(event: str, fields: dict[str, Field]) -> str:
    """``event key=value …``"""
    return " ".join([event, *(f"{key}={quote(value)}" for key, value in fields.items())])


def cut(data: bytes) -> bytes:
    """At most what a pipe that has room at all takes without blocking."""
    return data if len(data) <= select.PIPE_BUF else data[: select.PIPE_BUF - 4] + b"...\n"


class Log:
    """Writes lines of at least ``level``."""

    def __init__(self, level: str = "info", fd: int = 2) -> None:
        self.level = level
        self._fd = fd
        self._journal = "JOURNAL_STREAM" in os.environ
        self._dropped = 0

    def debug(self, event: str, **fields: Field) -> None:
        """What only someone who looks for a fault wants to know."""
        self.write("debug", event, fields)

    def info(self, event: str, **fields: Field) -> None:
        """What happened."""
        self.write("info", event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        """What someone should look at."""
        self.write("warning", event, fields)

    def error(self, event: str, **fields: Field) -> None:
        """What does not work."""
        self.write("error", event, fields)

    def write(self, level: str, event: str, fields: dict[str, Field]) -> None:
        """One line, or none when nobody reads; the next line that goes out tells how many did not."""
        if LEVELS[level] > LEVELS[self.level]:
            return
        text = f"{self._head(level)}{line(event, fields)}\n"
        if self._dropped:
            text = f"{self._head('warning')}log-lines-dropped count={self._dropped}\n{text}"
        if self._room():
            try:
                os.write(self._fd, cut(text.encode("utf-8", "replace")))
            except OSError:
                self._dropped += 1
            else:
                self._dropped = 0
        else:
            self._dropped += 1

    def _room(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return any(mask & select.POLLOUT for _, mask in poll.poll(0))

    def _head(self, level: str) -> str:
        if self._journal:
            return f"<{LEVELS[level]}>"
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return f"{stamp}.{int(now * 1000) % 1000:03d}Z {level} "
