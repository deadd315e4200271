"""Sends a text file to a console, no faster than the console echoes it.

Does: reads the file, cuts it into pieces, waits for each piece's echo or for a pause, tells how far it came.
Owns: the file's bytes until they are sent.
Never: sends control characters, which the machine might obey; goes on when an echo is missing.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

from vspcd.core.names import visible
from vspcd.ctl.companion import Companion

if TYPE_CHECKING:
    from vspcd.ctl.session import Session

SIZE_LIMIT = 1 << 20
"""Bytes; at the speed of an echo more would take hours."""
PIECE = 64
"""Bytes of a line that are sent before their echo is waited for: what the smallest UARTs' drivers hold."""
ECHO_PATIENCE = 3.0
STOP = b"\x03"

_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


class Unfit(Exception):
    """A file that cannot be sent; the text says why, and what helps."""


def load(path: str) -> bytes:
    """The file, each line end as the key that makes it. Raises Unfit."""
    try:
        fd = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unfit("it is not a file")
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise Unfit(error.strerror or str(error)) from None
    if not data:
        raise Unfit("it is empty")
    if len(data) > SIZE_LIMIT:
        raise Unfit(f"it has more than {SIZE_LIMIT} bytes; a network is faster")
    data = data.replace(b"\r\n", b"\n")
    bad = _FORBIDDEN.search(data)
    if bad:
        line = data.count(b"\n", 0, bad.start()) + 1
        raise Unfit(
            f"line {line} has a control character, 0x{bad[0][0]:02x}; send it encoded, by base64 FILE"
        )
    return data.replace(b"\n", b"\r")


class Pacer:
    """What to send when. ``pause``: seconds between two lines; None: wait for echoes."""

    def __init__(self, data: bytes, pause: Optional[float], now: float) -> None:
        self.lines = data.count(b"\r") + (not data.endswith(b"\r"))
        self.line = 0
        """Lines that are sent, and echoed if echoes are waited for."""
        self._pause = pause
        lines = re.findall(rb"[^\r]*\r|[^\r]+", data)
        self._pieces: list[bytes] = [
            line[at : at + PIECE] for line in lines for at in range(0, len(line), PIECE)
        ]
        self._pieces.reverse()
        self._ends_line = False
        self._missing = b""  # of the echo of the latest piece
        self._since, self._wait = now, 0.0

    def take(self, now: float) -> Optional[bytes]:
        """The next piece, if it is its time."""
        if not self._pieces or self._missing or self.due(now) > 0:
            return None
        piece = self._pieces.pop()
        self._ends_line = piece.endswith(b"\r") or not self._pieces
        self._since = now
        if self._pause is None:
            self._missing = bytes(byte for byte in piece if byte > 0x20)
        elif self._ends_line:
            self._wait = self._pause
        self._settle()
        return piece

    def heard(self, data: bytes, now: float) -> None:
        """The console has said this: an echo may be in it, between other things, such as where lines are wrapped."""
        for byte in data:
            if not self._missing:
                return
            if byte == self._missing[0]:
                self._missing, self._since = self._missing[1:], now
                self._settle()

    def _settle(self) -> None:
        if not self._missing:
            self.line += self._ends_line
            self._ends_line = False

    def due(self, now: float) -> float:
        """Seconds until the next piece may be sent, or an echo is missing."""
        return self._since + (ECHO_PATIENCE if self._missing else self._wait) - now

    def failed(self, now: float) -> bool:
        """Whether an echo is missing."""
        return bool(self._missing) and self.due(now) <= 0

    @property
    def done(self) -> bool:
        return not self._pieces and not self._missing


class Sender(Companion):
    """Sends one file, along with a session."""

    busy = True

    def __init__(self, session: Session, path: str, data: bytes, pause: Optional[float]) -> None:
        self._session = session
        self._path = visible(path)
        self._size = len(data)
        self._began = time.monotonic()
        self._pacer = Pacer(data, pause, self._began)
        self._told = False

    def due(self) -> float:
        """Room at the link comes by itself."""
        return self._pacer.due(time.monotonic()) if self._session.link.has_room(PIECE) else float("inf")

    def serve(self, ready: Mapping[int, int]) -> None:
        now = time.monotonic()
        if self._pacer.failed(now):
            at = self._pacer.line + 1
            self._stop(
                f"line {at} was not echoed within {ECHO_PATIENCE:g} s; a pause instead of echoes may help"
            )
        elif self._session.read_only:
            self._stop("this session only watches now")
        elif self._pacer.done:
            took = max(now - self._began, 0.1)
            self._session.say(f"sent {self._path}: {self._size} bytes in {took:.1f} s")
            self._session.dismiss(self)
        elif self._session.link.has_room(PIECE):
            piece = self._pacer.take(now)
            if piece:
                self._session.link.type(piece)

    def heard(self, data: bytes) -> None:
        self._pacer.heard(data, time.monotonic())

    def typed(self, data: bytes) -> bool:
        if STOP in data:
            self._stop("you have stopped it")
        elif not self._told:
            self._told = True
            self._session.say("what you type is dropped while a file is sent; Ctrl-C stops that")
        return True

    def _stop(self, why: str) -> None:
        sent = f"{self._pacer.line} of {self._pacer.lines} lines of {self._path} were sent"
        self._session.say(f"{sent}: {why}")
        self._session.dismiss(self)
