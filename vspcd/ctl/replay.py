"""vspcctl replay: plays a log in its own time in the terminal.

Does: waits between the pieces as the VM did, at some speed; obeys keys: q, space, + and -.
Owns: the terminal's mode while it plays; it is as before under all circumstances.
Never: shows what would steer the terminal, unless --raw; waits longer than --max-idle.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from argparse import Namespace
from types import FrameType, TracebackType
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import DENIED, INTERRUPTED, NO_CONSOLE, OK, SIGNALLED, Failure
from vspcd.ctl.logplace import find_log
from vspcd.ctl.logrange import Range, chosen_range, times, warn_without_index
from vspcd.ctl.pager import write_all
from vspcd.ctl.plain import PlainText
from vspcd.ctl.screen import Screen
from vspcd.ctl.segments import Segments
from vspcd.ctl.terminal import RawTerminal
from vspcd.ctl.timeline import pieces
from vspcd.ctl.times import stamp

SLOWEST, FASTEST, STEP = 1 / 64, 4096.0, 2.0
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")


class Ended(Exception):
    """The user, or a signal, has had enough."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(arguments: Namespace) -> int:
    when = times(arguments)
    path = find_log(arguments)
    try:
        with Segments(path) as segments:
            warn_without_index(segments)
            wanted = chosen_range(segments, when, arguments.boot)
            with Player(arguments.speed, arguments.max_idle, arguments.raw) as player:
                return player.play(segments, wanted, visible(arguments.name))
    except PermissionError as error:
        raise Failure(f"permission denied on {visible(str(error.filename or path))}", DENIED) from None
    except FileNotFoundError:
        raise Failure(f"there is no log at {visible(path)}", NO_CONSOLE) from None


class Player:
    """A context: inside it keys are commands."""

    def __init__(self, speed: float, max_idle: float, raw: bool) -> None:
        self._speed, self._max_idle = speed, max_idle
        self._plain = PlainText() if os.isatty(1) and not raw else None
        self._keys = os.isatty(0) and os.isatty(1)
        self._terminal = RawTerminal(0)
        self._screen = Screen()
        self._last = b""
        self._moment = 0.0
        self._paused = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Player:
        self._handlers = {number: signal.signal(number, _end) for number in ENDING}
        if self._keys:
            self._terminal.enter()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], _: Optional[BaseException], __: Optional[TracebackType]
    ) -> None:
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            if kind is None:
                self._finish()
        finally:
            if self._keys:
                self._terminal.leave()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def play(self, segments: Segments, wanted: Range, name: str) -> int:
        """To the end, or until the user has had enough; the exit code."""
        try:
            self._play(segments, wanted, name)
        except Ended as ended:
            return ended.code
        return OK

    def _play(self, segments: Segments, wanted: Range, name: str) -> None:
        for piece in pieces(segments, wanted):
            if not self._moment:
                self._moment = piece.moment
                self._notice(
                    f"{name} from {stamp(piece.moment)} on; q ends, space pauses, + and - change the speed"
                )
            self._wait(min(piece.moment - self._moment, self._max_idle))
            self._moment = piece.moment
            self._write(piece.data)
        self._notice("the end")

    # Time and keys.

    def _wait(self, seconds: float) -> None:
        """So long in the VM's time; keys are obeyed meanwhile."""
        left = seconds
        while left > 0 or self._paused:
            began = time.monotonic()
            self._obey(None if self._paused else left / self._speed)
            if not self._paused:
                left -= (time.monotonic() - began) * self._speed
        self._obey(0)

    def _obey(self, seconds: Optional[float]) -> None:
        """Wait for a key, so many real seconds at most, and do what it says."""
        if not self._keys:
            time.sleep(seconds or 0)
            return
        ready, _, _ = select.select([0], [], [], seconds)
        if not ready:
            return
        typed = os.read(0, 64)
        if not typed:
            raise Ended(SIGNALLED + signal.SIGHUP)
        for key in typed:
            self._press(bytes([key]))

    def _press(self, key: bytes) -> None:
        before = self._speed, self._paused
        if key in (b"q", b"Q"):
            raise Ended(OK)
        if key == b"\x03":
            raise Ended(INTERRUPTED)
        if key == b" ":
            self._paused = not self._paused
        elif key in (b"+", b"="):
            self._speed = min(self._speed * STEP, FASTEST)
        elif key in (b"-", b"_"):
            self._speed = max(self._speed / STEP, SLOWEST)
        if (self._speed, self._paused) != before:
            state = f"paused at {stamp(self._moment)}" if self._paused else f"speed {self._speed:g}"
            self._notice(state)

    # The screen.

    def _write(self, data: bytes) -> None:
        if self._plain is not None:
            data = self._plain.feed(data)
        if self._keys:
            data = self._with_returns(data)
        if data:
            self._screen.feed(data)
            write_all(1, data)

    def _with_returns(self, data: bytes) -> bytes:
        """A terminal in raw mode does not return its cursor at a newline by itself."""
        before = b"\r" if self._last == b"\r" else b""
        self._last = data[-1:] or self._last
        return _BARE_NEWLINE.sub(b"\r\n", before + data)[len(before) :]

    def _notice(self, text: str) -> None:
        """A line of ours between the VM's; only for someone who watches."""
        if self._keys:
            write_all(1, self._screen.notice(f"[vspcctl: {text}]"))
            self._last = b""

    def _finish(self) -> None:
        """Show what is left, and take back the modes that the VM has set."""
        if self._plain is not None:
            self._write(self._plain.finish())
        if os.isatty(1):
            write_all(1, self._screen.farewell())


def _end(number: int, _: Optional[FrameType]) -> None:
    raise Ended(SIGNALLED + number)
