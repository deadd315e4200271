"""Many who come at once, silently or slowly, and one that says too much: the others feel nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from uuid import uuid4

import pytest

from tests.system import estate, processes
from tests.system.clients import UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Address, Daemon
from tests.system.flood import Flood
from tests.system.pressure import close, exchange, forget_peak, knock, peak_bytes
from tests.system.test_many import connected, settled
from tests.system.vm import IAC, SB, VMWARE, FakeVm, close_all, dial_all
from tests.system.wait import Deadline, throughout, until

PATIENT = "proxy.handshake_timeout=60s"
VERY_PATIENT = "proxy.handshake_timeout=10m"  # so many forks take minutes on a busy machine
MIB = 1 << 20
SOON = 1.0  # of an answer on a busy machine; alone it takes less than a millisecond
AT_ONCE = 10.0  # far below the deadline of those who are silent
EXCHANGES = 100
FLOODED = 15.0  # seconds


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial(name="quiet")


@pytest.fixture
def client(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> UnixClient:
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    return client


def text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


DOORS: dict[str, Callable[[Daemon], str]] = {
    "proxy": lambda daemon: text(daemon.proxy),
    "admin": lambda daemon: text(daemon.listener("admin")),
    "port": lambda daemon: text(daemon.port("other")),
    "socket": lambda daemon: daemon.socket_path("other"),
    "control": lambda daemon: str(daemon.root / "run" / "control.sock"),
}


def processor_seconds(daemon: Daemon) -> float:
    """What all its processes have used."""
    return sum(processes.processor_seconds(pid) for pid in daemon.members())


# Connections


@pytest.mark.parametrize("door", list(DOORS))
def test_a_flood_of_connections_disturbs_nobody(
    door: str, daemon: Daemon, dial: Dial, vm: FakeVm, client: UnixClient
) -> None:
    dial(name="other")
    with Flood("knock", DOORS[door](daemon)):
        times = [exchange(client, vm) for _ in range(EXCHANGES)]
        late = dial(name="late")
        assert late.name in daemon.ctl("list").stdout
    assert max(times) < SOON


@pytest.mark.parametrize("door", list(DOORS))
def test_a_flood_of_connections_leaves_nothing_behind(door: str, daemon: Daemon, dial: Dial) -> None:
    dial(name="other")
    address = DOORS[door](daemon)
    daemon.status()
    files, members = len(processes.open_files(daemon.pid)), len(daemon.members())
    with Flood("knock", address):
        throughout(lambda: True, 1)
    until(lambda: len(daemon.members()) <= members, "all processes are gone")
    until(lambda: len(processes.open_files(daemon.pid)) <= files, "all descriptors are closed")


# Those who are slow


def test_vms_do_not_wait_behind_silent_peers(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(PATIENT)
    for host in range(2, 5):
        stack.callback(close, knock(daemon.proxy, 100, f"127.0.0.{host}"))
    until(lambda: daemon.status()["totals"]["pending"] == 300, "all are being waited for")
    begun = time.monotonic()
    vms = dial_all(daemon.proxy, [{"name": f"vm{number}"} for number in range(20)])
    stack.callback(close_all, vms)
    assert time.monotonic() - begun < AT_ONCE
    assert daemon.status()["totals"]["pending"] == 300


@pytest.mark.long
@pytest.mark.timeout(300)
def test_vms_do_not_wait_behind_thousands_of_silent_and_slow_peers(
    start_daemon: StartDaemon, stack: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = start_daemon(VERY_PATIENT, "proxy.max_pending=3000")
    silent = [sock for host in range(2, 5) for sock in knock(daemon.proxy, 800, f"127.0.0.{host}")]
    stack.callback(close, silent)
    for sock in silent[::2]:
        sock.sendall(bytes([IAC]))
    until(lambda: daemon.status()["totals"]["pending"] == len(silent), "all are being waited for", 200)
    begun = time.monotonic()
    vms = dial_all(daemon.proxy, [{"name": f"vm{number}"} for number in range(100)])
    stack.callback(close_all, vms)
    took = time.monotonic() - begun
    with capsys.disabled():
        sys.stderr.write(f"\n100 VMs beside {len(silent)} silent peers: {took:.1f} s\n")
    assert took < AT_ONCE


# Those who say too much


def test_an_endless_subnegotiation_costs_no_memory(daemon: Daemon, vm: FakeVm, client: UnixClient) -> None:
    pid = daemon.worker(vm.name)
    exchange(client, vm)
    forget_peak(pid)
    before = peak_bytes(pid)
    vm.send_raw(bytes([IAC, SB, VMWARE]))
    deadline = Deadline("the endless message is cut short")
    sent = 0
    try:
        while sent < 64 * MIB:
            vm.send_raw(b"A" * 65536, deadline.left())
            sent += 65536
    except (BrokenPipeError, ConnectionResetError):
        pass
    daemon.wait_state(vm.name, "waiting")
    daemon.wait_log("vm-disconnected", "subnegotiation")
    assert daemon.worker(vm.name) == pid
    assert peak_bytes(pid) - before <= MIB


@pytest.mark.long
def test_a_vm_that_says_all_it_can_delays_nobody(
    daemon: Daemon,
    vm: FakeVm,
    client: UnixClient,
    stack: ExitStack,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Demand: 100 MB/s and more of one VM, with a client that never reads; p99 of another console 50 ms."""
    stack.enter_context(Flood("pour", text(daemon.proxy), "flood"))
    stack.enter_context(UnixClient(daemon.socket_path("flood")))
    worker = daemon.worker("flood")
    exchange(client, vm)
    memory, said, begun = (
        processes.private_bytes(worker),
        daemon.console("flood")["bytes_in"],
        time.monotonic(),
    )
    times = []
    while time.monotonic() < begun + FLOODED:
        times.append(exchange(client, vm))
        throughout(lambda: True, 0.005)
    times.sort()
    seconds = time.monotonic() - begun
    rate = (daemon.console("flood")["bytes_in"] - said) / seconds / 1e6
    grown = processes.private_bytes(worker) - memory
    middle, p99, most = (1000 * times[at] for at in (len(times) // 2, len(times) * 99 // 100, -1))
    for name, value in (("rate_mb_s", rate), ("p50_ms", middle), ("p99_ms", p99), ("most_ms", most)):
        record_property(name, round(value, 1))
    with capsys.disabled():
        sys.stderr.write(
            f"\n{rate:.0f} MB/s of one VM for {seconds:.0f} s; another console answers in {middle:.2f} ms in the "
            f"median, {p99:.1f} p99, {most:.1f} at most (demand: 50 p99); its worker grew by {grown >> 10} KiB\n"
        )
    assert grown < 2 * MIB
    assert p99 < 1000 * SOON


@pytest.mark.long
@pytest.mark.timeout(300)
def test_1000_vms_at_once(
    start_daemon: StartDaemon,
    stack: ExitStack,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Demand: all identified within 5 s."""
    daemon = start_daemon(VERY_PATIENT)
    ports = [estate.Port(f"vm{number:04}", str(uuid4()), f"127.0.1.{number % 10}") for number in range(1000)]
    before = processor_seconds(daemon)
    begun = time.monotonic()
    callers = estate.dial_in(daemon.proxy, ports, 200)
    stack.callback(estate.close_all, callers)
    until(lambda: connected(daemon) == len(ports), "all are connected", 200)
    took = time.monotonic() - begun
    cost = processor_seconds(daemon) - before
    until(lambda: settled(daemon) == len(ports), "all are named and open", 60)
    record_property("identified_s", round(took, 1))
    record_property("processor_s", round(cost, 1))
    with capsys.disabled():
        sys.stderr.write(
            f"\n1000 VMs at once: all identified after {took:.1f} s (demand: 5 s); processors: {cost:.1f} s\n"
        )
    assert daemon.refused() == []
