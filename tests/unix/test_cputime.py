"""What a process spends on processors, as the system counts it."""

from __future__ import annotations

import os
import time

from tests.unix.test_process import status_of
from vspcd.unix import cputime


def test_time_that_another_process_spends_is_seen() -> None:
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.3:
            pass
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert 0.3 <= cputime.of_process(pid) < 5
    assert cputime.state_of(pid) == "Z"
    assert status_of(pid) == 0


def test_our_own_time_is_seen() -> None:
    assert abs(cputime.of_process(os.getpid()) - time.process_time()) < 0.1


def test_a_process_that_has_gone_has_no_time_and_no_state() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert status_of(pid) == 0
    assert (cputime.of_process(pid), cputime.state_of(pid)) == (0.0, "")
    assert cputime.known_of(pid) is None


def test_a_number_that_no_process_can_have_has_no_time() -> None:
    assert cputime.known_of(1 << 30) is None
