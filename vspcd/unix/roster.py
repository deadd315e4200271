"""The roster: which processes of this daemon live, whoever their parent was.

Does: lets a process enter itself, finds those that are entered.
Owns: nothing; the file is the caller's.
Never: trusts what anybody has written. A process holds a record lock on one byte of an empty file, at its own number;
the kernel says who holds it, and takes it back when the process ends, however that comes about.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Optional

NAME = "workers"
LAST = 1 << 23  # more than any process's number
_FLOCK = "@hhqqi0q"  # type, whence, start, length, pid


def opened(run: Path) -> int:
    """The roster in the run directory. Raises OSError."""
    return os.open(run / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def enter(roster: int) -> None:
    """This process is one of us, until it ends. Its descriptor must stay open."""
    fcntl.lockf(roster, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, os.getpid())


def holder(roster: int, first: int, size: int) -> Optional[tuple[int, int]]:
    """One lock of another process that touches these bytes, as its first byte and that process; None without one."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, size, 0)
    kind, _, start, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(roster, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else (start, pid)


def is_entered(roster: int, pid: int) -> bool:
    """Whether this process is one of us and lives."""
    return holder(roster, pid, 1) == (pid, pid)


def entered(roster: int) -> list[int]:
    """All others that live."""
    found: list[int] = []
    ranges = [(0, LAST)]
    while ranges:
        first, end = ranges.pop()
        lock = holder(roster, first, end - first) if first < end else None
        if lock is not None:
            start, pid = lock
            ranges += [(first, min(start, end)), (max(start + 1, first + 1), end)]
            if start == pid:
                found.append(pid)
    return sorted(found)
