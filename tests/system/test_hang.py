"""Children that live and do nothing are noticed, ended and replaced; those that have a reason are left alone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.test_master_death import armed, restarted
from tests.system.tls_peers import TlsVm, dialled, self_signed, tls_helpers
from tests.system.wait import throughout, until

NOTICED_WITHIN = 12.0
SLACK = 3.0  # of a busy machine


def replaced(daemon: Daemon, name: str, pid: int) -> None:
    """Waits until another worker goes on, for as long as it may take."""
    until(lambda: (daemon.console(name)["worker"] or {"pid": pid})["pid"] != pid, "it is replaced", 30)


def test_stopped_worker_is_replaced_and_nothing_is_lost(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"r")
    vm.read(1)
    pid, since = daemon.worker(vm.name), time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    vm.send(b"said to one that does not listen")
    client.send(b"typed too")
    assert client.read(32) == b"said to one that does not listen"
    assert vm.read(9) == b"typed too"
    assert time.monotonic() - since < NOTICED_WITHIN + SLACK
    daemon.wait_log("worker-killed", "hung")
    assert daemon.worker(vm.name) != pid


def test_worker_that_goes_on_again_in_time_is_left_alone(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    pid = daemon.worker(vm.name)
    os.kill(pid, signal.SIGSTOP)
    throughout(lambda: True, 1)
    os.kill(pid, signal.SIGCONT)
    assert throughout(lambda: daemon.worker(vm.name) == pid, 6)


def test_worker_in_an_endless_loop_is_replaced_and_nothing_is_lost(root: Path, stack: ExitStack) -> None:
    daemon = armed(root, stack)
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    pid, since = daemon.worker(vm.name), time.monotonic()
    daemon.arm("leg.peeked", "loop")
    vm.send(b"round and round")
    assert client.read(15) == b"round and round"
    assert time.monotonic() - since < NOTICED_WITHIN + SLACK
    assert daemon.worker(vm.name) != pid
    daemon.stop()


@pytest.mark.parametrize("adopted", [False, True])
def test_worker_in_an_endless_loop_for_which_nothing_waits_is_replaced(
    root: Path, stack: ExitStack, adopted: bool
) -> None:
    daemon = armed(root, stack)
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"r")
    assert vm.read(1) == b"r"
    if adopted:
        restarted(daemon)
    pid = daemon.worker(vm.name)
    point = daemon.arm("client.detach", "loop")
    stack.enter_context(UnixClient(daemon.socket_path(vm.name))).close()
    until(lambda: not point.exists(), "it is in its loop")
    since = time.monotonic()
    replaced(daemon, vm.name, pid)
    assert time.monotonic() - since < NOTICED_WITHIN + SLACK
    vm.send(b"said afterwards")
    assert client.read(15) == b"said afterwards"
    daemon.stop()


def test_workers_that_are_busy_are_left_alone(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    pid, end = daemon.worker(vm.name), time.monotonic() + 10
    while time.monotonic() < end:
        vm.send(b"round and round and round" * 2000)
        assert len(client.read(50000)) == 50000
    assert daemon.worker(vm.name) == pid
    assert "worker-killed" not in daemon.log()


def test_adopted_worker_that_is_stopped_is_replaced(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    restarted(daemon)
    pid = daemon.worker(vm.name)
    os.kill(pid, signal.SIGSTOP)
    vm.send(b"anybody?")
    assert client.read(8) == b"anybody?"
    assert daemon.worker(vm.name) != pid


def test_worker_whose_input_waits_for_a_reason_is_left_alone(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    vm.send_raw(b"\xff\xfa\xe8")  # half a message
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    other = dial(name="gone")
    waiting = stack.enter_context(UnixClient(daemon.socket_path(other.name)))
    daemon.wait_clients(other.name, 1)
    other.close()
    daemon.wait_state(other.name, "waiting")
    waiting.send(b"typed while nobody is there")
    client.send(b"x")
    vm.read(1)
    pids = {name: daemon.worker(name) for name in (vm.name, other.name)}
    assert throughout(lambda: {name: daemon.worker(name) for name in pids} == pids, 10)


def test_hung_tls_helper_is_replaced(start_daemon: StartDaemon, tmp_path: Path, stack: ExitStack) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "vspcd").settings)
    dialled(daemon, stack.enter_context(TlsVm(daemon.proxy)))
    (helper,) = tls_helpers(daemon)
    os.kill(helper, signal.SIGSTOP)
    until(lambda: helper not in tls_helpers(daemon), "it is killed")
    dialled(daemon, stack.enter_context(TlsVm(daemon.proxy, name="another")))


@pytest.mark.parametrize("number", [signal.SIGSTOP])
def test_hung_keeper_is_replaced_and_what_it_was_told_is_kept(
    daemon: Daemon, dial: Dial, number: int
) -> None:
    (keeper,) = [pid for pid, title in daemon.titles().items() if title == "vspcd: keeper"]
    os.kill(keeper, number)
    vm = dial()
    until(lambda: processes.session_of(keeper) is None, "it is killed")
    until(lambda: "vspcd: keeper" in daemon.titles().values(), "there is another one")
    port = daemon.port(vm.name)
    vm.close()
    daemon.stop()
    daemon.start()
    assert daemon.port(vm.console) == port
