"""A vspcctl that goes on, as a process whose output is read from a pipe.

Owns the process, and kills it at the end of its context if it is still there.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import TypeVar

from tests.ctl.conftest import ROOT, environment
from tests.system.wait import until

P = TypeVar("P", bound="Piped")


class Piped:
    """``seen`` is all that it has shown."""

    def __init__(self, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._output = b""

    @property
    def seen(self) -> str:
        return self._output.decode()

    def see(self, text: str) -> str:
        """Waits until the text was shown; all that was."""
        until(lambda: self._shows(text.encode()), f"vspcctl shows {text!r}")
        return self.seen

    def _shows(self, text: bytes) -> bool:
        assert self.process.stdout is not None
        self._output += self.process.stdout.read() or b""
        if text in self._output:
            return True
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        return False

    def end(self) -> int:
        """Ctrl-C: reads the rest; the exit code."""
        self.process.send_signal(signal.SIGINT)
        rest, errors = self.process.communicate(timeout=10)
        self._output += rest or b""
        assert errors == b""
        return self.process.returncode

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
