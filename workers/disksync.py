"""Brings the console logs to the disk, and finds out whose bytes the disk has refused.

Does: syncs the whole file system of the logs; when that fails, asks file by file, and notes in the pages of
the consoles concerned how many bytes may be missing since when.
Owns: a mapping of the arena of pages, in which it writes ``LOG_ON_DISK`` and the facts about doubts.
Never: touches a log; calls bytes safe of which it does not know.

A console is looked after for two syncs from its worker's word on: the worker says one in 0.4 s at most, so the second
sync has what came behind the word. The system reports an error once for each file and once for the file system: what
was refused is found out at once or never.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

from vspcd.unix.logdoubt import Doubts
from vspcd.unix.logfolder import Folder
from vspcd.unix.logindex import end_of_file
from vspcd.unix.lognotes import Notes
from vspcd.unix.page import ARENA_PAGES, HEAD, Arena, Page

WORD = struct.Struct("<QQ")
"""What a worker says: the number of its page, and the inode of its log."""

ROUNDS = 2
LOG_NAME = re.compile(r"(.+)\.log(?:\.\d+)?")

Message = dict[str, Any]


class Log(NamedTuple):
    """A log file that a word was about; ``inode`` tells a page's console from the next one that has the page."""

    page: int
    inode: int


class Care(NamedTuple):
    """For how many more syncs a log is looked after; up to where the disk had it when that began, if known."""

    rounds: int
    since: Optional[int]


class File(NamedTuple):
    """A file of the log folder."""

    name: str
    inode: int


