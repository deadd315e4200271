"""Turns a loop until something holds, with a deadline. Owns nothing; never sleeps."""

from __future__ import annotations

import gc
import os
import resource
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from vspcd.unix.loop import Loop

PATIENCE = 10.0
TICK = 0.01


def until(loop: Loop, condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """Serve the loop until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain: {what or condition}"
        turn(loop)


def turn(loop: Loop, seconds: float = TICK) -> None:
    """One turn, which ends soon even when nothing happens."""
    timer = loop.call_later(seconds, lambda: None)
    loop.turn()
    timer.cancel()


def settle(loop: Loop, quiet: int = 3, most: int = 20000) -> int:
    """Serve the loop until it has nothing to do for some turns; how many turns had work. Fails on a spin."""
    idle = busy = 0
    while idle < quiet:
        if ready(loop):
            idle, busy = 0, busy + 1
        else:
            idle += 1
        turn(loop)
        assert busy < most, "the loop does not come to rest"
    return busy


def ready(loop: Loop) -> bool:
    """Whether the loop would serve a descriptor at once."""
    return bool(select.select([loop._epoll.fileno()], [], [], 0)[0])


def open_descriptors() -> set[int]:
    """The descriptors that this process has open."""
    gc.collect()  # what earlier tests left to the collector must not go while this one counts
    return {int(name) for name in os.listdir("/proc/self/fd") if leads_to(int(name))}


def descriptor_of(path: Path) -> int:
    """The first descriptor of this process that leads to the file."""
    return next(int(name) for name in os.listdir("/proc/self/fd") if leads_to(int(name)) == str(path))


def leads_to(fd: int) -> str:
    """The file behind a descriptor, empty when it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@contextmanager
def descriptors_left(count: int, beyond: int = 8) -> Iterator[None]:
    """So many descriptors can be opened, and no more. ``beyond``: how far above the highest one the limit is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + beyond, hard))
    occupied = []
    try:
        while True:
            occupied.append(os.dup(0))
    except OSError:
        for _ in range(count):
            os.close(occupied.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in occupied:
            os.close(fd)
