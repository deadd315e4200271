"""The user's side of a session: the console's output and the tool's notices, on a terminal or into a pipe.

Does: buffers output up to a limit, places notices where they garble nothing, undoes the VM's modes.
Owns: the output buffer, and its own descriptor for stdout.
Never: blocks, but for a bounded time at the end.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence

from vspcd.ctl.screen import Screen
from vspcd.ctl.terminal import own_output

WRITE_SIZE = 65536
OUTPUT_LIMIT = 1 << 18
"""Bytes that may wait for the user's side; the worker is not read on from there."""
NOTICE_PATIENCE = 0.25
"""Seconds that a notice waits for an escape sequence of the VM to be complete."""
FLUSH_DEADLINES = {True: 2.0, False: 30.0}
"""Seconds without progress, on a terminal or not, before output that nobody takes at the end is given up."""


class Display:
    """What the user sees. ``close`` it in any case."""

    def __init__(self, typing: bool) -> None:
        """``typing``: a terminal in raw mode is the input, so that stderr needs carriage returns as well."""
        self.is_terminal = os.isatty(1)
        self.fd, self._is_own = own_output(1)
        self._error_ending = "\r\n" if typing and os.isatty(2) else "\n"
        self._screen = Screen()
        self._buffer = bytearray()
        self._notices: list[str] = []
        self._last: list[str] = []
        self._waiting_since = 0.0

    @property
    def full(self) -> bool:
        return len(self._buffer) >= OUTPUT_LIMIT

    @property
    def empty(self) -> bool:
        return not self._buffer

    def show(self, data: bytes) -> None:
        """The console's output, byte for byte."""
        self._screen.feed(data)
        self._buffer += data
        self.place_notices()

    def notice(self, text: str) -> None:
        """A line of ours, as soon as it garbles nothing. On stderr when stdout is no terminal."""
        if not self._notices:
            self._waiting_since = time.monotonic()
        self._notices.append(text)
        self.place_notices()

    def last_notice(self, text: str) -> None:
        """The notice that ``finish`` ends with."""
        self._last.append(text)

    def place_notices(self) -> None:
        """Write the notices that wait, if the output is at a place for it or they have waited enough."""
        if not self._notices or not (self._screen.settled or self.overdue() <= 0):
            return
        if self.is_terminal:
            self._buffer += self._screen.notice("\r\n".join(self._notices))
        else:
            self._write_errors(self._notices)
        self._notices.clear()

    def _write_errors(self, notices: Sequence[str]) -> None:
        sys.stderr.write("".join(text + self._error_ending for text in notices))
        sys.stderr.flush()

    def overdue(self) -> float:
        """Seconds until a waiting notice is shown anyway; infinite when none waits."""
        waits = self._waiting_since + NOTICE_PATIENCE - time.monotonic()
        return waits if self._notices else float("inf")

    def write(self, events: int) -> None:
        """Write what the user's side takes. Raises BrokenPipeError when nobody reads any more."""
        if self._buffer:
            try:
                written = os.write(self.fd, self._buffer[:WRITE_SIZE])
            except BlockingIOError:
                return
            del self._buffer[:written]
        elif events & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError

    def finish(self, interrupt: int) -> None:
        """Write what is left, take back the VM's modes, end with the notices that still wait.

        Gives up when ``interrupt`` is readable.
        """
        notices = self._notices + self._last
        if not self.is_terminal:
            self._write_errors(notices)
        elif notices:
            self._buffer += self._screen.last_notice("\r\n".join(notices))
        else:
            self._buffer += self._screen.farewell()
        poll = select.poll()
        poll.register(interrupt, select.POLLIN)
        poll.register(self.fd, select.POLLOUT)
        while self._buffer:
            ready = dict(poll.poll(FLUSH_DEADLINES[self.is_terminal] * 1000))
            if self.fd not in ready or interrupt in ready:
                return
            try:
                self.write(ready[self.fd])
            except OSError:
                return  # Nobody is left to see it.

    def close(self) -> None:
        if self._is_own:
            os.close(self.fd)
