"""Another version takes the running one's place: nobody who is connected notices, and a bad one never does."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient, one_of_each
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.installed import Installed
from tests.system.test_restart import free_range
from tests.system.tls_peers import TlsVm, dialled, self_signed, tls_helpers
from tests.system.vm import FakeVm
from tests.system.wait import until


def upgraded(daemon: Daemon) -> str:
    """Upgrades, and what the operator is told."""
    done = daemon.ctl("upgrade", timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "installed")


@pytest.fixture
def changeable(root: Path, stack: ExitStack, installed: Installed) -> Daemon:
    """A daemon that runs from a copy of its own."""
    daemon = Daemon(root)
    daemon.environment = installed.environment
    stack.callback(daemon.clean_up)
    stack.callback(lambda: print(daemon.log()))
    return daemon.start()


def test_vm_and_clients_of_every_kind_stay(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    raw, telnet, unix = one_of_each(daemon, vm, stack)
    worker, pid = daemon.worker(vm.name), daemon.pid
    upgraded(daemon)
    vm.send(b"said afterwards")
    assert [client.read(15) for client in (raw, telnet, unix)] == [b"said afterwards"] * 3
    for client in (raw, telnet, unix):
        client.send(b"t")
    assert vm.read(3) == b"ttt"
    assert (daemon.worker(vm.name), daemon.status()["pid"]) == (worker, pid)


def test_status_is_as_before_but_for_the_version(changeable: Daemon, installed: Installed) -> None:
    with changeable.dial() as vm, TcpClient(changeable.port(vm.name)) as client:
        client.send(b"x")
        vm.read(1)
        vm.send(b"12345")
        changeable.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 5), "is heard")
        before = changeable.status()
        installed.version("99.1")
        assert "to 99.1" in upgraded(changeable)
        after = changeable.status()
    assert after.pop("version") == "99.1"
    assert after.pop("uptime") > before.pop("uptime")
    del before["version"]
    for status in (before, after):
        del status["consoles"][0]["last_seen"]  # a connected VM is seen now
    assert after == before


def test_nothing_is_lost_of_a_stream_over_many_upgrades(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    said, over = bytearray(), threading.Event()

    def talk() -> None:
        piece = bytes(range(256)) * 16
        while not over.is_set():
            vm.send(piece)
            said.extend(piece)
            over.wait(0.001)

    def listen() -> None:
        while not (over.is_set() and len(client.seen) >= len(said)):
            chunk = client.chunk(0.2)
            client.seen += chunk or b""

    threads = [threading.Thread(target=each) for each in (talk, listen)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            upgraded(daemon)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert client.seen == said
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes() == said, "the log has it all")


def test_vm_that_dials_meanwhile_is_served(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    proxy = daemon.proxy
    done = threading.Event()

    def upgrade() -> None:
        upgraded(daemon)
        done.set()

    thread = threading.Thread(target=upgrade)
    thread.start()
    count = 0
    while not done.is_set():
        stack.enter_context(FakeVm(proxy, name=f"vm{count}")).handshake()
        count += 1
    thread.join()
    until(lambda: len(daemon.consoles()) == count, "all of them have consoles")


def test_ports_and_sockets_stay_open_and_lead_to_the_console(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    before = (daemon.port(vm.name), daemon.socket_path(vm.name), daemon.proxy)
    upgraded(daemon)
    assert (daemon.port(vm.name), daemon.socket_path(vm.name), daemon.proxy) == before
    stack.enter_context(TcpClient(before[0])).send(b"tcp")
    assert vm.read(3) == b"tcp"
    stack.enter_context(UnixClient(before[1])).send(b"unix")
    assert vm.read(4) == b"unix"


def test_console_without_a_vm_is_still_known_and_waits(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    upgraded(daemon)
    again = dial(uuid=vm.uuid)
    daemon.wait_state(again.name, "connected")
    assert len(daemon.consoles()) == 1


def test_port_map_is_as_the_consoles_are(daemon: Daemon, dial: Dial) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    ports = {vm.console: daemon.port(vm.console) for vm in vms}
    upgraded(daemon)
    for vm in vms:
        vm.close()
    daemon.stop()
    daemon.start()
    assert {vm.console: daemon.port(vm.console) for vm in vms} == ports


def test_encrypted_vm_stays(start_daemon: StartDaemon, tmp_path: Path, stack: ExitStack) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "vspcd").settings)
    vm = dialled(daemon, stack.enter_context(TlsVm(daemon.proxy)))
    helpers, certificate = tls_helpers(daemon), daemon.status()["certificate"]
    upgraded(daemon)
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"typed")
    assert vm.read(5) == b"typed"
    assert (tls_helpers(daemon), daemon.status()["certificate"]) == (helpers, certificate)


def test_worker_that_dies_after_an_upgrade_is_replaced_where_it_was(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"r")
    vm.read(1)
    upgraded(daemon)
    pid = daemon.worker(vm.name)
    processes.kill(pid)
    daemon.wait_console(vm.name, lambda c: bool(c["worker"] and c["worker"]["pid"] != pid), "goes on")
    vm.send(b"still there")
    assert client.read(11) == b"still there"


def test_hung_worker_does_not_hold_an_upgrade_up(daemon: Daemon, dial: Dial) -> None:
    vm, other = dial(name="hung"), dial(name="other")
    pid = daemon.worker(vm.name)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(400):  # more settings than its channel has room for
        daemon.request({"type": "reload"})
    upgraded(daemon)
    until(lambda: processes.session_of(pid) is None, "the hung one was killed")
    other.send(b"fine")
    daemon.wait_console(other.name, lambda c: bool(c["bytes_in"] == 4), "is heard")


def test_refused_vms_are_remembered(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("proxy.allow=[192.0.2.0/24]")
    socket.create_connection(daemon.proxy).close()
    until(daemon.refused, "it is refused")
    before = daemon.refused()
    upgraded(daemon)
    assert daemon.refused() == before


# The workers


def test_workers_are_renewed_with_all_that_they_serve(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    clients = []
    for vm in vms:
        client = stack.enter_context(TcpClient(daemon.port(vm.name)))
        client.send(b"r")
        vm.read(1)
        vm.send(b"before,")
        clients.append(client)
    before = {daemon.worker(vm.name) for vm in vms}
    done = daemon.ctl("upgrade", "--workers", timeout=90)
    assert "3 workers renewed" in done.stdout, done
    for vm, client in zip(vms, clients):
        vm.send(b"after")
        assert client.read(12) == b"before,after"
        client.send(b"typed")
        assert vm.read(5) == b"typed"
    assert before & {daemon.worker(vm.name) for vm in vms} == set()
    assert "vm-disconnected" not in daemon.log()
    assert all(processes.session_of(pid) is None for pid in before)


def test_renewed_workers_run_the_new_code(changeable: Daemon, installed: Installed) -> None:
    with changeable.dial() as vm:
        installed.change("workers/shell.py", r'f"vspcd: \{visible\(title\)\}"', 'f"newer: {visible(title)}"')
        assert changeable.ctl("upgrade", "--workers", timeout=90).returncode == 0
        pid = changeable.worker(vm.name)
        until(lambda: processes.title(pid).startswith("newer: web01"), "the new code runs")


def test_renewal_stops_at_the_first_new_worker_that_dies(changeable: Daemon, installed: Installed) -> None:
    with changeable.dial(name="a") as first, changeable.dial(name="b") as second:
        before = {changeable.worker(vm.name) for vm in (first, second)}
        installed.change(
            "workers/inheritance.py",
            r'^        reached\("resume.begin"\)$',
            "        raise RuntimeError('new bug')",
        )
        done = changeable.ctl("upgrade", "--workers", timeout=90)
        assert done.returncode == 1
        assert "0 of 2 workers are renewed" in done.stderr
        assert (
            len(before & {console["worker"]["pid"] for console in changeable.consoles() if console["worker"]})
            == 1
        )


def test_renewed_tls_helpers_take_new_vms_and_the_old_ones_keep_theirs(
    start_daemon: StartDaemon, tmp_path: Path, stack: ExitStack
) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "vspcd").settings)
    old = dialled(daemon, stack.enter_context(TlsVm(daemon.proxy, name="old")))
    (helper,) = tls_helpers(daemon)
    assert daemon.ctl("upgrade", "--workers", timeout=90).returncode == 0
    new = dialled(daemon, stack.enter_context(TlsVm(daemon.proxy, name="new")))
    for vm in (old, new):
        vm.send(b"heard")
        daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 5), "is heard")
    assert helper in tls_helpers(daemon)
    old.close()
    until(lambda: helper not in tls_helpers(daemon), "it ends with its last VM")
    assert "tls-helper-died" not in daemon.log()


# Another version, or none.


def test_reload_upgrades_when_another_version_is_on_the_disk(
    changeable: Daemon, installed: Installed
) -> None:
    installed.version("99.2")
    done = changeable.ctl("reload", timeout=90)
    assert "to 99.2" in done.stdout
    assert changeable.status()["version"] == "99.2"


def test_sighup_upgrades_when_another_version_is_on_the_disk(
    changeable: Daemon, installed: Installed
) -> None:
    installed.version("99.3")
    changeable.signal(signal.SIGHUP)
    until(lambda: changeable.status()["version"] == "99.3", "the new version answers")


def goes_on(daemon: Daemon, words: str) -> None:
    """The upgrade is refused with these words, and the running version serves as before."""
    before = daemon.status()["version"]
    with daemon.dial() as vm:
        done = daemon.ctl("upgrade", timeout=90)
        assert done.returncode == 1
        assert words in done.stderr
        vm.send(b"as before")
        daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 9), "is heard")
    assert daemon.status()["version"] == before
    daemon.wait_log("upgrade-refused")


@pytest.mark.parametrize("module", ["vspcd/claims.py", "workers/vmware.py", "workers/tls_helper.py"])
def test_version_that_cannot_be_imported_is_refused(
    changeable: Daemon, installed: Installed, module: str
) -> None:
    installed.write(module, "raise RuntimeError('a broken package')\n")
    goes_on(changeable, "a broken package")


def test_version_that_does_not_understand_our_state_is_refused(
    changeable: Daemon, installed: Installed
) -> None:
    installed.change("vspcd/handover.py", r"^FORMAT = \d+$", "FORMAT = 1000")
    goes_on(changeable, "format")


def test_version_that_hangs_is_refused(changeable: Daemon, installed: Installed) -> None:
    installed.write("vspcd/claims.py", "import threading\n\nthreading.Event().wait()\n")
    goes_on(changeable, "did not answer within")


def test_upgrade_with_a_mistake_in_the_configuration_is_refused(
    root: Path, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    config = tmp_path / "vspcd.yaml"
    config.write_text("log_level: info\n")
    daemon = start_daemon(config=config)
    config.write_text("log_levle: info\n")
    goes_on(daemon, "log_levle")


def test_changed_listener_is_open_after_an_upgrade(
    start_daemon: StartDaemon, tmp_path: Path, root: Path, stack: ExitStack
) -> None:
    port = free_range(1)
    config = tmp_path / "vspcd.yaml"
    config.write_text("clients:\n  max: 5\n")
    daemon = Daemon(root, config=config)
    daemon.settings = ("admin.listen=[127.0.0.1:0]", "ports.first=0", "proxy.listen=[127.0.0.1:0]")
    stack.callback(daemon.clean_up)
    daemon.settings = daemon.settings[:2]
    config.write_text("proxy:\n  listen: ['127.0.0.1:0']\n")
    daemon.start()
    vm = stack.enter_context(daemon.dial())
    config.write_text(f"proxy:\n  listen: ['127.0.0.1:{port}']\n")
    upgraded(daemon)
    assert daemon.proxy == ("127.0.0.1", port)
    other = stack.enter_context(daemon.dial(name="other"))
    for each in (vm, other):
        each.send(b"heard")
        daemon.wait_console(each.name, lambda c: bool(c["bytes_in"] == 5), "is heard")
    daemon.stop()


def test_signal_between_two_versions_is_obeyed_by_the_second(root: Path, stack: ExitStack) -> None:
    daemon = Daemon(root)
    points = root / "points"
    points.mkdir()
    daemon.environment = {"VSPCD_FAILPOINTS": str(points)}
    stack.callback(daemon.clean_up)
    daemon.start()
    armed = daemon.arm("upgrade.exec", "stop")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(str(root / "run" / "control.sock"))
        control.send(json.dumps({"type": "upgrade", "workers": False}).encode())
        until(lambda: not armed.exists() and processes.state(daemon.pid) == "T", "it is between two versions")
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGCONT)
        assert daemon.wait_end() == 0
    assert list((root / "run").iterdir()) == []
