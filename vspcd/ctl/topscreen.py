"""The live screen of vspcctl top.

Does: draws what ``vspcd.ctl.top`` has found, on a screen of its own, as large as the terminal is just now; obeys keys.
Owns: the terminal while it runs.
Never: leaves the terminal otherwise than it was; writes a line that is too long for it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import NoReturn, Optional

from vspcd.ctl import table, top
from vspcd.ctl.failure import OK, SIGNALLED, Failure
from vspcd.ctl.terminal import RawTerminal

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
FOOTER = "t traffic  c CPU  l lag  n name  r reverse  j k scroll  +- pace  q quit"
ORDER_KEYS: Mapping[bytes, str] = MappingProxyType({b"t": "traffic", b"c": "cpu", b"l": "lag", b"n": "name"})
SCROLL: Mapping[bytes, int] = MappingProxyType({b"j": 1, b"\x1b[B": 1, b"k": -1, b"\x1b[A": -1})
PAGES: Mapping[bytes, int] = MappingProxyType({b" ": 1, b"\x1b[6~": 1, b"b": -1, b"\x1b[5~": -1})
QUIT, INTERRUPT, SUSPEND = (b"q", b"Q"), b"\x03", b"\x1a"
ABOVE, BELOW = 3, 1  # lines: the daemon, the order, the heading of the table; the keys
SLOWEST = 60.0


def run(path: str, seconds: float, order: str) -> int:
    """Show it until the user has seen enough; the exit status."""
    screen = Screen(path, seconds, order)
    try:
        screen.enter()
        screen.run()
    finally:
        screen.leave()
    return OK


def _ended(number: int, _frame: Optional[FrameType]) -> NoReturn:
    sys.exit(SIGNALLED + number)


class Screen:
    """One run."""

    def __init__(self, path: str, seconds: float, order: str) -> None:
        self._path = path
        self._seconds = seconds
        self._order = order
        self._reverse = False
        self._from = 0
        self._terminal = RawTerminal(0)
        self._before = top.sample(path)  # a daemon that is not there is told before the screen changes
        self._view: Optional[top.View] = None
        self._trouble: Optional[str] = None
        self._wakes, wakes = socket.socketpair()
        for end in (self._wakes, wakes):
            end.setblocking(False)
        self._waker = wakes
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _ended)

    def enter(self) -> None:
        """Take the terminal."""
        self._terminal.enter()
        self._write(ENTER)

    def leave(self) -> None:
        """Give it back."""
        try:
            self._write(LEAVE)
        except OSError:
            pass  # it has hung up
        self._terminal.leave()

    def run(self) -> None:
        """Draw, wait for a key or the time, look again."""
        due = time.monotonic() + min(self._seconds, top.ONCE_INTERVAL)
        self._draw()
        while True:
            ready = select.select([0, self._wakes], [], [], max(0.0, due - time.monotonic()))[0]
            if self._wakes in ready:
                self._wakes.recv(4096)
            if 0 in ready and not self._obey(os.read(0, 64)):
                return
            if time.monotonic() >= due:
                self._look()
                due = time.monotonic() + self._seconds
            self._draw()

    def _look(self) -> None:
        try:
            after = top.sample(self._path)
        except Failure as failure:
            self._trouble = failure.message
            return
        self._trouble = None
        self._view, self._before = top.compare(self._before, after), after

    # Keys.

    def _obey(self, keys: bytes) -> bool:
        """Do what the keys say; False when it is to end."""
        if not keys:
            return False
        for key in _split(keys):
            if key == INTERRUPT:
                raise KeyboardInterrupt
            if key in QUIT:
                return False
            self._act(key)
        return True

    def _act(self, key: bytes) -> None:
        page = max(1, os.get_terminal_size(1).lines - ABOVE - BELOW)
        if key == SUSPEND:
            self._suspend()
        elif key in ORDER_KEYS:
            self._order, self._from = ORDER_KEYS[key], 0
        elif key == b"r":
            self._reverse = not self._reverse
        elif key in (b"+", b"="):
            self._seconds = max(top.SHORTEST, self._seconds / 2)
        elif key == b"-":
            self._seconds = min(SLOWEST, self._seconds * 2)
        else:
            self._from += SCROLL.get(key, 0) + page * PAGES.get(key, 0)

    def _suspend(self) -> None:
        self.leave()
        os.kill(os.getpid(), signal.SIGTSTP)
        self.enter()

    # The screen.

    def _draw(self) -> None:
        try:
            columns, rows = os.get_terminal_size(1)
        except OSError:
            return
        colours = table.colours_wanted(1)
        lines = [
            table.Line(table.cut(line.text, columns), line.colour) for line in self._lines(columns, rows)
        ]
        shown = [table.rendered(line, None, colours) + REST_OF_LINE for line in lines[:rows]]
        self._write(HOME + "\r\n".join(shown) + REST_OF_SCREEN)

    def _lines(self, columns: int, rows: int) -> Sequence[table.Line]:
        view, room = self._view, max(1, rows - ABOVE - BELOW)
        if view is None:
            return [table.Line("looking …"), table.Line(FOOTER, "dim")]
        ordered = sorted(view.rows, key=top.ORDERS[self._order], reverse=self._reverse)
        self._from = max(0, min(self._from, len(ordered) - room))
        some = ordered[self._from : self._from + room]
        body = top.lines_of(some, columns)
        filling = [table.Line("")] * max(0, rows - BELOW - 2 - len(body))
        return [
            table.Line(top.heading(view)),
            self._state(len(some), len(ordered)),
            *body,
            *filling,
            _keys(columns),
        ]

    def _state(self, shown: int, known: int) -> table.Line:
        if self._trouble is not None:
            return table.Line(f"no answer: {self._trouble}", "red")
        which = f"{self._from + 1}-{self._from + shown} of {known}" if shown < known else f"{known}"
        order = f"by {self._order}{', reversed' if self._reverse else ''}"
        return table.Line(f"{which} consoles {order}, every {self._seconds:g} s", "dim")

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(1, data) :]


def _keys(columns: int) -> table.Line:
    """The keys, as many as there is room for; how to quit is always there."""
    words = FOOTER.split("  ")
    while len(words) > 1 and len("  ".join(words)) > columns:
        del words[-2]
    return table.Line("  ".join(words), "dim")


def _split(keys: bytes) -> list[bytes]:
    """Single keys, of which those that begin with Escape have more than one byte."""
    found, at = [], 0
    while at < len(keys):
        end = at + 1
        if keys[at : at + 2] == b"\x1b[":
            end = at + 2
            while end < len(keys) and keys[end : end + 1] in b"0123456789;":
                end += 1
            end += 1
        found.append(keys[at:end])
        at = end
    return found
