"""The disk space that a console's log may use: applies ``log.reserve`` to one log.

Does: looks at the file system when the console talks much, has rotated logs removed, says when the log has to stop.
Owns: the account of the console's talk.
Never: decides what much is; ``vspcd.core.logspace`` does.
"""

from __future__ import annotations

import os
import time

from vspcd.core import logspace
from vspcd.unix.lognotes import BELOW_RESERVE, why
from vspcd.unix.logsettings import LogSettings
from vspcd.unix.logwriter import LogWriter


class DiskSpace:
    """The room for one log."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._talk = logspace.Talk(time.monotonic())
        self._head = 0

    def begin(self, head: int) -> None:
        """What comes behind this position counts."""
        self._head = head

    def check(self, now: float, head: int, settings: LogSettings) -> None:
        """Raise OSError when this console has to leave the rest of the disk to others."""
        self._talk.account(now, head - self._head)
        self._head = head
        if self._talk.chatty and (settings.reserve or settings.reserve_percent):
            while self._is_low(settings):
                if not self._log.rotated.drop_oldest():
                    raise OSError(BELOW_RESERVE, why(BELOW_RESERVE))

    def _is_low(self, settings: LogSettings) -> bool:
        disk = os.statvfs(self._log.folder.fd)
        whole = disk.f_blocks * disk.f_frsize
        least = logspace.reserve(settings.reserve, settings.reserve_percent, whole)
        return disk.f_bavail * disk.f_frsize < least
