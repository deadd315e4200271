"""A worker is killed in mid-stream: its VM and its clients stay, and no byte is lost, doubled or out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

from tests.system import processes
from tests.system.clients import TcpClient, one_of_each
from tests.system.conftest import Dial
from tests.system.daemon import Daemon
from tests.system.vm import FakeVm, Sub
from tests.system.wait import until

KILLS = 8
"""Every second one comes after what was said has been dealt with: three deaths without progress would be the end."""


def pieces(seed: int) -> Iterator[bytes]:
    """Random bytes, every value among them, in pieces of any length."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        yield bytes(chance.randrange(256) for _ in range(chance.randrange(1, 20000)))


def kill_worker(daemon: Daemon, name: str) -> None:
    """Kill it, and wait until another one has its place."""
    pid = daemon.worker(name)
    processes.kill(pid)
    until(lambda: (daemon.console(name)["worker"] or {"pid": pid})["pid"] != pid, "another worker goes on")


def settled(daemon: Daemon, name: str, size: int) -> None:
    """Wait until the log has that much."""
    log = daemon.log_file(name)
    until(lambda: log.stat().st_size == size, f"{size} bytes are logged")


def test_what_the_vm_says_is_whole_in_the_log_and_at_every_client(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    raw, telnet, unix = one_of_each(daemon, vm, stack)
    said = b""
    for number, piece in enumerate(pieces(1)):
        vm.send(piece)
        said += piece
        if number % 2:
            settled(daemon, vm.name, len(said))
        kill_worker(daemon, vm.name)
    assert raw.read(len(said)) == said
    assert telnet.read(len(said)) == said
    assert unix.read(len(said)) == said
    assert daemon.log_file(vm.name).read_bytes() == said
    assert "vm-disconnected" not in daemon.log()


def test_what_clients_type_is_whole_at_the_vm(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    raw = stack.enter_context(TcpClient(daemon.port(vm.name)))
    typed = arrived = b""
    for number, piece in enumerate(pieces(2)):
        raw.send(piece)
        typed += piece
        if number % 2:
            arrived += vm.read(len(typed) - len(arrived))
        kill_worker(daemon, vm.name)
    assert arrived + vm.read(len(typed) - len(arrived)) == typed


def test_typing_that_waits_for_a_vm_that_does_not_read_is_not_typed_twice(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    raw = stack.enter_context(TcpClient(daemon.port(vm.name)))
    typed = bytes(range(256)) * 2000
    sent = 0
    while sent < len(typed):
        raw.send(typed[sent : sent + 8000])
        sent += 8000
        if sent % 128000 == 0:
            kill_worker(daemon, vm.name)
    assert vm.read(len(typed)) == typed


def test_a_vms_requests_are_answered_once_whatever_dies(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    for code in range(200, 200 + KILLS):
        ask_for_nothing_known(vm, code)
        if code % 2:
            answered(vm, code)
        kill_worker(daemon, vm.name)
    vm.send(b"done")
    daemon.wait_console(vm.name, lambda console: bool(console["bytes_in"] == 4), "has heard the end")
    vm.until(lambda: unknown_codes(vm) == list(range(200, 200 + KILLS)), "each code is answered once")


def ask_for_nothing_known(vm: FakeVm, code: int) -> None:
    vm.send_raw(bytes((255, 250, 232, code, 255, 240)))


def answered(vm: FakeVm, code: int) -> None:
    vm.until(lambda: code in unknown_codes(vm), "it is answered")


def unknown_codes(vm: FakeVm) -> list[int]:
    """The codes that were answered with UNKNOWN-SUBOPTION-RCVD-2, in order."""
    return [token.payload[1] for token in vm.heard if isinstance(token, Sub) and token.payload[:1] == b"\x03"]
