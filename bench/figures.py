"""What processes cost: processor time and memory, as the kernel counts them.

Does: reads /proc. Owns nothing. Never signals a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")

# Fields of /proc/PID/stat behind the command's name, from 0.
SESSION, CHILDREN_USER, CHILDREN_SYSTEM = 3, 13, 14


def _stat(pid: int) -> list[bytes]:
    """The fields behind the name; none when the process is gone."""
    try:
        # Anybody may give a process a name, in any encoding.
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and int(fields[SESSION]) == session:
                found.append(int(entry.name))
    return found


def _threads(pid: int) -> Iterable[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return ()


def _ran(thread: Path) -> float:
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of all threads, to the nanosecond, and of children that have ended, to the clock's tick."""
    total = 0.0
    for pid in pids:
        fields = _stat(pid)
        total += sum(map(_ran, _threads(pid)))
        if fields:
            total += (int(fields[CHILDREN_USER]) + int(fields[CHILDREN_SYSTEM])) / TICKS
    return total


def available_kib() -> int:
    """What the kernel says could be had at once: its own memory for sockets and processes counts."""
    return _kib((PROC / "meminfo").read_text(), "MemAvailable:")


class Private(NamedTuple):
    """KiB that are one process's alone."""

    median: float
    total: int


def private_kib(pids: Iterable[int]) -> Private:
    """Pages that no other process has, of each of them."""
    sizes = []
    for pid in pids:
        try:
            text = (PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        sizes.append(_kib(text, "Private_Clean:") + _kib(text, "Private_Dirty:"))
    sizes.sort()
    return Private(float(sizes[len(sizes) // 2]) if sizes else 0.0, sum(sizes))


def _kib(text: str, field: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field))


def load() -> float:
    """How many processes wanted a processor, over the last minute: others' among them."""
    return os.getloadavg()[0]
