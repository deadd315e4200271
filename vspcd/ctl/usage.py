"""What a worker process has of memory for itself, read from /proc.

Owns: nothing.
Never: fails on a process that is gone or hidden; that is None.
"""

from __future__ import annotations

import os
from typing import Optional

_PRIVATE = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")
_READ_LIMIT = 8192


def unique_memory(pid: int) -> Optional[int]:
    """The bytes that only this process has (USS). Takes the kernel about half a millisecond."""
    text = _read(f"/proc/{pid}/smaps_rollup")
    lines = [line.split() for line in (text or "").splitlines() if line.startswith(_PRIVATE)]
    return sum(int(fields[1]) for fields in lines) * 1024 if lines else None


def _read(path: str) -> Optional[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _READ_LIMIT).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
