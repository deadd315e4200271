"""What /proc tells of processes: who is in a session, what they hold and how often they woke up.

Never changes a process, but for the two that end some.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Optional

PROC = Path("/proc")


def read(pid: int, name: str) -> Optional[str]:
    """A file of /proc/PID, or None when the process has gone."""
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None


def state(pid: int) -> Optional[str]:
    """The letter that ``ps`` shows: T is stopped."""
    text = read(pid, "stat")
    return None if text is None else text.rpartition(")")[2].split()[0]


def session_of(pid: int) -> Optional[int]:
    """None when the process is dead, a zombie or not."""
    session = named_session(pid)
    return None if session is None or (state(pid) or "X") in "ZX" else session


def named_session(pid: int) -> Optional[int]:
    """The session of a process, also of a zombie; far cheaper than a file of /proc."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def session_members(session: int) -> list[int]:
    """Living processes of a session, zombies left out."""
    pids = [int(name) for name in os.listdir(PROC) if name.isdigit()]
    return [pid for pid in pids if named_session(pid) == session == session_of(pid)]


def children(pid: int) -> list[int]:
    text = read(pid, f"task/{pid}/children")
    return [int(word) for word in (text or "").split()]


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it went by itself


def kill_session(session: int) -> None:
    for pid in session_members(session):
        kill(pid)


def title(pid: int) -> str:
    return (read(pid, "cmdline") or "").split("\0")[0]


def private_bytes(pid: int) -> int:
    """Memory that this process alone holds, in bytes."""
    text = read(pid, "smaps_rollup") or ""
    fields = [line.split() for line in text.splitlines()]
    return 1024 * sum(int(field[1]) for field in fields if field[0] in ("Private_Clean:", "Private_Dirty:"))


def wake_ups(pid: int) -> int:
    """How often this process has gone to sleep of its own will."""
    text = read(pid, "status") or ""
    found = [line.split()[1] for line in text.splitlines() if line.startswith("voluntary_ctxt_switches:")]
    return int(found[0])


def processor_seconds(pid: int) -> float:
    """How long this process has run, to the nanosecond."""
    return int((read(pid, "schedstat") or "0").split()[0]) / 1e9


def open_files(pid: int) -> dict[int, str]:
    """What each descriptor of a process points to."""
    found = {}
    for entry in (PROC / str(pid) / "fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:
            pass  # closed between the listing and the look
    return found


def socket_inodes(pid: int) -> set[str]:
    return {target for target in open_files(pid).values() if target.startswith("socket:")}
