"""Who does not get a console, and how an operator learns why."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.system import processes
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import (
    DO_PROXY,
    IAC,
    KNOWN_1,
    KNOWN_2,
    SB,
    UNKNOWN_1,
    UNKNOWN_2,
    VC_UUID,
    VMWARE,
    WONT_PROXY,
    FakeVm,
    vmware,
)
from tests.system.wait import Deadline, until

HURRY = "proxy.handshake_timeout=1s"
MIB = 1 << 20


def introduce(vm: FakeVm) -> FakeVm:
    """Up to the agreement on the extension, and no further."""
    for step in vm.steps()[:4]:
        vm.take_step(step)
    vm.until(lambda: KNOWN_2 in vm.vmware_codes(), "hears what is known")
    return vm


def flood(vm: FakeVm) -> None:
    """Sends one letter until the connection is closed."""
    deadline = Deadline("a flood is cut short")
    while True:
        try:
            vm.send_raw(b"A" * 65536, deadline.left())
        except (BrokenPipeError, ConnectionResetError):
            return


@pytest.mark.parametrize(
    "what",
    [
        {"uri": "elsewhere"},
        {"uri": "telnet://10.0.0.1:23", "direction": "C"},
        {"uri": "vSPC.py?port=../../etc"},
    ],
)
def test_vm_that_asks_for_another_service_is_told_so_and_remembered(
    what: dict[str, str], daemon: Daemon, stack: ExitStack
) -> None:
    vm = introduce(stack.enter_context(FakeVm(daemon.proxy, **what)))
    vm.send_raw(vmware(DO_PROXY, vm.direction.encode() + vm.uri.encode()))
    vm.hear_code(WONT_PROXY)
    assert daemon.wait_refusal(vm.uri)["peer"] == vm.address
    assert daemon.consoles() == []


@pytest.mark.parametrize("spelling", [b"", b"   ", b"/etc/x", b"0123", b"g" * 32, b"\xff" * 40])
def test_vm_without_a_proper_uuid_is_hung_up_on_and_remembered(
    spelling: bytes, daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, spelling))
    vm.wait_closed()
    assert daemon.wait_refusal("UUID")["peer"] == vm.address
    assert daemon.consoles() == []


def test_vm_from_a_network_that_is_not_allowed_is_hung_up_on(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("proxy.allow=[127.0.0.2/32]")
    vm = stack.enter_context(FakeVm(daemon.proxy))
    vm.wait_closed()
    assert daemon.wait_refusal("allow")["peer"] == vm.address


def test_vm_from_an_allowed_network_is_welcome(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.allow=[127.0.0.2/32]")
    vm = stack.enter_context(daemon.dial(source="127.0.0.2"))
    daemon.wait_state(vm.name, "connected")


def test_silent_peer_is_told_whose_port_this_is(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(HURRY)
    vm = stack.enter_context(FakeVm(daemon.proxy))
    vm.wait_closed()
    assert b"VM" in bytes(vm.data)
    assert daemon.wait_refusal("telnet extension")["peer"] == vm.address


def test_peer_that_is_no_vm_is_told_whose_port_this_is(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(HURRY)
    vm = stack.enter_context(FakeVm(daemon.proxy))
    vm.send_raw(b"GET / HTTP/1.0\r\n\r\n")
    vm.wait_closed()
    assert b"VM" in bytes(vm.data)


def test_vm_that_never_says_who_it_is_meets_the_deadline(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(HURRY)
    vm = introduce(stack.enter_context(FakeVm(daemon.proxy)))
    vm.wait_closed()
    assert daemon.wait_refusal("DO-PROXY")["peer"] == vm.address


def test_trickle_does_not_put_off_the_deadline(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(HURRY)
    vm = stack.enter_context(FakeVm(daemon.proxy))

    def trickle() -> bool:
        try:
            vm.send_raw(bytes([IAC, 241]))
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    until(trickle, "a peer that sends a NOP now and then is hung up on", 10)


def test_endless_subnegotiation_is_cut_short(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    vm.send_raw(bytes([IAC, SB, VMWARE]))
    flood(vm)
    assert daemon.wait_refusal("subnegotiation")["peer"] == vm.address


def test_endless_subnegotiation_of_a_known_vm_costs_its_connection_alone(daemon: Daemon, dial: Dial) -> None:
    vm, other = dial(name="bad"), dial(name="good")
    pid = daemon.worker("bad")
    before = processes.private_bytes(pid)
    vm.send_raw(bytes([IAC, SB, VMWARE]) + b"A" * 16000)
    until(lambda: processes.private_bytes(pid) - before < MIB, "the worker holds less than a MiB of it")
    flood(vm)
    daemon.wait_state("bad", "waiting")
    other.send(b"still here")
    daemon.wait_console("good", lambda c: c["bytes_in"] == 10, "is heard")


def test_too_many_unidentified_peers_are_turned_away(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.max_pending=3")
    for _ in range(3):
        introduce(stack.enter_context(FakeVm(daemon.proxy)))
    late = stack.enter_context(FakeVm(daemon.proxy))
    late.wait_closed()
    assert daemon.wait_refusal("proxy.max_pending")["peer"] == late.address


def test_place_of_an_unidentified_peer_is_free_again_when_it_leaves(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("proxy.max_pending=1")
    introduce(stack.enter_context(FakeVm(daemon.proxy))).close()

    def connects() -> bool:
        with FakeVm(daemon.proxy) as vm:
            try:
                vm.handshake()
            except (AssertionError, BrokenPipeError, ConnectionResetError):
                return False
            return True

    until(connects, "a VM gets the place")


def test_identified_vms_are_not_counted_as_unidentified(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.max_pending=1")
    for number in range(5):
        vm = stack.enter_context(daemon.dial(name=f"vm{number}"))
        daemon.wait_state(vm.name, "connected")


def test_one_source_cannot_take_the_places_of_others(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.max_pending_per_source=2")
    for _ in range(2):
        introduce(stack.enter_context(FakeVm(daemon.proxy)))
    stack.enter_context(FakeVm(daemon.proxy)).wait_closed()
    vm = stack.enter_context(daemon.dial(source="127.0.0.2"))
    daemon.wait_state(vm.name, "connected")


def test_silent_peers_hold_up_nobody(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    for _ in range(20):
        stack.enter_context(socket.create_connection(daemon.proxy, timeout=10))
    vm = dial()
    daemon.wait_state(vm.name, "connected")


def test_unknown_command_is_answered_and_the_connection_goes_on(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.send_raw(vmware(99, b"what is this"))
    vm.hear_code(UNKNOWN_2, bytes([99]))
    vm.send(b"alive")
    daemon.wait_console(vm.name, lambda c: c["bytes_in"] == 5, "is heard")


@pytest.mark.parametrize("code", [UNKNOWN_1, UNKNOWN_2, KNOWN_1])
def test_words_about_unknown_commands_are_never_answered(code: int, daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    before = len(vm.heard)
    vm.send_raw(vmware(code, b"\x63") + vmware(99))
    vm.hear_code(UNKNOWN_2, bytes([99]))
    assert len(vm.heard) == before + 1
