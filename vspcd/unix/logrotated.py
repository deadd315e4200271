"""The rotated files of a console's log: those that bear its name and a number, 1 for the newest.

Does: lists them and counts their bytes, removes the oldest to make room, opens them for readers who stand far back.
Owns: nothing; what it opens belongs to the journal's segments.
Never: writes to a file, or touches the one that is being written.
"""

from __future__ import annotations

import os
from typing import Optional

from vspcd.core.journal import Segments
from vspcd.unix.logfolder import Folder
from vspcd.unix.logindex import end_of_file


class Rotated:
    """Those of the log ``name`` and of its ``index``, None for what is kept for clients alone.

    ``keep`` of each stay; ``quota`` bytes are all files together, 0 without.
    """

    name = ""
    index: Optional[str] = None

    def __init__(self, folder: Folder) -> None:
        self.keep = 0
        self.quota = 0
        self._folder = folder

    def files(self) -> list[tuple[str, int]]:
        """Their names and sizes, the oldest first."""
        names = [self.name] if self.index is None else [self.name, self.index]
        files = [f"{name}.{number}" for number in range(self.keep, 0, -1) for name in names]
        sized = [(name, self._folder.size(name)) for name in files]
        return [(name, size) for name, size in sized if size is not None]

    def fit(self, limit: int) -> None:
        """Remove the oldest until there is room for a file of ``limit`` bytes within the quota."""
        while self.quota and sum(size for _, size in self.files()) + limit > self.quota:
            if not self.drop_oldest():
                return

    def drop_oldest(self) -> bool:
        """Remove the oldest log and its index; whether there was one."""
        files = [name for name, _ in self.files()]
        if not files:
            return False
        number = files[0].rpartition(".")[2]
        try:
            for name in files:
                if name.rpartition(".")[2] == number:
                    self._folder.remove(name)
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove them all. Raises OSError."""
        for name, _ in self.files():
            self._folder.remove(name)

    def read_before(self, segments: Segments) -> bool:
        """Open the one before the oldest of these segments, and add it; whether there is one that fits."""
        oldest = segments.oldest
        if oldest is None or oldest.at:
            return False  # there is a marker before it
        number = segments.files
        fd = self._folder.open_to_read(f"{self.name}.{number}") if number <= self.keep else -1
        if fd < 0:
            return False
        size = os.fstat(fd).st_size
        told = None if self.index is None else end_of_file(self._folder, f"{self.index}.{number}")
        base, since = told or (oldest.base - size, oldest.base - size)
        length = base + size - since
        if base + size != oldest.base or not 0 < length <= size:
            os.close(fd)
            return False
        segments.before(fd, size - length, length)
        return True
