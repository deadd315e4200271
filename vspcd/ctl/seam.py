"""A line that was cut in two when its log was rotated: one half at the end of a file, one at the beginning of the next.

Does: finds it, and shows it as a file of its own, so that a search that goes file by file finds what is in it.
Owns: that file, which is in memory.
Never: joins more than two files, or more than HALF bytes of each.
"""

from __future__ import annotations

import os
from typing import Optional

from vspcd.ctl.pattern import Pattern
from vspcd.ctl.segments import Segment

HALF = 1 << 16


class Seam(Segment):
    """The line, with the times of its first half."""

    def __init__(self, older: Segment, begin: int, text: bytes) -> None:
        """``begin``: where in the older file the line begins."""
        self.fd = os.memfd_create("line", os.MFD_CLOEXEC)
        os.write(self.fd, text)
        self.identity, self.size, self.changed = older.identity, len(text), older.changed
        self.index, self.begin = older.index, begin
        self._known = (0, 0, None)

    def moment(self, byte: int) -> Optional[float]:
        return super().moment(self.begin + byte)


def seam(older: Segment, newer: Segment, pattern: Pattern) -> Optional[Seam]:
    """The line over the two files if it matches, and neither half does by itself."""
    at = max(older.size - HALF, 0)
    end = older.read(at, older.size - at)
    if not end or end.endswith(b"\n"):
        return None
    line = end.rfind(b"\n") + 1
    first = end[line:]
    start = newer.read(0, HALF)
    second = start[: start.find(b"\n") + 1] or start
    if not second or pattern.matches(first) or pattern.matches(second) or not pattern.matches(first + second):
        return None
    return Seam(older, at + line, first + second)
