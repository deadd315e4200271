"""The user's side of a session: the console's output and the tool's notices, on a terminal or into a pipe.

Does: buffers output up to a limit, places notices where they garble nothing, asks questions, undoes the VM's modes.
Owns: the output buffer, its own descriptor for stdout, and the output that waits while a question is shown.
Never: blocks, but for a bounded time at the end.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl import table
from vspcd.ctl.screen import Screen
from vspcd.ctl.terminal import columns, own_output

WRITE_SIZE = 65536
OUTPUT_LIMIT = 1 << 18
"""Bytes that may wait for the user's side; the worker is not read on from there."""
NOTICE_PATIENCE = 0.25
"""Seconds that a notice waits for an escape sequence of the VM to be complete."""
FLUSH_DEADLINES = {True: 2.0, False: 30.0}
"""Seconds without progress, on a terminal or not, before output that nobody takes at the end is given up."""

ERASED = b"\r\x1b[K"
LINE_MINIMUM = 8
"""Columns that are there for an answer, however long the question is."""


class Question(NamedTuple):
    """Something that is asked on the last line: what it is about, and what stands before the answer."""

    about: Optional[str]
    label: str


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
        self._question: Optional[Question] = None
        self._asked = False  # it is on the screen
        self._interrupted = (
            False  # it was answered, and the line that it has interrupted is still to come again
        )
        self._held = bytearray()

    @property
    def full(self) -> bool:
        return len(self._buffer) + len(self._held) >= OUTPUT_LIMIT

    @property
    def empty(self) -> bool:
        return not self._buffer

    def show(self, data: bytes) -> None:
        """The console's output, byte for byte. It waits while a question is on the screen."""
        if self._asked or self._interrupted:
            self._held += data
            return
        self._screen.feed(data)
        self._buffer += data
        self.place_notices()

    def notice(self, text: str) -> None:
        """A line of ours, as soon as it garbles nothing. On stderr when stdout is no terminal."""
        if not self._notices:
            self._waiting_since = time.monotonic()
        self._notices.append(text)
        if not self._interrupted:
            self.place_notices()

    def last_notice(self, text: str) -> None:
        """The notice that ``finish`` ends with."""
        self._last.append(text)

    def place_notices(self) -> None:
        """Write what waits, if the output is at a place for it or it has waited enough; call it once in a while."""
        if self._question is not None:
            if not self._asked and (self._screen.settled or self.overdue() <= 0):
                self._show_question(self._question)
        elif self._interrupted:
            self._go_on()
        elif self._notices and (self._screen.settled or self.overdue() <= 0):
            if self.is_terminal:
                self._buffer += self._screen.notice("\r\n".join(self._notices))
            else:
                self._write_errors(self._notices)
            self._notices.clear()

    # Questions.

    def ask(self, question: Question) -> None:
        """Ask on a line of its own, as soon as it garbles nothing; the output waits until it is ``answered``."""
        self._question = question
        self._waiting_since = time.monotonic()
        self.place_notices()

    def typed(self, line: str) -> None:
        """The answer so far."""
        if self._question is not None and self._asked:
            width = columns(1 if self.is_terminal else 2) or 80
            label = table.cut(self._question.label, max(width - LINE_MINIMUM - 1, 1))
            room = max(width - len(label) - 1, 1)
            shown = visible(line)
            cut = shown if len(shown) <= room else table.ELLIPSIS + shown[1 - room :]
            self._write_line(f"{label}{cut}")

    def answered(self) -> None:
        """The question goes from the screen; the output follows when it is known what else there is to be said."""
        if self._asked:
            self._write_line("")
            self._interrupted = True
        self._question, self._asked = None, False

    def _show_question(self, question: Question) -> None:
        lines = [*self._notices, *([question.about] if question.about else [])]
        self._notices.clear()
        if not self.is_terminal:
            self._write_errors(lines)
        elif not self._interrupted:
            self._buffer += self._screen.interruption()
        if self.is_terminal:
            self._buffer += "".join(line + "\r\n" for line in lines).encode("utf-8", "replace")
        self._asked, self._interrupted = True, False
        self.typed("")

    def _write_line(self, text: str) -> None:
        """Put this in place of the question's line."""
        if self.is_terminal:
            self._buffer += ERASED + text.encode("utf-8", "replace")
        elif os.isatty(2):
            sys.stderr.write(ERASED.decode() + text)
            sys.stderr.flush()

    def _go_on(self) -> None:
        """What there is to be said, the line that was interrupted, and the output that has waited."""
        self._interrupted = False
        lines = list(self._notices)
        self._notices.clear()
        if self.is_terminal:
            self._buffer += "".join(line + "\r\n" for line in lines).encode("utf-8", "replace")
            self._buffer += self._screen.again()
        else:
            self._write_errors(lines)
        held, self._held = bytes(self._held), bytearray()
        self.show(held)

    def _write_errors(self, notices: Sequence[str]) -> None:
        sys.stderr.write("".join(text + self._error_ending for text in notices))
        sys.stderr.flush()

    def overdue(self) -> float:
        """Seconds until a waiting notice or question is shown anyway; infinite when none waits."""
        waits = self._waiting_since + NOTICE_PATIENCE - time.monotonic()
        waiting = self._notices if self._question is None else not self._asked
        return waits if waiting else float("inf")

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

    def start_over(self) -> None:
        """Another console's output follows: take back the modes of this one's VM."""
        if self._interrupted:
            self._go_on()
        self._buffer += self._screen.interruption() + self._screen.farewell()
        self._screen = Screen()

    def finish(self, interrupt: int) -> None:
        """Write what is left, take back the VM's modes, end with the notices that still wait.

        Gives up when ``interrupt`` is readable.
        """
        self.answered()
        if self._interrupted:
            self._go_on()
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
