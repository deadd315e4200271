"""A VM that dials again: who gets the console, what is kept, and what nobody must hear twice."""

from __future__ import annotations

import ctypes
import socket
import time

import pytest

from tests.workers.bench import HOST, OTHER_HOST, Bench, Vm, tcp_pair
from vspcd.core.identity import PROBE_SECONDS
from vspcd.proto import attach
from vspcd.proto.vmware import WILL_PROXY
from vspcd.unix.loop import Loop
from vspcd.unix.page import LEG
from workers.contest import Contest, Newcomer
from workers.leg import Leg

SO_ATTACH_FILTER = 26
TCP_QUICKACK = socket.TCP_QUICKACK


def fall_silent(sock: socket.socket) -> None:
    """From now on the kernel drops what comes for this socket: its host looks as if it had vanished."""
    accept_nothing = (ctypes.c_uint64 * 1).from_buffer(bytearray(b"\x06\x00\x00\x00\x00\x00\x00\x00"))
    program = ctypes.create_string_buffer(16)
    ctypes.c_ushort.from_buffer(program).value = 1
    ctypes.c_void_p.from_buffer(program, 8).value = ctypes.addressof(accept_nothing)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program.raw)


def connected(bench: Bench, number: int) -> bool:
    return any(message["leg"] == number for message in bench.told("connected"))


def test_a_vm_that_dials_again_from_its_host_has_the_console_at_once(bench: Bench) -> None:
    old, tool = bench.connect(), bench.tool()
    new = bench.connect(HOST)
    assert old.ended()
    new.speak(b"new")
    bench.until(lambda: tool.seen() == b"new")
    tool.type(b"typed")
    bench.until(lambda: new.typed() == b"typed")
    assert not bench.told("detached")


def test_the_last_bytes_of_the_old_connection_come_before_the_first_of_the_new(bench: Bench) -> None:
    old, raw = bench.connect(), bench.raw()
    number, new = bench.offer(HOST)
    old.speak(b"last of the old|")
    new.speak(b"first of the new")
    bench.until(lambda: connected(bench, number))
    bench.until(lambda: raw.heard().endswith(b"new"))
    assert raw.heard() == b"last of the old|first of the new"
    assert bench.log() == raw.heard()


def test_what_came_early_with_the_claim_is_the_consoles(bench: Bench) -> None:
    raw = bench.raw()
    new = bench.connect(early=b"early|\xff".hex())
    new.speak(b"then")
    bench.until(lambda: raw.heard() == b"early|\xffthen")


def test_replies_that_the_claimant_could_not_send_go_out_first_and_once(bench: Bench) -> None:
    new = bench.connect(unsent=b"\xff\xfb\x00".hex())
    bench.until(lambda: new.frames(WILL_PROXY) == 1)
    assert new.heard().startswith(b"\xff\xfb\x00\xff\xfa")


@pytest.mark.parametrize("quick", [0, 1], ids=["delayed acknowledgement", "immediate acknowledgement"])
def test_a_vm_that_still_answers_keeps_its_console(bench: Bench, quick: int) -> None:
    old, tool = bench.connect(), bench.tool()
    old.sock.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, quick)
    _, impostor = bench.offer(OTHER_HOST)
    bench.until(lambda: bench.told("rejected") or bench.told("took")[1:])
    (rejected,) = bench.told("rejected")
    assert HOST in rejected["reason"]
    assert OTHER_HOST in rejected["reason"]
    assert not old.ended()
    bench.until(lambda: tool.payloads(attach.NOTICE))
    impostor.speak(b"password: ")
    tool.type(b"secret")
    bench.until(lambda: old.typed() == b"secret")
    assert b"secret" not in impostor.heard()
    assert bench.log() == b""


def test_a_vm_that_does_not_read_but_whose_host_answers_keeps_its_console(bench: Bench) -> None:
    bench.connect(small=True)
    raw = bench.raw()
    for _ in range(20):
        raw.offer(b"x" * 65536)
        bench.settle()
    bench.offer(OTHER_HOST)
    bench.until(lambda: bench.told("rejected") or bench.told("took")[1:])
    assert bench.told("rejected")


def test_a_vm_whose_host_has_vanished_loses_its_console_within_three_seconds(bench: Bench) -> None:
    old, tool = bench.connect(), bench.tool()
    bench.settle()
    old.heard()
    fall_silent(old.sock)
    begun = time.monotonic()
    number, new = bench.offer(OTHER_HOST)
    bench.until(lambda: connected(bench, number) or bench.told("rejected"))
    assert connected(bench, number)
    assert PROBE_SECONDS <= time.monotonic() - begun < 3
    new.speak(b"moved")
    bench.until(lambda: tool.seen() == b"moved")


