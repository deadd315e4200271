"""stdout, through a pager when it is a terminal and the text is longer than the screen.

Does: holds back up to a screenful, then starts $VSPCCTL_PAGER, $PAGER or ``less -FRX`` and feeds it.
Owns: the pager's process.
Never: pages into a pipe or a file; makes a command fail because its reader has seen enough.
"""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    import subprocess

LESS = "FRX"
"""Options of less, unless $LESS has others: end on one screenful, show colours, leave the text on the screen."""


def command() -> str:
    """The user's pager; empty for none, and for one that is not there."""
    chosen = [os.environ[name].strip() for name in ("VSPCCTL_PAGER", "PAGER") if name in os.environ]
    pager = chosen[0] if chosen else "less"
    return pager if pager != "cat" and is_there(pager) else ""


def is_there(command_line: str) -> bool:
    """Whether the program that a shell's command begins with is installed, as far as the first word tells."""
    first = command_line.partition(" ")[0]
    folders = [""] if "/" in first else os.get_exec_path()
    return "=" in first or any(os.access(os.path.join(folder, first), os.X_OK) for folder in folders if first)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Output:
    """A context: what is written inside it goes to stdout, or to the pager until that has been left."""

    def __init__(self, paged: bool) -> None:
        self._command = command() if paged and os.isatty(1) else ""
        self._held = b""
        self._pager: Optional[subprocess.Popen[bytes]] = None
        size = os.get_terminal_size(1) if self._command else os.terminal_size((80, 24))
        self._width, self._rows = size.columns or 80, (size.lines or 24) - 1

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], _: Optional[BaseException], __: Optional[TracebackType]
    ) -> bool:
        if self._pager is None:
            write_all(1, self._held)
            self._held = b""
            return False
        _finish(self._pager)
        return kind is BrokenPipeError

    def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when nobody reads any more."""
        if self._pager is not None and self._pager.stdin is not None:
            write_all(self._pager.stdin.fileno(), data)
        elif not self._command:
            write_all(1, data)
        else:
            self._held += data
            if self._is_long():
                self._start()

    def _is_long(self) -> bool:
        rows = self._held.count(b"\n")
        if rows <= self._rows:
            rows = sum(max(len(line) - 1, 0) // self._width + 1 for line in self._held.split(b"\n")[:-1])
        return rows > self._rows or len(self._held) > self._rows * self._width * 4

    def _start(self) -> None:
        import subprocess  # takes longer to be imported than most logs to be shown

        held, self._held = self._held, b""
        environment = {"LESS": LESS, **os.environ}
        self._pager = subprocess.Popen(self._command, shell=True, stdin=subprocess.PIPE, env=environment)
        self.write(held)


def _finish(pager: subprocess.Popen[bytes]) -> None:
    """Let the user read on; Ctrl-C is the pager's meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if pager.stdin is not None:
            pager.stdin.close()
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
