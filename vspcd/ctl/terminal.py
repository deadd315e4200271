"""The user's terminal: raw while a console is on it, and as it was before under all circumstances.

Owns: the terminal's saved settings.
Never: reads or interprets what is typed.
"""

from __future__ import annotations

import os
import signal
import stat
import termios
from typing import Any, Optional

_RAW_INPUT = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
    | termios.INPCK
)
_RAW_LOCAL = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


class RawTerminal:
    """Raw mode for a terminal; on a descriptor that is no terminal it does nothing."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: Optional[list[Any]] = termios.tcgetattr(fd) if os.isatty(fd) else None

    def enter(self) -> None:
        """Raw mode: every byte as it is, no echo, no signals from keys. Nothing typed before is lost."""
        if self._saved is not None:
            termios.tcsetattr(self._fd, termios.TCSANOW, _raw(self._saved))

    def leave(self) -> None:
        """The settings from before. Safe in the background, on a terminal that has gone, and twice."""
        if self._saved is None:
            return
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
        except termios.error:
            pass  # The terminal has hung up: there is nothing left to restore.
        finally:
            signal.signal(signal.SIGTTOU, before)


def _raw(saved: list[Any]) -> list[Any]:
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = saved
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag & ~_RAW_INPUT, oflag & ~termios.OPOST, cflag, lflag & ~_RAW_LOCAL, ispeed, ospeed, cc]


def columns(fd: int) -> Optional[int]:
    """The width that the terminal at ``fd`` has now; None when it is none. It may change during a session, unlike
    $COLUMNS."""
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:
        return None


def own_output(fd: int) -> tuple[int, bool]:
    """A non-blocking descriptor for the terminal or pipe at ``fd``, and whether it is a new one of our own.

    It is opened anew, so that O_NONBLOCK does not leak to the shell, which has the same open file. A file is
    used as it is, since it has a position.
    """
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", flags), True
    except OSError:
        pass  # Another user's terminal, after su: a stuck one then blocks us as any other program.
    return fd, False
