"""The spool of a console: what its log could not take, in a file of the run directory until it can.

Does: keeps bytes from one journal position on, up to a limit, and gives them back; keeps how many found no room.
Owns: the file ``<identity>.spool``, whose first lines tell the position and that count.
Never: raises for a disk in trouble: what it does not take is the caller's to count.

It is a file so that it outlives the worker and the daemon: the log's end and the spool together tell another process
what is still to be written. The run directory is in memory on a usual system, and so not in the trouble that the logs
are in. Others need it too, so a tenth of it is left free.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from vspcd.core.journal import Buffer
from vspcd.core.names import visible
from vspcd.unix.failpoint import reached
from vspcd.unix.logsettings import SPARE

FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
FOLDER = "journal"  # in the run directory
MODE = 0o600
FOLDER_MODE = 0o700
LOOK_EVERY = 65536  # bytes, between two looks at the room that is left
FAMILY = b"vspcd-spool"
MAGIC = "vspcd-spool-2"
LINE = 34  # of the position; the same again for what is missing
HEADER = 2 * LINE  # bytes before the first one kept


class Missing(NamedTuple):
    """So many bytes behind the last one kept found no room; ``code``: why the log did not take them, see lognotes."""

    size: int
    code: int


NOTHING = Missing(0, 0)


class Spool:
    """The spool of a console, whose identity is ``stem``; empty while ``end`` is ``base``. ``folder`` is made when it
    is needed.
    """

    stem = ""

    def __init__(self, folder: str, limit: int) -> None:
        self.limit = limit
        self.base = 0
        self.end = 0
        self.missing = NOTHING
        self.strange = ""  # what was found of another version, and where it is now
        self._folder = folder
        self._fd = -1
        self._looked_at = -LOOK_EVERY
        self._is_low = False

    @property
    def _path(self) -> str:
        return path_of(self._folder, self.stem)

    def find(self) -> bool:
        """Go on with what an earlier process has left; whether there is anything."""
        try:
            self._fd = os.open(self._path, FLAGS)
            header = os.pread(self._fd, HEADER, 0)
            size = os.fstat(self._fd).st_size - HEADER
        except OSError:
            return False
        if header.startswith(FAMILY) and not header.startswith(MAGIC.encode()):
            self._set_aside(header)
            return False
        base, missing = position_of(header[:LINE]), missing_of(header[LINE:])
        if base is None or size < 0 or not (size or missing.size):
            self.clear()
            return False
        self.base, self.end, self.missing = base, base + size, missing
        return True

    def _set_aside(self, header: bytes) -> None:
        """Another version knows what is in it: nothing of it is used, and nothing is lost."""
        word = header.split()[0].decode("ascii", "replace")[:LINE]
        aside = f"{self._path}.other-version"
        self.close()
        try:
            os.rename(self._path, aside)
        except OSError:
            aside = self._path  # a directory in trouble; the next to find it tries again
        self.strange = (
            f"the spool of another version ({visible(word)}, this one knows {MAGIC}) is not in the log, but kept as"
            f" {aside}; that version logs it, named as before"
        )

    def put(self, position: int, data: Buffer) -> int:
        """Keep what comes at this position, the end of what is kept: how many bytes were taken."""
        if self.limit <= 0 or (self._fd < 0 and not self._begin(position)):
            return 0
        if position != self.end:
            return 0
        reached("log.spool")
        try:
            size = os.pwrite(self._fd, data[: self._room()], HEADER + position - self.base)
        except OSError:
            return 0
        reached("log.spooled")
        self.end += size
        return size

    def miss(self, position: int, size: int, code: int) -> None:
        """Behind what is kept up to this position, so many bytes are missing: for who comes when nobody else knows."""
        if Missing(size, code) == self.missing or (self._fd < 0 and not (size and self._begin(position))):
            return
        self.missing = Missing(size, code)
        try:
            os.pwrite(self._fd, line_of(self.missing), LINE)
        except OSError:
            pass  # it has its place in the file already, so this is a disk that fails

    def _room(self) -> int:
        """Bytes that may be taken now. Raises OSError."""
        if self.end >= self._looked_at + LOOK_EVERY:
            self._looked_at = self.end
            disk = os.fstatvfs(self._fd)
            self._is_low = disk.f_bavail < disk.f_blocks * SPARE / 100
        return 0 if self._is_low else max(0, self.limit - (self.end - self.base))

    def _begin(self, position: int) -> bool:
        if not self._folder:
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
        self.missing = NOTHING
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


def path_of(folder: str, stem: str) -> str:
    """Where the spool of a console is."""
    return f"{folder}/{stem}.spool"


def forget(folder: str, stem: str) -> int:
    """Nobody will ask for the spool of this console again; how many bytes its log will never have."""
    left = Spool(folder, 0)
    left.stem = stem
    size = 0
    if left.find():
        size = left.end - left.base + left.missing.size
    left.clear()
    return size


def header_of(position: int) -> bytes:
    """The first lines of a spool that begins at this position."""
    return f"{MAGIC} {position:0{LINE - len(MAGIC) - 2}d}\n".encode() + line_of(NOTHING)


def line_of(missing: Missing) -> bytes:
    """The second line, written at once."""
    return f"{missing.size:0{LINE - 7}d} {missing.code:05d}\n".encode()


def position_of(line: bytes) -> Optional[int]:
    """Where a spool begins, None when the line is none of a spool."""
    word, _, number = line.partition(b" ")
    if len(line) != LINE or word != MAGIC.encode() or not number.strip().isdigit():
        return None
    return int(number)


def missing_of(line: bytes) -> Missing:
    """What the second line tells."""
    words = line.split()
    if len(line) != LINE or len(words) != 2 or not all(word.isdigit() for word in words):
        return NOTHING
    return Missing(int(words[0]), int(words[1]))
