"""What a process spends on processors, and what it waits for.

Does: asks the system, for one process at a time.
Owns: nothing.
Never: raises for a process that has gone.
"""

from __future__ import annotations

import time
from pathlib import Path

SCHEDULED = 2  # linux/posix-timers.h: CPUCLOCK_SCHED, of the whole process


def of_process(pid: int) -> float:
    """Seconds on processors since it was born; 0 when it has gone. Costs a tenth of a look into /proc."""
    try:
        return time.clock_gettime(~pid << 3 | SCHEDULED)
    except OSError:
        return 0.0


def state_of(pid: int) -> str:
    """The letter that ``ps`` shows, empty when it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
