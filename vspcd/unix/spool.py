"""The spool of a console: what its log could not take, in a file of the run directory until it can.

Does: keeps bytes from one journal position on, up to a limit, and gives them back.
Owns: the file ``<identity>.spool``, whose first line tells the position.
Never: raises for a disk in trouble: what it does not take is the caller's to count.

It is a file so that it outlives the worker: the log's end and the spool together tell another process what is still to
be written. The run directory is in memory on a usual system, and so not in the trouble that the logs are in. Others
need it too, so a tenth of it is left free.
"""

from __future__ import annotations

import os
from typing import Optional

from vspcd.core.journal import Buffer
from vspcd.unix.failpoint import reached
from vspcd.unix.logsettings import SPARE

FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
MODE = 0o600
FOLDER_MODE = 0o700
LOOK_EVERY = 65536  # bytes, between two looks at the room that is left
MAGIC = "vspcd-spool"
HEADER = 32  # bytes before the first one kept


class Spool:
    """The spool of one console; empty while ``end`` is ``base``. ``folder`` is made when it is needed."""

    def __init__(self, folder: str, stem: str, limit: int) -> None:
        self.limit = limit
        self.base = 0
        self.end = 0
        self._folder = folder
        self._path = f"{folder}/{stem}.spool"
        self._fd = -1
        self._looked_at = -LOOK_EVERY
        self._is_low = False

    def find(self) -> bool:
        """Go on with what an earlier process has left; whether there is anything."""
        try:
            self._fd = os.open(self._path, FLAGS)
            base = position_of(os.pread(self._fd, HEADER, 0))
            size = os.fstat(self._fd).st_size - HEADER
        except OSError:
            return False
        if base is None or size <= 0:
            self.clear()
            return False
        self.base, self.end = base, base + size
        return True

    def put(self, position: int, data: Buffer) -> int:
        """Keep what comes at this position, the end of what is kept: how many bytes were taken."""
        if self._fd < 0 and not self._begin(position):
            return 0
        if position != self.end:
            return 0
        reached("log.spool")
        try:
            size = os.write(self._fd, data[: self._room()])
        except OSError:
            return 0
        reached("log.spooled")
        self.end += size
        return size

    def _room(self) -> int:
        """Bytes that may be taken now. Raises OSError."""
        if self.end >= self._looked_at + LOOK_EVERY:
            self._looked_at = self.end
            disk = os.fstatvfs(self._fd)
            self._is_low = disk.f_bavail < disk.f_blocks * SPARE / 100
        return 0 if self._is_low else max(0, self.limit - (self.end - self.base))

    def _begin(self, position: int) -> bool:
        if self.limit <= 0 or not self._folder:
            return False
        try:
            os.makedirs(self._folder, FOLDER_MODE, exist_ok=True)
            self._fd = os.open(self._path, FLAGS | os.O_CREAT | os.O_TRUNC, MODE)
            whole = os.write(self._fd, header_of(position)) == HEADER
        except OSError:
            whole = False
        if not whole:
            self.clear()
            return False
        self.base = self.end = position
        self._looked_at = position - LOOK_EVERY
        return True

    def read(self, position: int, size: int) -> bytes:
        """What is kept at this position, empty when nothing is."""
        if not self.base <= position < self.end:
            return b""
        try:
            return os.pread(self._fd, min(size, self.end - position), HEADER + position - self.base)
        except OSError:
            return b""

    def clear(self) -> None:
        """Keep nothing any more."""
        self.base = self.end = 0
        if self._fd < 0:
            return
        self.close()
        try:
            os.unlink(self._path)
        except OSError:
            pass  # it went before

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def header_of(position: int) -> bytes:
    """The first line of a spool that begins at this position."""
    return f"{MAGIC} {position:0{HEADER - len(MAGIC) - 2}d}\n".encode()


def position_of(header: bytes) -> Optional[int]:
    """Where a spool begins, None when it does not begin with a header."""
    word, _, number = header.partition(b" ")
    if len(header) != HEADER or word != MAGIC.encode() or not number.strip().isdigit():
        return None
    return int(number)
