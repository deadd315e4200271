"""Who lives is known from the kernel alone."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.test_process import status_of, wait_for
from vspcd.unix import roster
from vspcd.unix.process import fork


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    fd = roster.opened(tmp_path)
    yield fd
    os.close(fd)


@pytest.fixture
def gate() -> Iterator[int]:
    reader, writer = os.pipe()
    yield reader
    os.close(writer)
    os.close(reader)


def entered(opened: int, gate: int) -> int:
    """A child that is on the roster until it is killed."""
    told, tell = os.pipe()

    def main() -> None:
        roster.enter(opened)
        os.write(tell, b"x")
        wait_for(gate)()

    pid = fork(main, {opened, gate, tell})
    os.close(tell)
    assert os.read(told, 1) == b"x"
    os.close(told)
    return pid


def test_all_who_live_are_found_and_nobody_else(opened: int, gate: int) -> None:
    assert roster.entered(opened) == []
    pids = sorted(entered(opened, gate) for _ in range(5))
    assert roster.entered(opened) == pids
    os.kill(pids[2], signal.SIGKILL)
    status_of(pids[2])
    assert roster.entered(opened) == pids[:2] + pids[3:]
    assert [roster.is_entered(opened, pid) for pid in pids] == [True, True, False, True, True]
    for pid in pids[:2] + pids[3:]:
        os.kill(pid, signal.SIGKILL)
        status_of(pid)


def test_a_lock_at_somebody_elses_number_counts_for_nobody(opened: int, gate: int) -> None:
    told, tell = os.pipe()

    def main() -> None:
        fcntl.lockf(opened, fcntl.LOCK_EX, 100, 1)
        os.write(tell, b"x")
        wait_for(gate)()

    pid = fork(main, {opened, gate, tell})
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    assert not roster.is_entered(opened, 50)
    assert roster.entered(opened) == []
    os.kill(pid, signal.SIGKILL)
    status_of(pid)
