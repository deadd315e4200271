"""One daemon for the tests of a module, one after the other: starting one is most of what a small test costs.

Does: lends a daemon that runs already, without the consoles, logs and words of whoever had it before.
Owns: the daemon and its root.
Never: lends one that was stopped or started again, that has other settings, that is still busy with the test before,
or that had a part in a test that failed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Optional

from tests.system.daemon import Daemon
from tests.system.wait import Late, until

BUSY = 0.5
"""Seconds: some clients are let go of later, and a new daemon is there sooner."""


class Lender:
    """``failures`` tells how many tests have failed so far."""

    def __init__(self, failures: Callable[[], int]) -> None:
        self._failures = failures
        self._daemon: Optional[Daemon] = None
        self._lent: tuple[int, tuple[str, ...], int] = (0, (), 0)

    def lend(self, *settings: str) -> Daemon:
        """A daemon with these settings and no console."""
        if not self._can_be_lent(settings):
            self.end()
            self._daemon = Daemon(Path(tempfile.mkdtemp(prefix="vspcd-")), *settings)
            self._daemon.start()
        assert self._daemon is not None
        self._lent = (self._daemon.pid, settings, self._failures())
        return self._daemon

    def _can_be_lent(self, settings: tuple[str, ...]) -> bool:
        daemon = self._daemon
        if daemon is None or not daemon.runs or self._lent != (daemon.pid, settings, self._failures()):
            return False
        try:
            until(lambda: self._forgotten(daemon), "the consoles of the test before are forgotten", BUSY)
        except Late:
            return False
        self._tidy(daemon)
        return True

    def _tidy(self, daemon: Daemon) -> None:
        for path in (daemon.root / "log").rglob("*"):
            if path.name == "audit.log":
                os.truncate(path, 0)  # it stays open
            elif not path.is_dir():
                path.unlink(missing_ok=True)
        daemon.begin_log()

    def _forgotten(self, daemon: Daemon) -> bool:
        """A VM that was hung up a moment ago may still be there, and so may one that has not said who it is."""
        for console in daemon.consoles():
            daemon.request({"type": "forget", "console": console["id"]})
        return not daemon.consoles() and not any("[" in title for title in daemon.titles().values())

    def end(self) -> None:
        """The daemon ends in good order, unless a test has failed that had it."""
        if self._daemon is None:
            return
        daemon, self._daemon = self._daemon, None
        try:
            if daemon.runs and self._lent[2] == self._failures():
                daemon.stop()
        finally:
            daemon.clean_up()
            shutil.rmtree(daemon.root, ignore_errors=True)
