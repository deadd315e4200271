"""Processes: forking with hygiene, names for ``ps``, reaping.

Does: forks a child that keeps only the descriptors it was given, collects dead children.
Owns: nothing.
Never: decides who is forked, or what a death means.

Before the first fork everything is imported and ``freeze`` is called: a garbage collection in a child would
otherwise copy every page of the parent that holds an object. A child that kept foreign descriptors could read
other consoles, and no connection would ever be seen to end.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import traceback
from _signal import SIG_DFL, SIG_IGN, set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Mapping, Sequence
from gc import disable as disable_collector
from os import _exit, closerange
from resource import RLIMIT_DATA, setrlimit
from types import MappingProxyType
from typing import Callable, NamedTuple, NoReturn, Optional

from vspcd.unix.title import set_title

KEPT = (0, 1, 2)
Ranges = list[tuple[int, int]]
TO_DEFAULT = (int(signal.SIGTERM), int(signal.SIGCHLD))
TO_IGNORE = (int(signal.SIGINT), int(signal.SIGHUP), int(signal.SIGPIPE))
"""A Ctrl-C or a SIGHUP on the terminal is for the master, which tells its children."""

CRASHED = 70  # EX_SOFTWARE
OUT_OF_MEMORY = 71  # EX_OSERR
ENDINGS: Mapping[int, str] = MappingProxyType({0: "ended", OUT_OF_MEMORY: "ran out of memory"})
PAGE_SIZE = resource.getpagesize()


def freeze() -> None:
    """Put all that exists now out of the collector's reach. Call it once, before the first fork."""
    gc.collect()
    gc.freeze()


class Child(NamedTuple):
    """A process to be: what it runs, and the descriptors that it keeps beside the standard ones."""

    main: Callable[[], None]
    keep: set[int]


def fork(main: Callable[[], None], keep: set[int], memory: Optional[int] = None) -> int:
    """Fork a child that runs ``main`` and exits; returns its pid.

    The child keeps ``keep`` and the standard descriptors, has default signal handlers and no garbage
    collector, and leaves by ``os._exit``: 0 when ``main`` returns, its code on SystemExit, 71 when it wants more than
    ``memory`` bytes beyond what it begins with, 70 with a traceback on stderr when it raises anything else. Raises
    OSError when the system has no room for a process.
    """
    limit = None if memory is None else _data_limit(memory)
    others = _all_but(keep)
    pid = os.fork()
    if not pid:
        _live(main, others, limit)
    return pid


def fork_all(children: Sequence[Child], memory: Optional[int] = None) -> tuple[list[int], Optional[OSError]]:
    """Fork them in a row: the pids of the first ones, up to the one that found no room, and why it did not.

    After each fork the kernel copies every page that the parent writes to: between these it writes to few.
    """
    pids: list[int] = []
    try:
        limit = None if memory is None else _data_limit(memory)
        for main, others in [(main, _all_but(keep)) for main, keep in children]:
            pid = os.fork()
            if not pid:
                _live(main, others, limit)
            pids.append(pid)
    except OSError as error:
        return pids, error
    return pids, None


def _live(main: Callable[[], None], others: Ranges, limit: Optional[tuple[int, int]]) -> NoReturn:
    """The whole life of a child.

    What it calls first it knows by name: code that was never rehearsed writes to whatever it looks an attribute up in.
    """
    status = CRASHED
    try:
        disable_collector()
        _default_signals()
        for low, high in others:
            closerange(low, high)
        if limit is not None:
            setrlimit(RLIMIT_DATA, limit)
        main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except MemoryError:
        status = OUT_OF_MEMORY  # what a traceback needs may not be there
    except BaseException:  # noqa: BLE001  the outermost frame of a process
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
    finally:
        _exit(status)


def _default_signals() -> None:
    # signal.signal would make Enums of its arguments, which is a good part of a child's first millisecond.
    set_wakeup_fd(-1)
    for number in TO_DEFAULT:
        set_handler(number, SIG_DFL)
    for number in TO_IGNORE:
        set_handler(number, SIG_IGN)


def _all_but(keep: set[int]) -> Ranges:
    """The descriptors that a child closes. The parent finds out: it has done so before, which costs a child more."""
    low = 0
    others: Ranges = []
    for fd in sorted(keep.union(KEPT)):
        if low < fd:  # an empty range from 0 would be taken for all descriptors
            others.append((low, fd))
        low = fd + 1
    others.append((low, _highest_descriptor()))
    return others


def _data_limit(room: int) -> tuple[int, int]:
    """What refuses a child more than so many bytes beyond what it begins with, whatever they are for."""
    with open("/proc/self/statm", "rb") as file:
        held = int(file.read().split()[5]) * PAGE_SIZE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return held + room if hard == resource.RLIM_INFINITY else min(held + room, hard), hard


def _highest_descriptor() -> int:
    # Somebody may have lowered the soft limit below what was open already; such descriptors stay open.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limits) if resource.RLIM_INFINITY not in limits else 1 << 20


def reap(stopped: Callable[[int, bool], None] = lambda _pid, _stopped: None) -> list[tuple[int, str]]:
    """The children that have died since the last call: pid and, in words, how.

    ``stopped(pid, True)`` is called for those that a signal has stopped, with False for those that go on again.
    """
    dead: list[tuple[int, str]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return dead
        if pid == 0:
            return dead
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            stopped(pid, os.WIFSTOPPED(status))
        else:
            dead.append((pid, describe(status)))


def describe(status: int) -> str:
    """A wait status in words, such as ``killed by SIGSEGV``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        known = number in signal.Signals._value2member_map_
        return f"killed by {signal.Signals(number).name if known else f'signal {number}'}"
    code = os.WEXITSTATUS(status)
    return ENDINGS.get(code, f"exited with {code}")


def name(title: str) -> None:
    """What ``ps`` shows for this process."""
    set_title(title)


def kill(pid: int, number: int = signal.SIGKILL, pidfd: Optional[int] = None) -> None:
    """Send a signal to a process that may be gone: a child, or one that ``pidfd`` leads to."""
    try:
        if pidfd is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the system allows; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
