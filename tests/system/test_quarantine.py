"""What a VM says kills its workers each time: it is put aside and named, and the VM is let in again, for a while."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import TcpClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import VC_UUID, WONT_PROXY, FakeVm, uuid_text, vmware
from tests.system.wait import until

POISON = b"what no parser stands"
DEATHS = 3
BEFORE = b"said before\r\n"


@pytest.fixture
def start(start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch, root: Path) -> StartDaemon:
    """Starts a daemon whose processes fail where a test says."""
    points = root / "points"
    points.mkdir()
    monkeypatch.setenv("VSPCD_FAILPOINTS", str(points))

    def started(*settings: str) -> Daemon:
        daemon = start_daemon(*settings)
        daemon.environment = {"VSPCD_FAILPOINTS": str(points)}
        return daemon

    return started


@pytest.fixture
def daemon(start: StartDaemon) -> Daemon:
    return start()


def poisoned(daemon: Daemon, vm: FakeVm, failure: str = "segfault", times: int = DEATHS) -> None:
    """Let it say what kills each worker that looks at it, until it is hung up on."""
    point = daemon.arm("leg.peeked", f"{failure} {times}")
    vm.send(POISON)
    vm.wait_closed()
    assert not point.exists(), "the workers have died"


def poisoned_again(daemon: Daemon, vm: FakeVm) -> FakeVm:
    again = daemon.dial(name=vm.name, uuid=vm.uuid)
    poisoned(daemon, again)
    return again


@pytest.mark.parametrize("failure", ["segfault", "raise"])
def test_what_kills_three_workers_is_in_a_file_that_status_names(daemon: Daemon, failure: str) -> None:
    vm = daemon.dial()
    poisoned(daemon, vm, failure)
    (kept,) = daemon.console(vm.name)["quarantined"]
    assert Path(kept["file"]).read_bytes() == POISON
    assert kept["bytes"] == len(POISON)
    shown = daemon.ctl("status", vm.name).stdout
    assert kept["file"] in shown.replace("\n", "").replace(" ", "")
    assert vm.name in next(line for line in daemon.ctl("status").stdout.splitlines() if "quarantine" in line)


def test_its_vm_connects_again_and_its_clients_have_stayed(daemon: Daemon, stack: ExitStack) -> None:
    vm = daemon.dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"x")
    assert vm.read(1) == b"x"
    vm.send(BEFORE)
    assert client.read(len(BEFORE)) == BEFORE
    poisoned(daemon, vm)
    again = daemon.dial(name=vm.name, uuid=vm.uuid)
    again.send(b"said after")
    assert client.read_until(b"said after")
    client.send(b"typed after")
    assert again.read(11) == b"typed after"


def test_what_was_said_before_is_logged_and_what_was_put_aside_is_marked(daemon: Daemon) -> None:
    vm = daemon.dial()
    vm.send(BEFORE)
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes() == BEFORE, "it is logged")
    poisoned(daemon, vm)
    (kept,) = daemon.console(vm.name)["quarantined"]
    marker = f"[vspcd: {len(POISON)} bytes put aside in {kept['file']}".encode()
    until(lambda: marker in log.read_bytes(), "it is marked in the log")
    assert log.read_bytes().startswith(BEFORE)
    assert POISON not in log.read_bytes()


def test_deaths_with_progress_in_between_are_no_reason(daemon: Daemon) -> None:
    vm = daemon.dial()
    log = daemon.log_file(vm.name)
    said = b""
    for number in range(2 * DEATHS):
        point = daemon.arm("leg.peeked", "segfault")
        said += b"%d" % number
        vm.send(b"%d" % number)
        until(lambda: log.read_bytes() == said, "another worker has dealt with it")  # noqa: B023
        assert not point.exists()
    assert daemon.console(vm.name)["quarantined"] == []
    assert "vm-disconnected" not in daemon.log()


def test_neighbours_feel_nothing(daemon: Daemon, stack: ExitStack) -> None:
    vm, neighbour = daemon.dial(), daemon.dial(name="neighbour")
    client = stack.enter_context(UnixClient(daemon.socket_path(neighbour.name)))
    worker = daemon.worker(neighbour.name)
    poisoned(daemon, vm)
    neighbour.send(BEFORE)
    assert client.read(len(BEFORE)) == BEFORE
    assert daemon.worker(neighbour.name) == worker


def test_a_vm_that_does_not_stop_is_parked_and_told_of(daemon: Daemon) -> None:
    vm = daemon.dial()
    poisoned(daemon, vm)
    poisoned_again(daemon, poisoned_again(daemon, vm))
    console = daemon.wait_console(vm.name, lambda c: c["state"] == "parked", "is parked")
    assert len(console["quarantined"]) == 3
    assert len({kept["file"] for kept in console["quarantined"]}) == 3
    with FakeVm(daemon.proxy, name=vm.name, uuid=vm.uuid) as refused:
        for step in refused.steps()[:5]:
            refused.take_step(step)
        refused.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))
        refused.hear_code(WONT_PROXY)
        assert daemon.wait_refusal("parked")["peer"] == refused.address
        refused.wait_closed()
    assert f"Parked VMs: {vm.name}" in daemon.ctl("status").stdout


def parked(daemon: Daemon) -> FakeVm:
    vm = daemon.dial()
    poisoned(daemon, vm)
    poisoned_again(daemon, poisoned_again(daemon, vm))
    daemon.wait_console(vm.name, lambda c: c["state"] == "parked", "is parked")
    return vm


def test_an_operator_lets_it_in_again(daemon: Daemon) -> None:
    vm = parked(daemon)
    assert "is let in" in daemon.ctl("unpark", vm.name).stdout
    again = daemon.dial(name=vm.name, uuid=vm.uuid)
    poisoned(daemon, again)  # it counts from the beginning
    daemon.wait_state(vm.name, "waiting")
    assert "is not parked" in daemon.ctl("unpark", vm.name).stdout


def test_what_is_known_of_it_outlives_an_upgrade(daemon: Daemon) -> None:
    vm = parked(daemon)
    before = daemon.console(vm.name)
    assert daemon.ctl("upgrade").returncode == 0
    after = daemon.console(vm.name)
    assert after["state"] == "parked"
    assert after["quarantined"] == before["quarantined"]
    assert after["parked_until"] == pytest.approx(before["parked_until"], abs=5)


def test_without_logs_it_goes_beside_the_spools(start: StartDaemon, root: Path) -> None:
    daemon = start("log.dir=off")
    vm = daemon.dial()
    poisoned(daemon, vm)
    (kept,) = daemon.console(vm.name)["quarantined"]
    assert Path(kept["file"]).parent == root / "run" / "journal"
    assert Path(kept["file"]).read_bytes() == POISON
