"""The master is killed: VMs and clients go on, and the next master adopts whoever serves them."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, TelnetClient, UnixClient, one_of_each
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.installed import Installed
from tests.system.tls_peers import TlsVm, dialled, self_signed, tls_helpers
from tests.system.vm import FakeVm
from tests.system.wait import until


def kill_master(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()


def restarted(daemon: Daemon) -> None:
    """The master is killed, and another one starts, as systemd would do."""
    kill_master(daemon)
    daemon.start()


def test_vm_and_clients_of_every_kind_stay(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    raw, telnet, unix = one_of_each(daemon, vm, stack)
    worker = daemon.worker(vm.name)
    restarted(daemon)
    vm.send(b"said afterwards")
    assert [client.read(15) for client in (raw, telnet, unix)] == [b"said afterwards"] * 3
    for client in (raw, telnet, unix):
        client.send(b"t")
    assert vm.read(3) == b"ttt"
    assert daemon.worker(vm.name) == worker
    assert len(daemon.console(vm.name)["clients"]) == 3


def test_console_goes_on_without_a_master(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"r")
    vm.read(1)
    log = daemon.log_file(vm.name)
    kill_master(daemon)
    vm.send(b"nobody is master")
    assert client.read(16) == b"nobody is master"
    client.send(b"typed meanwhile")
    assert vm.read(15) == b"typed meanwhile"
    until(lambda: log.read_bytes() == b"nobody is master", "it is logged")
    daemon.start()
    assert log.read_bytes() == b"nobody is master"


def replaced(daemon: Daemon, name: str, pid: int) -> None:
    """The worker is killed, and another one goes on."""
    processes.kill(pid)
    until(lambda: (daemon.console(name)["worker"] or {"pid": pid})["pid"] != pid, "another goes on")


@pytest.mark.parametrize("worker_too", [False, True])
def test_what_is_known_of_a_console_is_as_before(
    daemon: Daemon, dial: Dial, stack: ExitStack, worker_too: bool
) -> None:
    vm = dial()
    client = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    vm.send(b"12345")
    client.read(5)
    daemon.wait_console(vm.name, lambda c: c["clients"][0]["kind"] == "telnet", "is seen")
    before = daemon.console(vm.name)
    if worker_too:
        replaced(daemon, vm.name, before["worker"]["pid"])
        before["worker"] = daemon.console(vm.name)["worker"]
    killed = time.time()
    restarted(daemon)
    after = daemon.wait_console(vm.name, lambda c: c["line"] == before["line"], "has its line")
    assert after["since"] < killed
    assert after["clients"][0]["since"] < killed
    for facts in (before, after):
        del facts["since"], facts["last_seen"], facts["clients"][0]["since"]
    assert after == before


def test_clients_can_come_and_go_after_it(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    old = stack.enter_context(TcpClient(daemon.port(vm.name)))
    old.send(b"o")
    vm.read(1)
    restarted(daemon)
    new = stack.enter_context(TcpClient(daemon.port(vm.name)))
    new.send(b"n")
    assert vm.read(1) == b"n"
    daemon.wait_clients(vm.name, 2)
    vm.send(b"both")
    assert (old.read(4), new.read(4)) == (b"both", b"both")
    old.close()
    daemon.wait_clients(vm.name, 1)


def test_adopted_worker_that_dies_is_replaced_where_it_was(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"r")
    vm.read(1)
    vm.send(b"before")
    client.read(6)
    restarted(daemon)
    pid = daemon.worker(vm.name)
    processes.kill(pid)
    vm.send(b"after")
    assert client.read(5) == b"after"
    client.send(b"typed")
    assert vm.read(5) == b"typed"
    assert daemon.worker(vm.name) != pid
    assert daemon.log_file(vm.name).read_bytes() == b"beforeafter"


def test_masters_may_die_again_and_again(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    worker = daemon.worker(vm.name)
    for number in range(3):
        restarted(daemon)
        vm.send(b"%d" % number)
    assert client.read(3) == b"012"
    assert daemon.worker(vm.name) == worker


def test_master_that_has_adopted_can_be_upgraded(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    restarted(daemon)
    assert daemon.ctl("upgrade", timeout=90).returncode == 0
    pid = daemon.worker(vm.name)
    processes.kill(pid)
    vm.send(b"still there")
    assert client.read(11) == b"still there"
    assert daemon.worker(vm.name) != pid


def test_stop_ends_the_adopted_too(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    restarted(daemon)
    daemon.stop()
    client.read_to_end()
    vm.wait_closed()
    assert list((daemon.root / "run").iterdir()) == []


def test_vm_that_was_negotiating_gets_its_console(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    steps = vm.steps()
    for step in steps[:5]:
        vm.take_step(step)
    kill_master(daemon)
    vm.send_raw(steps[5].says)  # it says who it is, and nobody can give it a console
    daemon.start()
    vm.hear(*steps[5].awaits)
    vm.take_step(steps[6])
    daemon.wait_state(vm.name, "connected")


def test_two_vms_of_one_console_are_judged_again(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    again = stack.enter_context(FakeVm(daemon.proxy, uuid=vm.uuid))
    steps = again.steps()
    for step in steps[:5]:
        again.take_step(step)
    kill_master(daemon)
    again.send_raw(steps[5].says)
    daemon.start()
    again.hear(*steps[5].awaits)
    vm.wait_closed()
    again.send(b"it is me")
    daemon.wait_console(vm.console, lambda c: bool(c["bytes_in"] == 8), "is heard")
    assert len(daemon.consoles()) == 1


def test_worker_with_nobody_to_serve_ends_with_the_master(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.close()
    kill_master(daemon)
    until(lambda: not daemon.members(), "nobody is left")


def test_vm_that_hangs_up_meanwhile_is_gone(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    kill_master(daemon)
    vm.close()
    daemon.start()
    daemon.wait_state(vm.name, "waiting")
    again = dial(uuid=vm.uuid)
    again.send(b"back")
    assert client.read(4) == b"back"


def test_hung_worker_is_not_waited_for_long(daemon: Daemon, dial: Dial) -> None:
    hung, other = dial(name="hung"), dial(name="other")
    pid = daemon.worker(hung.name)
    os.kill(pid, signal.SIGSTOP)
    restarted(daemon)
    assert daemon.find(other.name) is not None
    until(lambda: processes.session_of(pid) is None, "it is killed")
    hung.wait_closed()
    other.send(b"fine")
    daemon.wait_console(other.name, lambda c: bool(c["bytes_in"] == 4), "is heard")


def test_map_that_is_lost_is_rebuilt_from_those_who_live(daemon: Daemon, dial: Dial) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    before = {console["id"] for console in daemon.consoles()}
    kill_master(daemon)
    (daemon.root / "state" / "portmap.db").write_bytes(b"rubbish" * 1000)
    daemon.start()
    ports = {vm.console: daemon.port(vm.console) for vm in vms}
    assert ports.keys() == before
    for vm in vms:
        vm.close()
    daemon.stop()
    daemon.start()
    assert {vm.console: daemon.port(vm.console) for vm in vms} == ports


def test_encrypted_vm_stays(start_daemon: StartDaemon, tmp_path: Path, stack: ExitStack) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "vspcd").settings)
    vm = dialled(daemon, stack.enter_context(TlsVm(daemon.proxy)))
    (helper,) = tls_helpers(daemon)
    certificate = daemon.status()["certificate"]
    restarted(daemon)
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"typed")
    assert vm.read(5) == b"typed"
    assert helper in tls_helpers(daemon)
    assert daemon.status()["certificate"] == certificate
    processes.kill(helper)
    vm.wait_closed()


def test_nobody_else_is_adopted(daemon: Daemon, dial: Dial) -> None:
    dial()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(daemon.root / "run" / "adopt.sock"))
        assert b"quit" in stranger.recv(1000)
        assert stranger.recv(1000) == b""
    assert (daemon.root / "run" / "adopt.sock").stat().st_mode & 0o777 == 0o600


def test_handover_that_is_rejected_is_like_the_death_of_the_master(
    root: Path, stack: ExitStack, tmp_path: Path
) -> None:
    installed = Installed(tmp_path / "installed")
    # It finds nothing wrong when it checks itself, and everything when it begins.
    installed.change(
        "vspcd/inheritance.py", r"^        handover\.check\(state\)$", "        raise Unfit('no')"
    )
    daemon = Daemon(root)
    daemon.environment = installed.environment
    stack.callback(daemon.clean_up)
    daemon.start()
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    worker, pid = daemon.worker(vm.name), daemon.pid
    daemon.ctl("upgrade", timeout=90)
    daemon.wait_log("handover-rejected")
    until(daemon._answers, "it serves again")
    vm.send(b"still there")
    assert client.read(11) == b"still there"
    assert (daemon.worker(vm.name), daemon.status()["pid"]) == (worker, pid)
    assert (root / "state" / "handover.rejected").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "point", ["adopt.orphaned", "adopt.here", "adopt.moved", "adopt.told", "adopt.adopted"]
)
def test_worker_that_dies_while_it_is_adopted_costs_its_own_vm_a_dial_and_nobody_else(
    root: Path, stack: ExitStack, point: str
) -> None:
    daemon = armed(root, stack)
    vms = [stack.enter_context(daemon.dial(name=f"vm{number}")) for number in range(2)]
    file = daemon.arm(point)
    kill_master(daemon)
    daemon.start()
    until(lambda: not file.exists(), "one of them has died")
    for vm in vms:
        if not serves(daemon, vm):
            assert serves(daemon, stack.enter_context(daemon.dial(name=vm.name, uuid=vm.uuid)))
    daemon.stop()


@pytest.mark.parametrize("point", ["adopt.complete", "adopt.known"])
def test_master_that_dies_while_it_adopts_is_replaced_like_any_other(
    root: Path, stack: ExitStack, point: str
) -> None:
    daemon = armed(root, stack)
    vms = [stack.enter_context(daemon.dial(name=f"vm{number}")) for number in range(3)]
    workers = {vm.name: daemon.worker(vm.name) for vm in vms}
    kill_master(daemon)
    file = daemon.arm(point)
    daemon.process = daemon.spawn()
    daemon.wait_end()
    assert not file.exists()
    daemon.start()
    assert {vm.name: daemon.worker(vm.name) for vm in vms} == workers
    assert all(serves(daemon, vm) for vm in vms)
    daemon.stop()


@pytest.mark.parametrize("point", ["upgrade.packed", "upgrade.exec", "upgrade.trusted", "upgrade.taken"])
def test_master_that_dies_while_it_is_upgraded_is_replaced_like_any_other(
    root: Path, stack: ExitStack, point: str
) -> None:
    daemon = armed(root, stack)
    vm = stack.enter_context(daemon.dial())
    worker = daemon.worker(vm.name)
    file = daemon.arm(point)
    assert daemon.ctl("upgrade", timeout=90).returncode != 0
    daemon.wait_end()
    assert not file.exists()
    daemon.start()
    assert daemon.worker(vm.name) == worker
    assert serves(daemon, vm)
    daemon.stop()


def armed(root: Path, stack: ExitStack) -> Daemon:
    """A daemon whose processes can be made to fail."""
    points = root / "points"
    points.mkdir()
    daemon = Daemon(root)
    daemon.environment = {"VSPCD_FAILPOINTS": str(points)}
    stack.callback(daemon.clean_up)
    stack.callback(lambda: print(daemon.log()))
    return daemon.start()


def serves(daemon: Daemon, vm: FakeVm) -> bool:
    """Whether somebody can type to this VM."""
    try:
        with UnixClient(daemon.socket_path(vm.console)) as client:
            client.send(b"?")
            return vm.read(1) == b"?"
    except (AssertionError, OSError):
        return False
