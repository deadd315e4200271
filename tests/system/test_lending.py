"""A daemon that goes from test to test is as good as a new one, or it is a new one."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Callable

import pytest

from tests.system.daemon import Daemon
from tests.system.lending import Lender
from tests.system.vm import FakeVm
from tests.system.wait import until


@pytest.fixture
def fresh(stack: ExitStack) -> Lender:
    """One of which a test may count the failures itself."""
    lender = Lender(lambda: 0)
    stack.callback(lender.end)
    return lender


def begins_to_dial(daemon: Daemon) -> socket.socket:
    dialled = socket.create_connection(daemon.proxy, timeout=10)
    until(lambda: any("negotiating" in title for title in daemon.titles().values()), "a worker waits for it")
    return dialled


def test_a_lent_daemon_knows_nothing_of_the_test_before(fresh: Lender) -> None:
    daemon = fresh.lend("access=[]")
    with daemon.dial() as vm:
        vm.send(b"said")
        daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 4), "is heard")
        log = daemon.log_file(vm.name)
    assert "vm-connected" in daemon.log()
    pid = daemon.pid
    assert fresh.lend("access=[]").pid == pid
    assert (daemon.consoles(), log.exists()) == ([], False)
    assert "vm-connected" not in daemon.log()


@pytest.mark.parametrize(
    "change",
    [
        lambda daemon: daemon.stop(),
        lambda daemon: (daemon.stop(), daemon.start()),
        lambda daemon: daemon.dial(),
        begins_to_dial,
    ],
    ids=["stopped", "started again", "has a VM", "somebody dials"],
)
def test_a_daemon_is_not_lent_again_when_it_is_not_as_before(
    change: Callable[[Daemon], object], fresh: Lender
) -> None:
    daemon = fresh.lend()
    kept = change(daemon)
    another = fresh.lend()
    assert another is not daemon
    assert another.consoles() == []
    if isinstance(kept, (FakeVm, socket.socket)):
        kept.close()


def test_a_daemon_is_not_lent_with_other_settings_or_after_a_failure(stack: ExitStack) -> None:
    failures = [0]
    lender = Lender(lambda: failures[0])
    stack.callback(lender.end)
    first = lender.lend()
    second = lender.lend("ports.enabled=false")
    failures[0] += 1
    third = lender.lend("ports.enabled=false")
    assert len({id(each) for each in (first, second, third)}) == 3
    assert [each.runs for each in (first, second, third)] == [False, False, True]
