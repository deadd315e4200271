"""What the simulator's socket tests share: a loop with a deadline, and ways to wait for a condition.

Does: runs a test's coroutine, waits by looking again.
Owns: nothing.
Never: passes when the condition did not come true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Callable

import psutil

from tests.simulator.concentrator import Concentrator
from vspcd.simulator.host import Backoff, HostSettings

ALL_BYTES = bytes(range(256)) * 256
MEGABYTE = 1 << 20
QUICK = Backoff(0.01, 0.05)
DEADLINE = 10.0
STILL_FOR = 0.3
"""Seconds without a change that are a standstill."""


def in_loop(story: Coroutine[Any, Any, None], deadline: float = 30.0) -> None:
    """Run a story of sockets; nothing may be left running when it ends."""
    asyncio.run(_told(story, deadline))


async def _told(story: Coroutine[Any, Any, None], deadline: float) -> None:
    await asyncio.wait_for(story, deadline)
    await poll(lambda: len(asyncio.all_tasks()) == 1)


def host_of(proxy: Concentrator, **settings: Any) -> HostSettings:
    """A host that dials the concentrator, and again at once."""
    return HostSettings(proxy.address, backoff=QUICK, **settings)


async def poll(condition: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Look again and again until a condition is true."""
    end = asyncio.get_running_loop().time() + deadline
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not come true"
        await asyncio.sleep(0.005)


async def standstill(counter: Callable[[], int]) -> None:
    """Wait until a counter has moved, and stands still."""
    clock = asyncio.get_running_loop().time
    last, since = 0, clock()
    while last == 0 or clock() - since < STILL_FOR:
        if counter() != last:
            last, since = counter(), clock()
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """A process that runs; one that its own parent has yet to reap does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