class DiskSync:
    """``directory`` and ``arena`` are descriptors, ``arena`` may be -1; ``path`` is the log folder's, empty if unknown.

    ``pages`` are those of consoles whose words another keeper may have taken with it.
    """

    def __init__(self, directory: int, path: str, arena: int, pages: Iterable[int]) -> None:
        self._folder = Folder(directory, path)
        self._arena = None if arena < 0 else Arena(arena)
        import ctypes  # only here: each worker would have its libraries mapped

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self._cared_for: dict[Log, Care] = {}
        self._doubtful: set[int] = set()  # pages of consoles that are to hear when the disk works again
        for number in pages:
            page = self._page(number)
            if page is not None and Notes(page).on_disk is not None:
                self._care_for(Log(number, Notes(page).place.inode))

    @property
    def waits(self) -> bool:
        """Whether there is a reason for another sync."""
        return bool(self._cared_for or self._doubtful)

    def heard(self, words: bytes) -> None:
        """Workers have said that their logs have new bytes."""
        for page, inode in WORD.iter_unpack(words[: len(words) // WORD.size * WORD.size]):
            self._care_for(Log(page, inode))

    def _care_for(self, log: Log) -> None:
        before = self._cared_for.get(log)
        if before is not None:
            self._cared_for[log] = before._replace(rounds=ROUNDS)
            return
        page = self._page_of(log)
        self._cared_for[log] = Care(ROUNDS, None if page is None else Notes(page).on_disk)

    def _page(self, number: int) -> Optional[Page]:
        return None if self._arena is None or number >= ARENA_PAGES else self._arena.page(number)

    def _page_of(self, log: Log) -> Optional[Page]:
        """The page of the console that writes this file, while it does."""
        page = self._page(log.page)
        return page if page is not None and Notes(page).place.inode == log.inode else None

    # A sync.

    def sync(self) -> list[Message]:
        """Bring everything to the disk; returns what the master has to be told."""
        self._enter()
        heads = {log: head_of(page) for log in self._cared_for for page in [self._page_of(log)] if page}
        code = self._syncfs()
        messages = self._ask_for_each() if code else self._all_is_well()
        for log, head in heads.items():
            if head is not None:
                self._is_on_disk(log, head)
        left = {log: care._replace(rounds=care.rounds - 1) for log, care in self._cared_for.items()}
        self._cared_for = {log: care for log, care in left.items() if care.rounds}
        return messages

    def _is_on_disk(self, log: Log, head: int) -> None:
        self._cared_for[log] = self._cared_for[log]._replace(since=head)
        page = self._page_of(log)
        if page is not None:
            notes = Notes(page)
            notes.on_disk = max(head, notes.on_disk or 0)

    def _enter(self) -> None:
        try:
            self._folder.renew()  # somebody may have put another one in its place
        except OSError:
            pass  # the workers complain of that

    def _syncfs(self) -> int:
        """0, or the number of an error that has come to light."""
        return self._errno() if self._libc.syncfs(self._folder.fd) else 0

    def _all_is_well(self) -> list[Message]:
        """The disk works, again or still: consoles that were in doubt can note that in their logs."""
        pages, self._doubtful = sorted(self._doubtful), set()
        for number in pages:
            page = self._page(number)
            if page is not None:
                Doubts(page).is_over()
        return [{"type": "in-doubt", "page": number} for number in pages]

    # What the disk has refused.

    def _ask_for_each(self) -> list[Message]:
        """Something on this file system was refused: each file can tell whether it was its own."""
        messages: list[Message] = []
        files = self._files()
        for stem, logs in self._owners(files).items():
            codes = [code for code in map(self._refused, files[stem]) if code]
            if codes:
                messages += self._doubt(stem, files[stem], logs, codes[0])
        return messages

    def _files(self) -> dict[str, list[File]]:
        """The log files by the consoles' identities: the current one, and those that were rotated."""
        found: dict[str, list[File]] = {}
        try:
            with os.scandir(self._folder.fd) as entries:
                for entry in entries:
                    match = LOG_NAME.fullmatch(entry.name)
                    if match is not None:
                        found.setdefault(match[1], []).append(File(entry.name, entry.inode()))
        except OSError:
            pass  # nobody can be asked
        return found

    def _owners(self, files: dict[str, list[File]]) -> dict[str, list[Log]]:
        """Which consoles have said that they have new bytes."""
        stems = {file.inode: stem for stem, found in files.items() for file in found}
        owners: dict[str, list[Log]] = {}
        for log in self._cared_for:
            if log.inode in stems:
                owners.setdefault(stems[log.inode], []).append(log)
        return owners

    def _refused(self, file: File) -> int:
        """The number of the error that the file has met; 0 without one. Asked by name, since it is asked rarely."""
        try:
            fd = os.open(file.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._folder.fd)
        except OSError:
            return 0  # it was removed: nobody misses it
        try:
            os.fdatasync(fd)
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            os.close(fd)
        return 0

    def _doubt(self, stem: str, files: list[File], logs: list[Log], code: int) -> list[Message]:
        """The disk has refused bytes of this console since it was last known to have them all."""
        inodes = {file.inode for file in files}
        for log in logs:
            page = self._page(log.page)
            if page is not None and Notes(page).place.inode in inodes:
                return self._note(stem, log.page, page, code)
        end = end_of_file(self._folder, f"{stem}.idx")
        size = self._folder.size(f"{stem}.log") or 0
        known = [care.since for log in logs for care in [self._cared_for[log]] if care.since is not None]
        size = size if end is None or not known else max(0, min(size, end.base + size - min(known)))
        return [not_synced(stem, size, code)] if size else []

    def _note(self, stem: str, number: int, page: Page, code: int) -> list[Message]:
        notes = Notes(page)
        until = self._end_of(stem, notes)
        since = min(until, notes.place.base if notes.on_disk is None else notes.on_disk)
        if since == until:
            return []  # a marker was refused, or the same bytes once more
        Doubts(page).note(since, until, code)
        notes.on_disk = until
        self._doubtful.add(number)
        return [not_synced(stem, until - since, code)]

    def _end_of(self, stem: str, notes: Notes) -> int:
        """Where the log ends now; about there when it is just being rotated or marked."""
        place, size = notes.place, self._folder.size(f"{stem}.log")
        if place.marker or size is None or notes.place != place:
            return notes.head
        return place.base + size


def head_of(page: Page) -> Optional[int]:
    """A position up to which the log has everything; None while it is in trouble."""
    head = page.words[HEAD]  # read first: what came in trouble is in the log when there is none
    return None if Notes(page).trouble else head


def not_synced(stem: str, size: int, code: int) -> Message:
    """What the master is told."""
    return {"type": "not-synced", "console": stem, "bytes": size, "reason": os.strerror(code)}
