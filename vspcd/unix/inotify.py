"""What changes in a directory, as the kernel tells it: inotify(7), by its three calls in the C library.

Does: watches directories, and gives the names of the files in them that something has happened to.
Owns: the descriptor.
Never: waits; the caller polls ``fd``. Follows a file: a watch is a directory's.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MODIFIED, MOVED_TO, CREATED = 0x2, 0x80, 0x100
DIRECTORY_GONE, DIRECTORY_MOVED, WATCH_ENDED = 0x400, 0x800, 0x8000
OVERFLOW = 0x4000

_WATCHED = MODIFIED | MOVED_TO | CREATED | DIRECTORY_GONE | DIRECTORY_MOVED
_EVENT = struct.Struct("iIII")
_READ = 1 << 16


class Event(NamedTuple):
    """``watch`` is what ``add`` has given, -1 for an overflow; ``name`` is empty when the directory itself is meant."""

    watch: int
    mask: int
    name: str

    @property
    def lost(self) -> bool:
        """Whether the directory is no longer watched under its path."""
        return bool(self.mask & (DIRECTORY_GONE | DIRECTORY_MOVED | WATCH_ENDED))


class Inotify:
    """Raises OSError where there is none, or no more of them."""

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str) -> int:
        """Watch a directory; the number of the watch. Raises OSError."""
        return self._checked(self._c.inotify_add_watch(self.fd, os.fsencode(path), _WATCHED))

    def remove(self, watch: int) -> None:
        """Watch it no longer; nothing happens when it is not watched."""
        self._c.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """What has happened since the last call."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            yield Event(watch, mask, os.fsdecode(data[at : at + size].rstrip(b"\0")))
            at += size

    def close(self) -> None:
        os.close(self.fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