@pytest.mark.parametrize("attempt", range(5))
def test_an_old_connection_that_was_reset_gives_way_to_another_host(bench: Bench, attempt: int) -> None:
    """Whether its end is noticed first, or when it is asked for a sign of life; and later ones are judged anew."""
    old = bench.connect()
    old.reset()
    number, _ = bench.offer(OTHER_HOST)
    bench.until(lambda: connected(bench, number))
    newer, _ = bench.offer(OTHER_HOST)
    bench.until(lambda: connected(bench, newer) or bench.told("rejected"))
    assert not bench.told("rejected")


def test_while_two_are_compared_a_third_is_refused_and_later_ones_are_not(bench: Bench) -> None:
    old = bench.connect()
    bench.settle()
    old.heard()
    fall_silent(old.sock)
    second, _ = bench.offer(OTHER_HOST)
    third, third_vm = bench.offer("192.0.2.3")
    bench.until(lambda: bench.told("rejected"))
    assert [message["leg"] for message in bench.told("rejected")] == [third]
    bench.until(lambda: connected(bench, second))
    bench.until(third_vm.ended)
    fourth, _ = bench.offer(OTHER_HOST)
    bench.until(lambda: connected(bench, fourth))


def test_clients_stay_over_a_reboot_and_are_there_when_the_vm_is_back(bench: Bench) -> None:
    raw, tool = bench.raw(), bench.tool()
    for boot in range(3):
        vm = bench.connect()
        vm.speak(b"boot %d|" % boot)
        bench.until(lambda boot=boot: raw.heard().endswith(b"boot %d|" % boot))  # type: ignore[misc]
        vm.close()
        bench.until(lambda: bench.worker.connection is None)
    bench.until(lambda: tool.seen() == b"boot 0|boot 1|boot 2|")
    assert raw.heard() == bench.log() == b"boot 0|boot 1|boot 2|"
    assert not bench.told("detached")


def test_the_page_names_the_leg_that_is_connected(bench: Bench) -> None:
    vm = bench.connect()
    (message,) = bench.told("connected")
    assert bench.page.words[LEG] == message["leg"]
    vm.close()
    bench.until(lambda: bench.told("disconnected"))
    assert bench.page.words[LEG] == 0


def test_when_the_master_is_gone_everything_ends(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.master.close()
    bench.until(lambda: vm.ended() and tool.ended())


# The contest itself


def contest(quick: bool, silent: bool = False) -> tuple[bool, float]:
    """The verdict on an old connection, and how long it took."""
    loop, near_far = Loop(), tcp_pair()
    near, far = near_far
    verdicts: list[bool] = []
    leg = Leg(1, near, "192.0.2.1:1")
    far.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, quick)
    if silent:
        fall_silent(far)
    begun = time.monotonic()
    Contest(
        loop, leg, Newcomer(2, "192.0.2.2:1", {}, False, -1), lambda _newcomer, alive: verdicts.append(alive)
    )
    assert verdicts == []
    while not verdicts:
        loop.turn()
    took = time.monotonic() - begun
    for each in (near, far, loop):
        each.close()
    return verdicts[0], took


@pytest.mark.parametrize("quick", [False, True])
def test_a_live_host_is_found_alive_soon(quick: bool) -> None:
    alive, took = contest(quick)
    assert alive
    assert took < 1


def test_a_silent_host_is_found_dead_in_time() -> None:
    alive, took = contest(quick=True, silent=True)
    assert not alive
    assert PROBE_SECONDS <= took < PROBE_SECONDS + 0.5


def test_a_contest_that_is_decided_from_outside_has_one_verdict() -> None:
    loop, (near, far) = Loop(), tcp_pair()
    verdicts: list[bool] = []
    leg = Leg(1, near, "192.0.2.1:1")
    made = Contest(
        loop, leg, Newcomer(2, "h:1", {}, False, -1), lambda _newcomer, alive: verdicts.append(alive)
    )
    made.decide(alive=False)
    made.decide(alive=True)
    end = time.monotonic() + 0.2
    loop.call_later(0.2, lambda: None)
    while time.monotonic() < end:
        loop.turn()
    assert verdicts == [False]
    for each in (near, far, loop):
        each.close()


def test_far_ends_are_what_they_seem() -> None:
    """A filter that lets nothing through really silences a host: nothing arrives, nothing is acknowledged."""
    near, far = tcp_pair()
    fall_silent(far)
    near.send(b"x")
    vm = Vm(far)
    assert vm.heard() == b""
    near.close()
    vm.close()
