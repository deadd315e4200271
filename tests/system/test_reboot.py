"""The machine goes down at once and comes up again: the same ports, the same logs, and the VMs come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import TcpClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.pressure import exchange
from tests.system.test_restart import free_range
from tests.system.vm import close_all, dial_all
from tests.system.wait import until

COUNT = 20


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """Its ports are not among those that the system gives to connections, which could take one while it is down."""
    return start_daemon(f"ports.first={free_range(2 * COUNT)}")


def estate() -> list[dict[str, str]]:
    return [{"name": f"vm{number:02}", "uuid": f"{number + 1:032x}"} for number in range(COUNT)]


def ports(daemon: Daemon) -> dict[str, int]:
    until(lambda: all(console["socket"] for console in daemon.consoles()), "all consoles are open")
    return {console["id"]: console["port"] for console in daemon.consoles()}


def power_fails(daemon: Daemon) -> None:
    daemon.clean_up()
    until(lambda: not daemon.members(), "all processes are dead")


def reboot(daemon: Daemon) -> None:
    """All processes die at one time, and /run is empty when they come back."""
    power_fails(daemon)
    shutil.rmtree(daemon.root / "run")
    daemon.start()


def named(daemon: Daemon) -> int:
    return sum(bool(c["name"]) and c["state"] == "connected" for c in daemon.consoles())


def dial_in(daemon: Daemon, stack: ExitStack) -> None:
    vms = dial_all(daemon.proxy, estate())
    stack.callback(close_all, vms)
    until(
        lambda: (
            [c["name"] for c in daemon.consoles() if c["state"] == "connected" and c["name"]].__len__()
            == COUNT
        ),
        "all are connected and named",
    )


def test_consoles_have_the_same_ports(daemon: Daemon, stack: ExitStack) -> None:
    dial_in(daemon, stack)
    before = ports(daemon)
    reboot(daemon)
    assert ports(daemon) == before


def test_vms_come_back_to_their_consoles(daemon: Daemon, stack: ExitStack) -> None:
    dial_in(daemon, stack)
    before = ports(daemon)
    reboot(daemon)
    dial_in(daemon, stack)
    assert ports(daemon) == before
    assert daemon.refused() == []


def test_a_client_finds_its_console_where_it_was(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial())
    address = daemon.port(vm.name)
    reboot(daemon)
    client = stack.enter_context(TcpClient(address))
    vm = stack.enter_context(daemon.dial(uuid=vm.uuid))
    exchange(client, vm)


def test_the_log_goes_on(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.name)
    vm.send(b"before,")
    until(lambda: log.read_bytes() == b"before,", "it is logged")
    reboot(daemon)
    stack.enter_context(daemon.dial(uuid=vm.uuid)).send(b"after")
    until(lambda: log.read_bytes() == b"before,after", "the log has both")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(100, len(data), 512):
        data[at] ^= 0x55
    path.write_bytes(data)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scribbled(path: Path) -> None:
    path.write_bytes(b"this is no port map\n" * 100)


@pytest.mark.parametrize("damage", [flipped, halved, emptied, scribbled])
def test_a_port_map_that_the_reboot_has_damaged_is_told_of_and_vms_are_served(
    damage: Callable[[Path], None], daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(daemon.dial())
    power_fails(daemon)
    damage(daemon.root / "state" / "portmap.db")
    daemon.start()
    daemon.wait_log("warning port-map", str(daemon.root / "state" / "portmap.db"))
    stack.enter_context(daemon.dial(uuid=vm.uuid))
    daemon.wait_state(vm.name, "connected")


@pytest.mark.parametrize("damage", [flipped, halved, scribbled])
def test_a_damaged_port_map_is_kept_beside_the_new_one(
    damage: Callable[[Path], None], daemon: Daemon, stack: ExitStack
) -> None:
    stack.enter_context(daemon.dial())
    daemon.stop()  # so that nothing is left of a change that was under way
    path = daemon.root / "state" / "portmap.db"
    damage(path)
    broken = path.read_bytes()
    daemon.start()
    kept = [each.read_bytes() for each in path.parent.glob("portmap.db.damaged-*")]
    assert broken in kept
