"""Out of descriptors, processes or memory: who is there stays, nothing spins, and it ends by itself."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.pressure import close, cpu_share, descriptors_for, exchange, knock, limited
from tests.system.vm import FakeVm
from tests.system.wait import until

IDLE = 0.1  # of one core
LOOK = 1.5  # seconds
LOW_LIMIT = 200


@contextmanager
def without_descriptors(daemon: Daemon) -> Iterator[None]:
    """The master cannot open another descriptor."""
    with limited(daemon.pid, resource.RLIMIT_NOFILE, descriptors_for(daemon.pid, 0)):
        yield


@contextmanager
def taken_by_vms(daemon: Daemon) -> Iterator[None]:
    """VMs have taken all the descriptors that they can have."""
    proxy = daemon.proxy
    with limited(daemon.pid, resource.RLIMIT_NOFILE, LOW_LIMIT):
        storm = knock(proxy, LOW_LIMIT)
        try:
            daemon.wait_log("accept-paused", "listener=proxy", "Too many open files")
            yield
        finally:
            close(storm)


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """Whoever has come without saying who it is stays for as long as a test lasts."""
    return start_daemon("proxy.handshake_timeout=60s")


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial()


@pytest.fixture
def client(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> TcpClient:
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"!")
    assert vm.read(1) == b"!"
    return client


def test_without_descriptors_who_is_there_goes_on(daemon: Daemon, vm: FakeVm, client: TcpClient) -> None:
    proxy = daemon.proxy
    with without_descriptors(daemon):
        waiting = knock(proxy, 5)
        daemon.wait_log("accept-paused", "listener=proxy", "Too many open files")
        assert max(exchange(client, vm) for _ in range(20)) < 1
        close(waiting)
    assert daemon.consoles()[0]["state"] == "connected"


def test_without_descriptors_nothing_spins(daemon: Daemon, vm: FakeVm) -> None:
    proxy, port = daemon.proxy, daemon.port(vm.name)
    with without_descriptors(daemon):
        waiting = knock(proxy, 5) + knock(port, 5)
        daemon.wait_log("accept-paused", "listener=proxy")
        share = cpu_share(daemon.pid, LOOK)
        close(waiting)
    assert share < IDLE


def test_vms_that_waited_for_descriptors_are_served_when_there_are_some(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    proxy = daemon.proxy
    with without_descriptors(daemon):
        waiting = [stack.enter_context(FakeVm(proxy, name=f"late{number}")) for number in range(5)]
        daemon.wait_log("accept-paused", "listener=proxy")
    for late in waiting:
        late.handshake()
    daemon.wait_log("accept-resumed", "listener=proxy")
    for late in waiting:
        daemon.wait_state(late.name, "connected")


def test_vms_leave_descriptors_for_those_who_work_on_consoles(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    port = daemon.port(vm.name)
    with taken_by_vms(daemon):
        clients = [stack.enter_context(TcpClient(port)) for _ in range(6)]
        for number, client in enumerate(clients):
            client.send(bytes([number]))
        assert sorted(vm.read(len(clients))) == list(range(len(clients)))
        assert daemon.ctl("status").returncode == 0


def test_a_worker_that_dies_when_vms_have_taken_the_descriptors_is_replaced(
    daemon: Daemon, vm: FakeVm, client: TcpClient
) -> None:
    pid = daemon.worker(vm.name)
    with taken_by_vms(daemon):
        processes.kill(pid)
        exchange(client, vm)
        assert daemon.worker(vm.name) != pid


def test_a_console_that_finds_no_descriptors_opens_later(daemon: Daemon, stack: ExitStack) -> None:
    """Its VM has been let in already; its listeners are missing for a while."""
    vm = stack.enter_context(FakeVm(daemon.proxy))
    for step in vm.steps()[:4]:
        vm.take_step(step)
    with without_descriptors(daemon):
        for step in vm.steps()[4:]:
            vm.take_step(step)
        daemon.wait_log("no-socket")
    with UnixClient(daemon.socket_path(vm.name)) as client:
        exchange(client, vm)


@contextmanager
def system_without_files(daemon: Daemon) -> Iterator[None]:
    """Nobody on this machine can open another file, as the master sees it: ENFILE at every accept."""
    inject = "inject=accept,accept4:error=ENFILE"
    command = ["strace", "-q", "-o", "/dev/null", "-e", inject, "-p", str(daemon.pid)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            until(lambda: traced_by(daemon.pid) == strace.pid, "the master is traced")
            yield
        finally:
            strace.terminate()


def traced_by(pid: int) -> int:
    text = processes.read(pid, "status") or ""
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("TracerPid:")))


def can_trace() -> bool:
    """Whether there is strace, and a process may be traced here."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode
        == 0
    )


@pytest.mark.skipif(not can_trace(), reason="strace cannot be used here")
def test_on_a_system_without_files_nothing_spins_and_who_is_there_goes_on(
    daemon: Daemon, vm: FakeVm, client: TcpClient, stack: ExitStack
) -> None:
    proxy = daemon.proxy
    with system_without_files(daemon):
        late = stack.enter_context(FakeVm(proxy, name="late"))
        daemon.wait_log("accept-paused", "listener=proxy", "Too many open files in system")
        share = cpu_share(daemon.pid, LOOK)
        exchange(client, vm)
    assert share < IDLE
    late.handshake()
    daemon.wait_state(late.name, "connected")
