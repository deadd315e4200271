"""A client that does not read is nobody's trouble but its own, and it loses nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.system import processes
from tests.system.clients import SocketClient, TcpClient, TelnetClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import numbered
from tests.system.vm import FakeVm

LINES = 1024
CHUNK = 64 * LINES
MIB = 1 << 20


def stream(vm: FakeVm, reader: SocketClient, chunks: int) -> bytes:
    """The VM says so many 64 KiB while reader takes them as they come; returns what the VM said."""
    said = []
    for number in range(chunks):
        said.append(numbered(number * LINES, LINES))
        vm.send(said[-1])
        assert reader.read(CHUNK) == said[-1]
    return b"".join(said)


def raw_tcp(daemon: Daemon, vm: FakeVm) -> TcpClient:
    client = TcpClient(daemon.port(vm.name), receive_buffer=4096)
    client.send(b"!")
    assert vm.read(1) == b"!"
    return client


def unix(daemon: Daemon, vm: FakeVm) -> UnixClient:
    before = len(daemon.console(vm.name)["clients"])
    client = UnixClient(daemon.socket_path(vm.name))
    daemon.wait_clients(vm.name, before + 1)
    return client


@pytest.mark.parametrize("sort", [raw_tcp, unix])
def test_others_go_on_memory_is_flat_and_the_sleeper_gets_it_all(
    sort: Callable[[Daemon, FakeVm], SocketClient], start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial())
    sleeper = stack.enter_context(sort(daemon, vm))
    reader = stack.enter_context(unix(daemon, vm))
    said = stream(vm, reader, 16)
    before = processes.private_bytes(daemon.worker(vm.name))
    said += stream(vm, reader, 384)
    assert processes.private_bytes(daemon.worker(vm.name)) - before < 2 * MIB
    assert sleeper.read(len(said)) == said


def test_sleeper_gets_it_all_across_rotated_logs(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("log.max_size=1M", "log.keep=20")
    vm = stack.enter_context(daemon.dial())
    sleeper, reader = stack.enter_context(raw_tcp(daemon, vm)), stack.enter_context(unix(daemon, vm))
    said = stream(vm, reader, 160)
    assert sleeper.read(len(said)) == said


def test_client_further_behind_than_allowed_is_moved_forward_and_told_how_far(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("log.dir=off", "clients.max_lag=256K")
    vm = stack.enter_context(daemon.dial())
    sleeper = stack.enter_context(TelnetClient(daemon.port(vm.name)))
    sleeper.negotiated()
    reader = stack.enter_context(unix(daemon, vm))
    said = stream(vm, reader, 384)
    vm.send(b"the end")
    seen = sleeper.read_until(b"the end")
    notices = re.findall(rb"\r?\n?\[vspcd: (\d+) bytes skipped\]\r\n", seen)
    kept = re.sub(rb"(?:\r\n)?\[vspcd: \d+ bytes skipped\]\r\n", b"", seen)
    assert notices
    assert sum(map(int, notices)) + len(kept) == len(said) + 7


def test_vm_that_does_not_read_stalls_only_those_who_type(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial())
    typist = stack.enter_context(unix(daemon, vm))
    reader = stack.enter_context(unix(daemon, vm))
    stuck = type_until_stuck(typist)
    said = stream(vm, reader, 16)
    assert typist.read(len(said)) == said
    assert vm.read(stuck) == b"x" * stuck


def type_until_stuck(typist: SocketClient) -> int:
    """Types until nobody takes any more; the count of bytes that were taken. More than 64 MiB is a leak."""
    typist.socket.settimeout(1)
    taken = 0
    while taken < 64 * MIB:
        try:
            taken += typist.socket.send(b"x" * CHUNK)
        except socket.timeout:
            return taken
    raise AssertionError("64 MiB were taken for a VM that reads nothing")
