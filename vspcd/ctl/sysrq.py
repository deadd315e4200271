"""Linux's magic SysRq keys: the names by which people know them, and what each one does to the machine.

Owns: the table.
Never: sends anything. On a serial console the kernel takes a key that follows a break within five seconds.
"""

from __future__ import annotations

from typing import NamedTuple, Optional


class SysRq(NamedTuple):
    """A key; ``effect`` tells what it does, ``harmless`` whether the machine goes on as before."""

    key: str
    name: str
    effect: str
    harmless: bool = False


TABLE = (
    SysRq("b", "reboot", "reboots at once, without sync or unmount"),
    SysRq("c", "crash", "crashes the kernel, for a dump"),
    SysRq("e", "terminate", "sends SIGTERM to all processes but init"),
    SysRq("f", "oom", "kills a process for its memory"),
    SysRq("h", "help", "lists the keys", True),
    SysRq("i", "kill", "sends SIGKILL to all processes but init"),
    SysRq("j", "thaw", "thaws frozen file systems"),
    SysRq("k", "sak", "kills what runs on this console"),
    SysRq("l", "backtrace", "shows where each CPU is", True),
    SysRq("m", "memory", "shows the memory", True),
    SysRq("n", "nice", "makes real-time tasks ordinary ones"),
    SysRq("o", "poweroff", "powers off at once"),
    SysRq("p", "registers", "shows the registers", True),
    SysRq("q", "timers", "shows the timers", True),
    SysRq("r", "unraw", "takes the keyboard out of raw mode"),
    SysRq("s", "sync", "syncs the file systems", True),
    SysRq("t", "tasks", "shows all tasks", True),
    SysRq("u", "unmount", "makes all file systems read-only"),
    SysRq("v", "voyager", "shows the frame buffer console"),
    SysRq("w", "blocked", "shows blocked tasks", True),
    SysRq("z", "ftrace", "dumps the ftrace buffer", True),
    *(
        SysRq(str(level), f"loglevel{level}", f"sets the console's log level to {level}", True)
        for level in range(10)
    ),
)

CELL = 15
"""Columns that each key takes in the list."""

_KNOWN = {known: each for each in TABLE for known in (each.key, each.name)}


def find(text: str) -> Optional[SysRq]:
    """What is meant by a key or a name; None when it is neither."""
    return _KNOWN.get(text.strip().lower())


def listed(width: int) -> list[str]:
    """The keys for people, in lines of at most this width. Those that change the machine are marked."""
    named = [
        f"{each.key} {each.name}{'' if each.harmless else ' !'}" for each in TABLE if not each.key.isdigit()
    ]
    named.append("0-9 log level")
    count = max(width // CELL, 1)
    rows = [named[at : at + count] for at in range(0, len(named), count)]
    return [*("".join(text.ljust(CELL) for text in row).rstrip() for row in rows), "(! asks again)"]
