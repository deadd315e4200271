"""The clock of the machine jumps by a day: nothing happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.system.clients import TcpClient
from tests.system.pressure import exchange
from tests.system.vm import FakeVm
from tests.system.vmotion_vm import THERE, MovingVm
from tests.system.wait import throughout, until
from tests.system.wallclock import DAY, MisledDaemon, library

pytestmark = pytest.mark.skipif(library() is None, reason="libfaketime is not installed (Debian: faketime)")

JUMPS = pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
SETTINGS = ("ports.expire=1h", "vmotion.timeout=60s")
LOOK = 1.0


@pytest.fixture
def daemon(root: Path, stack: ExitStack) -> Iterator[MisledDaemon]:
    daemon = MisledDaemon(root, *SETTINGS)
    stack.callback(daemon.clean_up)
    daemon.start()
    yield daemon
    print(daemon.log())


@pytest.fixture
def vm(daemon: MisledDaemon, stack: ExitStack) -> FakeVm:
    return stack.enter_context(daemon.dial())


@pytest.fixture
def client(daemon: MisledDaemon, vm: FakeVm, stack: ExitStack) -> TcpClient:
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"!")
    assert vm.read(1) == b"!"
    return client


def logged_at(daemon: MisledDaemon) -> float:
    """The time of the last line in the daemon's log: what it takes the time to be."""
    text = daemon.log().splitlines()[-1].split()[0]
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()


@JUMPS
def test_the_daemon_sees_the_jump(daemon: MisledDaemon, vm: FakeVm, jump: int) -> None:
    """What the other tests rely on."""
    before = logged_at(daemon)
    daemon.set_clock(jump)
    vm.close()
    daemon.wait_log("vm-disconnected")
    assert abs(logged_at(daemon) - before - jump) < 60


@JUMPS
def test_vms_and_clients_stay(daemon: MisledDaemon, vm: FakeVm, client: TcpClient, jump: int) -> None:
    pid = daemon.worker(vm.name)
    daemon.set_clock(jump)
    throughout(lambda: True, LOOK)
    exchange(client, vm)
    assert daemon.worker(vm.name) == pid


@JUMPS
def test_consoles_without_a_vm_do_not_expire(daemon: MisledDaemon, vm: FakeVm, jump: int) -> None:
    port = daemon.port(vm.name)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    daemon.set_clock(jump)
    assert throughout(lambda: daemon.find(vm.name) is not None, LOOK)
    assert daemon.port(vm.name) == port


@JUMPS
def test_consoles_do_not_expire_when_the_clock_jumps_over_a_restart(
    daemon: MisledDaemon, vm: FakeVm, jump: int
) -> None:
    port = daemon.port(vm.name)
    vm.close()
    daemon.stop()
    daemon.set_clock(jump)
    daemon.start()
    assert throughout(lambda: daemon.find(vm.name) is not None, LOOK)
    assert daemon.port(vm.name) == port


@JUMPS
def test_a_vm_that_is_about_to_say_who_it_is_has_its_time(
    daemon: MisledDaemon, stack: ExitStack, jump: int
) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    for step in vm.steps()[:4]:
        vm.take_step(step)
    daemon.set_clock(jump)
    throughout(lambda: True, LOOK)
    for step in vm.steps()[4:]:
        vm.take_step(step)
    daemon.wait_state(vm.name, "connected")


@JUMPS
def test_a_move_that_is_under_way_does_not_expire(daemon: MisledDaemon, stack: ExitStack, jump: int) -> None:
    source = MovingVm(daemon.proxy)
    stack.enter_context(source).handshake()
    source.begin()
    source.until(lambda: source.pair() is not None, "GOAHEAD")
    daemon.set_clock(jump)
    throughout(lambda: True, LOOK)
    target = MovingVm(daemon.proxy, uuid=source.uuid, source=THERE)
    stack.enter_context(target)
    target.show(source.pair() or b"")
    target.until(target.admitted, "PEER-OK")
    target.complete()
    source.leave()
    daemon.wait_console(source.uuid, lambda c: bool(c["peer"] == target.address), "has moved")


@JUMPS
def test_what_came_after_a_jump_is_found_by_its_time(daemon: MisledDaemon, vm: FakeVm, jump: int) -> None:
    vm.send(b"before\n")
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes() == b"before\n", "it is logged")
    daemon.set_clock(jump)
    throughout(lambda: True, LOOK)
    vm.send(b"after\n")
    until(lambda: log.read_bytes() == b"before\nafter\n", "both are logged")
    shown = daemon.ctl("log", "--since", "1m", vm.name)
    assert shown.returncode == 0
    assert shown.stdout.endswith("after\n")
    assert daemon.ctl("log", "--since", "2d", vm.name).stdout == "before\nafter\n"


@JUMPS
def test_lines_around_a_jump_have_the_times_of_their_day(daemon: MisledDaemon, vm: FakeVm, jump: int) -> None:
    vm.send(b"before\n")
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes() == b"before\n", "it is logged")
    throughout(lambda: True, LOOK)
    daemon.set_clock(jump)
    vm.send(b"after\n")
    until(lambda: log.read_bytes() == b"before\nafter\n", "both are logged")
    shown = daemon.ctl("log", "--timestamps", vm.name).stdout
    times = {line[21:]: datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in shown.splitlines()}
    assert abs((times["after"] - times["before"]).total_seconds() - jump) < 60


@JUMPS
def test_status_can_be_shown(daemon: MisledDaemon, vm: FakeVm, client: TcpClient, jump: int) -> None:
    daemon.set_clock(jump)
    shown = daemon.ctl("status", vm.name)
    assert shown.returncode == 0
    assert f"connected, since {'1d' if jump > 0 else '0s'}" in shown.stdout
