"""The system has no room for another process: who is there stays, nothing spins, and it ends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient
from tests.system.pressure import cpu_share, exchange
from tests.system.unprivileged import UnprivilegedDaemon
from tests.system.vm import FakeVm
from tests.system.wait import until

IDLE = 0.1  # of one core
LOOK = 1.5  # seconds


@pytest.fixture
def daemon(root: Path, stack: ExitStack) -> Iterator[UnprivilegedDaemon]:
    daemon = UnprivilegedDaemon(root)
    stack.callback(daemon.clean_up)
    daemon.start()
    yield daemon
    print(daemon.log())


@pytest.fixture
def vm(daemon: UnprivilegedDaemon, stack: ExitStack) -> FakeVm:
    return stack.enter_context(daemon.dial())


@pytest.fixture
def client(daemon: UnprivilegedDaemon, vm: FakeVm, stack: ExitStack) -> TcpClient:
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"!")
    assert vm.read(1) == b"!"
    return client


def test_without_processes_who_is_there_goes_on(
    daemon: UnprivilegedDaemon, vm: FakeVm, client: TcpClient
) -> None:
    with daemon.without_processes():
        with FakeVm(daemon.proxy) as late:
            late.wait_closed()
        assert max(exchange(client, vm) for _ in range(20)) < 1


def test_a_vm_that_finds_no_process_is_refused_with_the_reason(
    daemon: UnprivilegedDaemon, vm: FakeVm
) -> None:
    with daemon.without_processes(), FakeVm(daemon.proxy) as late:
        late.wait_closed()
        assert daemon.wait_refusal("no worker could be started")["peer"] == late.address


def test_without_processes_nothing_spins(daemon: UnprivilegedDaemon, vm: FakeVm, stack: ExitStack) -> None:
    with daemon.without_processes():
        for _ in range(20):
            stack.enter_context(FakeVm(daemon.proxy))
        daemon.wait_log("accept-paused", "listener=proxy", "no worker could be started")
        assert cpu_share(daemon.pid, LOOK) < IDLE


def test_a_vm_that_dials_again_is_served_when_there_are_processes(
    daemon: UnprivilegedDaemon, stack: ExitStack
) -> None:
    with daemon.without_processes(), FakeVm(daemon.proxy) as late:
        late.wait_closed()
    vm = stack.enter_context(daemon.dial(uuid=late.uuid))
    daemon.wait_state(vm.name, "connected")


def test_a_client_of_a_console_without_a_worker_is_told_that_there_is_no_process(
    daemon: UnprivilegedDaemon, vm: FakeVm
) -> None:
    vm.close()
    until(lambda: daemon.console(vm.name)["worker"] is None, "its worker has ended")
    with daemon.without_processes(), TcpClient(daemon.port(vm.name)) as client:
        assert b"no worker could be started" in client.read_to_end()


def without_a_worker(daemon: UnprivilegedDaemon, vm: FakeVm) -> int:
    """The console's worker dies, and there is no process for another one; its pid."""
    pid = daemon.worker(vm.name)
    processes.kill(pid)
    daemon.wait_log("worker-not-replaced")
    return pid


def test_a_worker_that_dies_without_processes_is_replaced_when_there_are_some(
    daemon: UnprivilegedDaemon, vm: FakeVm, client: TcpClient
) -> None:
    with daemon.without_processes():
        pid = without_a_worker(daemon, vm)
        vm.send(b"said meanwhile")
        client.send(b"typed meanwhile")
    assert client.read(14) == b"said meanwhile"
    assert vm.read(15) == b"typed meanwhile"
    assert daemon.worker(vm.name) != pid


def test_a_vm_that_dials_again_while_its_worker_is_missing_has_its_console(
    daemon: UnprivilegedDaemon, vm: FakeVm, client: TcpClient, stack: ExitStack
) -> None:
    with daemon.without_processes():
        without_a_worker(daemon, vm)
        vm.close()
    again = stack.enter_context(daemon.dial(uuid=vm.uuid))
    exchange(client, again)


def test_the_daemon_ends_as_asked_while_a_worker_is_missing(daemon: UnprivilegedDaemon, vm: FakeVm) -> None:
    with daemon.without_processes():
        without_a_worker(daemon, vm)
        daemon.stop()
