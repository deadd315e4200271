"""The log file that is being written: where it stands, in every moment for another process to know.

Does: opens, writes, rotates and mends the file; notes each step before the next, so that after a death at any
instruction the files and the notes together tell the journal position of the log's end.
Owns: the descriptor of the file.
Never: decides what is written when; hides a disk in trouble: its methods raise OSError.

The end is the position of the file's first byte, which is noted, and the file's size. While a file is replaced, the
position at which the next one begins is noted instead of it. A marker shifts what follows: from before it is written
until it counts, the place where it begins is noted, and another process cuts it off again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Optional

from vspcd.core.journal import Segments
from vspcd.unix.failpoint import reached
from vspcd.unix.logdoubt import Doubt, Doubts
from vspcd.unix.logfolder import Folder
from vspcd.unix.logindex import IN_DOUBT, LOST, IndexFile
from vspcd.unix.lognotes import FILE_GONE, ROTATING, Notes, Place, why
from vspcd.unix.logrotated import Rotated
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.spool import FOLDER_MODE

INDEX_LIMIT = 16 << 20  # bytes; a VM that only makes events must not fill the disk with them
LOG, TAIL = "log", "tail"
NOTHING: Mapping[str, object] = MappingProxyType({})


class LogWriter:
    """The log of a console, which ``identify`` names. ``index`` is None for files that only lagging clients read.

    A file is full at ``limit`` bytes.
    """

    stem: str
    name: str

    def __init__(
        self,
        folder: Folder,
        index: Optional[IndexFile],
        notes: Notes,
        segments: Segments,
        doubts: Doubts,
    ) -> None:
        self.folder = folder
        self.index = index
        self.fd = -1
        self.size = 0
        self.end = 0
        self.lost = 0  # bytes that markers stand for
        self.limit = 0
        self.rotated = Rotated(folder)
        self._notes = notes
        self._segments = segments
        self._doubts = doubts
        self._synced = 0  # bytes of the file that the disk has, when each write waits for it
        self._marker: Optional[int] = None  # where half a marker begins
        self._inode = ROTATING
        self._awaited: Optional[Place] = None  # what a dead worker noted of a file that cannot be opened yet

    @property
    def base(self) -> int:
        """The position of the file's first byte, as far as what follows the last marker is concerned."""
        return self.end - self.size

    @property
    def inode(self) -> int:
        """The file's."""
        return self._inode

    @property
    def full(self) -> bool:
        """Whether another file should be begun."""
        return self.room <= 0 or (self.index is not None and self.index.size >= INDEX_LIMIT)

    @property
    def room(self) -> int:
        """Bytes that the file may still grow by."""
        beside = self.index.size if self.rotated.quota and self.index is not None else 0
        return self.limit - self.size - beside

    def event(self, word: str, facts: Mapping[str, object] = NOTHING, at: Optional[int] = None) -> None:
        """Note an event at the log's end, or at another position."""
        if self.index is not None and self.index.size < 2 * INDEX_LIMIT:
            self.index.event(self.end if at is None else at, word, dict(facts))

    # Opening.

    def identify(self, stem: str) -> None:
        """The console's identity is the stem of all its files' names."""
        self.stem = stem
        self.name = self.rotated.name = f"{stem}.{TAIL if self.index is None else LOG}"
        if self.index is not None:
            self.index.name = self.rotated.index = f"{stem}.idx"

    def begin(self) -> int:
        """Go on where the file ends; the last position that the index knows, which may be further."""
        self._take(self.folder.open(self.name))
        if self.index is None:
            self._start_over()
            return 0
        self.index.open()
        base, last = self.index.end()
        self.end = _end(base, self.size)
        self._can_be_read()
        self._put_in_force()
        return last

    def _can_be_read(self) -> None:
        """What this file has behind its last marker."""
        since = self.base if self.index is None else self.index.since(self.base)
        readable = max(0, min(self.end - since, self.size))
        self._segments.begin(self.end - readable, self.size - readable, self.fd, readable)

    def go_to(self, position: int) -> None:
        """What is written next has this position."""
        self.end = position
        if self.fd >= 0:
            self._put_in_force()

    def go_back(self, position: int) -> None:
        """What is behind this position will be said and written again."""
        os.ftruncate(self.fd, position - self.base)
        self._resized(position - self.base, position)

    def _start_over(self) -> None:
        os.ftruncate(self.fd, 0)
        self.size = 0
        self.rotated.remove()
        self._put_in_force()

    def resume(self, head: int) -> None:
        """Go on for a dead worker, which was through with what lies before this position."""
        place = self._notes.place
        self.lost = place.lost
        self._awaited = place
        # Until the file can be opened, this is all that is known.
        self.end = place.base if place.inode == ROTATING else head
        self.open()

    def open(self) -> None:
        """Open the file that has the name, and go on in it from the end on."""
        self.folder.enter()
        existed = self.folder.size(self.name) is not None
        self._take(self.folder.open(self.name))
        try:
            if self.index is not None:
                self.index.open()
            if self._awaited is not None:
                self._find_end(self._awaited, existed)
        except OSError:
            os.close(self.fd)
            self.fd = -1
            raise
        self._awaited = None
        reached("log.created")
        self._put_in_force()

    def _take(self, fd: int) -> None:
        found = os.fstat(fd)
        self.fd, self.size, self._inode = fd, found.st_size, found.st_ino

    def _put_in_force(self) -> None:
        """From here on the end is at the end of this file."""
        if self._segments.end != self.end or self._segments.fd != self.fd:
            self._segments.begin(self.end, self.size, self.fd)
        self._notes.place = Place(self._inode, self.base, 0, self.lost)
        self._notes.seen = self.end
        self._synced = self.size
        if self.index is not None:
            self.index.base(self.base)

    def _find_end(self, place: Place, existed: bool) -> None:
        """The end of the log as a dead worker left it. A new file may have the number of one that was removed."""
        if place.inode == ROTATING:
            self.end = place.base
            if self.size:
                self._may_be_ours()
            elif self.index is not None and self.index.ends_with("rotated"):
                self._shift_index()
        elif place.inode == self._inode and existed:
            self._mend(place)
        else:
            self._was_replaced(place)

    def _may_be_ours(self) -> None:
        """The file is the one that was to be replaced, unless somebody else has put it there."""
        if self.index is None or self.index.end().base == self.base:
            self._can_be_read()

    def _mend(self, place: Place) -> None:
        if place.marker and self.size >= place.marker:
            os.ftruncate(self.fd, place.marker - 1)
            self.size = place.marker - 1
        self.end = _end(place.base, self.size)
        if place.marker and self.index is not None:
            self.index.take_back_marker(self.end)
        if self.end < self._notes.head and not self._notes.trouble:
            self.end = self._notes.head  # somebody has cut the file, and nothing was in trouble
            return
        self._can_be_read()

    def _was_replaced(self, place: Place) -> None:
        """Another file has the name now."""
        size = self.folder.find(self.stem, place.inode, but=self.name)
        if size is None:
            self.end = self._notes.seen
            self._notes.trouble = FILE_GONE
        else:
            self.end = _end(place.base, size)

    # Writing.

    def write(self, data: memoryview) -> int:
        """Write what the file has room for, at least something: how much.

        When the file will be removed as soon as it is full, all goes there: clients may not have it yet.
        """
        room = self.room if self.rotated.keep else 0
        reached("log.write")
        size = os.write(self.fd, data[:room] if 0 < room < len(data) else data)
        reached("log.wrote")
        self.size += size
        self.end += size
        current = self._segments.current
        if current is not None:
            current.length += size
        return size

    def skip(self, until: int, code: int) -> None:
        """Leave a gap up to this position, and a marker that says so."""
        size = until - self.end
        if self.index is not None:
            self._mark(f"{size} bytes not logged: {why(code)}", until, LOST, {"bytes": size})
            self.lost += size
        self.end, self._marker = until, None
        self._put_in_force()
        reached("log.skipped")

    def tell(self, doubt: Doubt) -> None:
        """A marker of what the disk may not have."""
        told = -1 if self.index is None else self.index.told_up_to()
        if told >= doubt.until:
            doubt = doubt._replace(until=told)  # a dead worker has got as far as that
        elif self.index is not None:
            facts = {"since": doubt.since, "until": doubt.until, "bytes": doubt.size}
            self._mark(doubt.text(), self.end, IN_DOUBT, {**facts, "reason": why(doubt.code)})
            self._marker = None
            self._put_in_force()
            reached("log.skipped")
        self._doubts.told(doubt)

    def _mark(self, text: str, position: int, word: str, facts: Mapping[str, object]) -> None:
        """Write a marker, which counts when the place behind it is put in force, and the index's line about it."""
        self.cut()
        assert self.index is not None
        self._notes.place = Place(self._inode, self.base, self.size + 1, self.lost)
        self._marker = self.size
        reached("log.mark")
        marker = f"\r\n[vspcd: {text}]\r\n".encode()
        if os.write(self.fd, marker) < len(marker):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reached("log.marked")
        self.index.event(position, word, dict(facts))
        reached("log.told")
        self.size += len(marker)

    def cut(self) -> None:
        """Remove what a full disk took of a marker."""
        if self._marker is not None:
            os.ftruncate(self.fd, self._marker)
            self._marker = None
            self._notes.place = Place(self._inode, self.base, 0, self.lost)

    def sync(self) -> None:
        """Wait until the disk has it all. Raises OSError, and then the file ends where the disk has had it before:
        asked again, the system would say that all is well with bytes that the disk has refused.
        """
        reached("log.sync")
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self._go_back_to_synced(error.errno or errno.EIO)
            raise
        self._synced = self.size
        reached("log.synced")

    def _go_back_to_synced(self, code: int) -> None:
        refused = self.size - self._synced
        try:
            os.ftruncate(self.fd, self._synced)
        except OSError:
            self._doubts.note(self.end - refused, self.end, code)
            self._doubts.is_over()
            self._synced = self.size
            return
        self.size -= refused
        self.end -= refused
        current = self._segments.current
        if current is not None:
            current.length -= refused

    def trust(self) -> None:
        """Each write waits for the disk from now on; what was written before is not asked for."""
        self._synced = self.size

    # Rotation.

    def rotate(self) -> None:
        """Rename the files one further and begin new ones; readers keep the old."""
        self.event("rotated")
        self._notes.place = Place(ROTATING, self.end, 0, self.lost)
        reached("log.rotate")
        try:
            self.folder.shift(self.name, self.rotated.keep)
            reached("log.shifted")
            if self.index is not None:
                self._shift_index()
        except OSError:
            self._notes.place = Place(self._inode, self.base, 0, self.lost)
            raise
        reached("log.renamed")
        self._let_go()
        self.open()
        self.rotated.fit(self.limit)

    def _shift_index(self) -> None:
        assert self.index is not None
        self.folder.shift(self.index.name, self.rotated.keep)
        self.index.open()

    def _let_go(self) -> None:
        """Write to this file no more; its segment keeps the descriptor for readers."""
        self.fd, self.size, self._marker = -1, 0, None

    # What others do to the file.

    def look(self) -> bool:
        """See what others have done to the file; whether it is still the one that has the name."""
        found = os.fstat(self.fd)
        if found.st_size != self.size and self._marker is None:
            self._resized(found.st_size, self.end)
        if not self.folder.has(self.name, self.fd):
            return False
        self._notes.seen = self.end
        if self.index is not None and not self.index.is_ours():
            self.index.open()
            self.index.base(self.base)
        return True

    def _resized(self, size: int, end: int) -> None:
        self.size, self.end = size, end
        self._segments.forget(self.fd)
        self._put_in_force()

    def replace(self) -> None:
        """Begin a new file, since another one or none has the name; what was removed with the old is written again."""
        reached("log.displaced")
        self.event("reopened")
        removed = os.fstat(self.fd).st_nlink == 0
        if removed:
            # What came since it was last seen went with it, and can be read again as long as it is open.
            self._notes.trouble = FILE_GONE
            self.end = min(self.end, self._notes.seen)
            if self._notes.on_disk is not None:
                self._notes.on_disk = min(self._notes.on_disk, self.end)
        self._notes.place = Place(ROTATING, self.end, 0, self.lost)
        self._let_go()
        self.folder.renew()
        self.open()

    # The end.

    def remove_all(self) -> None:
        """Remove all files."""
        try:
            self.folder.remove(self.name)
            self.rotated.remove()
        except OSError:
            pass  # the folder went before

    def close(self) -> None:
        """Let go of the file and its index."""
        if self.fd >= 0:
            let_go(self.fd)
            self.fd = -1
        if self.index is not None:
            self.index.close()


def _end(base: int, size: int) -> int:
    """The position of a file's end. Markers in a console's first file make its base negative, and somebody may have
    cut the file."""
    return max(0, base + size)


def let_go(fd: int) -> None:
    """Close a file. A network file system may tell only now what it has refused: the keeper finds that out as well."""
    try:
        os.close(fd)
    except OSError:
        pass


def writer(
    settings: LogSettings,
    directory: int,
    notes: Notes,
    segments: Segments,
    doubts: Doubts,
    ties: Ties,
) -> LogWriter:
    """The writer of a log, or of what is kept for clients when there is none."""
    plan = settings.in_force()
    if not settings.enabled:
        return LogWriter(Folder(-1, plan.dir, FOLDER_MODE), None, notes, segments, doubts)
    folder = Folder(directory, plan.dir, renewed=ties.renewed)
    return LogWriter(folder, IndexFile(folder, ties.trouble), notes, segments, doubts)
