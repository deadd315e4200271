"""An estate at once: 300 VMs dial in side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from uuid import UUID

import pytest

from tests.system import processes
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.lending import Lender
from tests.system.vm import FakeVm, close_all, dial_all
from tests.system.wait import until

COUNT = 300
HOSTS = 10
# The VMs here go step by step side by side, so the slowest of a busy machine sets the pace.
PATIENT = "proxy.handshake_timeout=60s"


def estate() -> list[dict[str, str]]:
    """300 VMs on ten hosts."""
    return [
        {"name": f"vm{number:03}", "uuid": str(UUID(int=number + 1)), "source": f"127.0.1.{number % HOSTS}"}
        for number in range(COUNT)
    ]


class Estate(NamedTuple):
    daemon: Daemon
    vms: list[FakeVm]


@pytest.fixture(scope="module")
def everybody(lender: Lender) -> Iterator[Estate]:
    """All VMs at once, for tests that leave them connected."""
    daemon = lender.lend(PATIENT)
    with ExitStack() as stack:
        yield Estate(daemon, dial_in(daemon, stack))


def dial_in(daemon: Daemon, stack: ExitStack) -> list[FakeVm]:
    vms = dial_all(daemon.proxy, estate())
    stack.callback(close_all, vms)
    until(lambda: settled(daemon) == COUNT, "all are connected, named and open")
    return vms


def settled(daemon: Daemon) -> int:
    return sum(bool(c["name"] and c["socket"]) and c["state"] == "connected" for c in daemon.consoles())


def connected(daemon: Daemon) -> int:
    return sum(console["state"] == "connected" for console in daemon.consoles())


def test_300_vms_at_once_are_all_connected_each_with_a_port_and_a_worker_of_its_own(
    everybody: Estate,
) -> None:
    daemon, vms = everybody
    consoles = daemon.consoles()
    assert {console["name"] for console in consoles} == {vm.name for vm in vms}
    assert len({console["port"] for console in consoles}) == COUNT
    assert len({console["worker"]["pid"] for console in consoles}) == COUNT
    assert daemon.refused() == []


def test_memory_of_an_idle_worker(everybody: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports the figure; only a gross leak of the parent's memory fails."""
    consoles = everybody.daemon.consoles()
    sizes = sorted(processes.private_bytes(console["worker"]["pid"]) for console in consoles)
    with capsys.disabled():
        median = sizes[COUNT // 2] / 1024
        sys.stderr.write(
            f"\nidle worker: {median:.0f} KiB private in the median, {sizes[-1] / 1024:.0f} at most\n"
        )
    assert sizes[-1] < 6 << 20


def test_each_of_300_vms_is_heard_in_its_own_log(everybody: Estate) -> None:
    daemon, vms = everybody
    for vm in vms:
        vm.send(vm.name.encode())
    logs = {vm.name: daemon.root / "log" / f"{vm.uuid}.log" for vm in vms}
    until(lambda: all(log.stat().st_size == 5 for log in logs.values()), "all are heard")
    assert [name for name, log in logs.items() if log.read_text() != name] == []


def test_300_vms_leave_and_come_back_to_the_same_ports(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(PATIENT)
    vms = dial_in(daemon, stack)
    before = {console["id"]: console["port"] for console in daemon.consoles()}
    close_all(vms)
    until(lambda: connected(daemon) == 0, "all have left")
    dial_in(daemon, stack)
    assert {console["id"]: console["port"] for console in daemon.consoles()} == before
