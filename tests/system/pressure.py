"""Shortages as a test makes them for one daemon, and what a console still does meanwhile.

Changes the limits of processes that the test has started, and nothing else.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count as count_up
from itertools import islice

from tests.system import processes
from tests.system.clients import Client
from tests.system.vm import FakeVm
from tests.system.wait import throughout

TICK = os.sysconf("SC_CLK_TCK")
NOBODY = 65534


def cpu_seconds(pid: int) -> float:
    """What a process has computed since it began."""
    fields = (processes.read(pid, "stat") or "").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_share(pid: int, seconds: float) -> float:
    """The part of one core that a process takes for a while."""
    before, begun = cpu_seconds(pid), time.monotonic()
    throughout(lambda: True, seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - begun)


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """A process has a lower limit for a while."""
    old, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))
    try:
        yield
    finally:
        if os.path.exists(f"/proc/{pid}"):
            resource.prlimit(pid, what, (old, hard))


def descriptors_for(pid: int, count: int) -> int:
    """The limit under which a process can open so many descriptors more."""
    used = processes.open_files(pid)
    free = (number for number in count_up() if number not in used)
    return next(islice(free, count, None))


def exchange(client: Client, vm: FakeVm, words: bytes = b"are you there?") -> float:
    """A client types, the VM answers; how long that took."""
    begun = time.monotonic()
    client.send(words)
    assert vm.read(len(words)) == words
    vm.send(words[::-1])
    assert client.read(len(words)) == words[::-1]
    return time.monotonic() - begun


def knock(address: tuple[str, int], count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    """So many connections from one host that say nothing."""
    return [socket.create_connection(address, timeout=20, source_address=(source, 0)) for _ in range(count)]


def close(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def peak_bytes(pid: int) -> int:
    """The most memory that a process has ever had, or had since ``forget_peak``."""
    text = processes.read(pid, "status") or ""
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")))


def forget_peak(pid: int) -> None:
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
