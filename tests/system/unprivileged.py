"""Runs vspcd as a user of no rank, even when root started it: some limits do not bind root.

    python -m tests.system.unprivileged OPTION...

Changes the user when everything is imported, since that user may not be able to read the interpreter. SIGUSR1 takes
the process's right to fork, SIGUSR2 gives it back: another user's limits cannot be changed from outside.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system import processes
from tests.system.daemon import Daemon, as_options
from tests.system.pressure import NOBODY
from tests.system.wait import until
from vspcd.daemon import main, parser

PR_SET_DUMPABLE = 4


class UnprivilegedDaemon(Daemon):
    """The real daemon, as nobody. Its root is given to that user."""

    def __init__(self, root: Path, *settings: str) -> None:
        super().__init__(root, *settings)
        if os.getuid() == 0:
            os.chown(root, NOBODY, NOBODY)

    def command(self) -> list[str]:
        options = as_options(self.settings)
        return [sys.executable, "-m", "tests.system.unprivileged", "--root", str(self.root), *options]

    @contextmanager
    def without_processes(self) -> Iterator[None]:
        """It cannot fork for a while."""
        self.signal(signal.SIGUSR1)
        until(lambda: process_limit(self.pid) == 1, "the limit is lower")
        yield
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGUSR2)


def process_limit(pid: int) -> int:
    text = processes.read(pid, "limits") or ""
    return int(next(line.split()[2] for line in text.splitlines() if line.startswith("Max processes")))


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # Whoever changes the user loses its own /proc/self/fd; one that systemd started as that user has it.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def obey_signals() -> None:
    before, most = resource.getrlimit(resource.RLIMIT_NPROC)
    for number, soft in ((signal.SIGUSR1, 1), (signal.SIGUSR2, before)):
        signal.signal(number, lambda *_, soft=soft: resource.setrlimit(resource.RLIMIT_NPROC, (soft, most)))


if __name__ == "__main__":
    if os.getuid() == 0:
        parser().parse_args()  # imports what it needs only now
        become_nobody()
    obey_signals()
    sys.exit(main())
