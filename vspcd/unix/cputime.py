"""What a process spends on processors, and what it waits for.

Does: asks the system, for one process at a time.
Owns: nothing.
Never: raises for a process that has gone.
"""

from __future__ import annotations

import time
from typing import Optional

SCHEDULED = 2  # linux/posix-timers.h: CPUCLOCK_SCHED, of the whole process


def of_process(pid: int) -> float:
    """Seconds on processors since it was born; 0 when it has gone."""
    return known_of(pid) or 0.0


def known_of(pid: int) -> Optional[float]:
    """Seconds on processors since it was born; None when it has gone. Costs a tenth of a look into /proc."""
    try:
        return time.clock_gettime(~pid << 3 | SCHEDULED)
    except (OSError, OverflowError):  # it is not there, or no process can have this number
        return None


def state_of(pid: int) -> str:
    """The letter that ``ps`` shows, empty when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
