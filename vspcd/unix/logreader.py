"""The reading side of a console's log: every position that is still there, wherever it is.

Does: reads from memory, from the spool, from the log files that are open; opens rotated ones as far back as needed.
Owns: nothing; ``logfile`` owns what is read.
Never: writes; raises for a disk in trouble: what it cannot read is gone for now.
"""

from __future__ import annotations

import os
from typing import Optional

from vspcd.core.journal import Segments, Tail
from vspcd.unix.logwriter import LogWriter
from vspcd.unix.spool import Spool


class LogReader:
    """Reads what ``tail``, ``spool``, ``segments`` and the files of ``log`` have."""

    def __init__(self, tail: Tail, spool: Spool, segments: Segments, log: LogWriter) -> None:
        self.tail = tail
        self._spool = spool
        self._segments = segments
        self._log = log

    @property
    def head(self) -> int:
        """The position behind the last byte."""
        return self.tail.head

    @property
    def oldest(self) -> int:
        """The first position of what can be read without a gap up to the head."""
        return min(self.tail.start, self._segments.unbroken_from(self.head))

    @property
    def rotated_files(self) -> bool:
        """Whether files are open that are no longer written."""
        return self._segments.several

    def read(self, position: int, size: int) -> Optional[bytes]:
        """Up to ``size`` bytes from ``position`` on; empty at the head, None when that place is gone."""
        if position >= self.head:
            return b""
        data = self.tail.read(position, size) or self._spool.read(position, size)
        if data:
            return data
        place = self._segments.locate(position)
        if place is None:
            return None
        fd, at, length = place
        try:
            return os.pread(fd, min(size, length), at) or None
        except OSError:
            return None

    def reach(self, position: int) -> None:
        """Open rotated files as far back as this position, for a reader who stood there before this process began."""
        while (oldest := self._segments.oldest) is not None and oldest.base > position:
            if not self._log.rotated.read_before(self._segments):
                return

    def next_readable(self, position: int) -> int:
        """Where a reader can go on whose ``position`` is gone."""
        found = [self.tail.start, self._segments.next_after(position)]
        if self._spool.end > self._spool.base > position:
            found.append(self._spool.base)
        return min(place for place in found if place is not None)
