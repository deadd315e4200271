"""Clients of every sort: who speaks what, what they are told, how they come and go."""

from __future__ import annotations

import time

import pytest

from tests.workers.bench import Bench
from tests.workers.conftest import Benches
from tests.workers.test_console import AGREES, EVERYTHING, console_bytes, negotiate
from vspcd.proto import attach, telnet

# Who speaks what


def test_a_silent_client_of_the_port_is_offered_telnet_and_then_taken_as_raw(bench: Bench) -> None:
    vm, port = bench.connect(), bench.port()
    vm.speak(b"\xffsaid meanwhile")
    bench.until(lambda: bench.told("client-kind"), 20)
    assert bench.told("client-kind")[0]["kind"] == "raw"
    bench.until(lambda: port.heard().endswith(b"\xffsaid meanwhile"))
    offer = port.heard()[: -len(b"\xffsaid meanwhile")]
    assert console_bytes(offer) == b""


def test_a_client_that_speaks_at_once_gets_no_telnet_byte(bench: Bench) -> None:
    vm, port = bench.connect(), bench.port()
    port.say(b"+$qSupported#37\xff\xf0\x03")
    bench.until(lambda: vm.typed() == b"+$qSupported#37\xff\xf0\x03")
    bench.until(lambda: bench.told("client-kind"))
    assert bench.told("client-kind")[0]["kind"] == "raw"
    vm.speak(EVERYTHING)
    bench.until(lambda: port.heard() == EVERYTHING)


def test_a_telnet_client_is_shown_the_last_lines(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"older\r\nprompt$ ")
    bench.until(bench.log)
    port = bench.port()
    port.say(AGREES)
    bench.until(lambda: console_bytes(port.heard()) == b"older\r\nprompt$ ")
    bench.until(lambda: bench.told("client-kind"))
    assert bench.told("client-kind")[0]["kind"] == "telnet"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_telnet_client_is_understood_however_its_packets_are_cut(bench: Bench, size: int) -> None:
    vm, port = bench.connect(), bench.port()
    wire = AGREES + b"ab\xff\xffcd\xff\xf3" + bytes.fromhex("FFFA1F 0050 0018 FFF0") + b"e\xff\xff\xff\xfff"
    for at in range(0, len(wire), size):
        port.say(wire[at : at + size])
        bench.settle()
    bench.until(lambda: vm.typed() == b"ab\xffcde\xff\xfff")
    assert telnet.command(telnet.BREAK) in vm.heard()


@pytest.mark.parametrize("half", [b"\xff", b"\xff\xfd", b"\xff\xfa\x1f\x00", AGREES + b"\xff\xfa\x1f"])
def test_a_telnet_client_that_goes_in_the_middle_of_an_escape_is_let_go_without_a_spin(
    bench: Bench, half: bytes
) -> None:
    bench.connect()
    port = bench.port()
    port.say(half)
    port.close()
    before = time.process_time()
    bench.until(lambda: bench.told("detached"), 20)
    assert time.process_time() - before < 3


def test_half_an_escape_does_not_keep_the_worker_busy(bench: Bench) -> None:
    bench.connect()
    port = bench.port()
    port.say(AGREES + b"\xff")
    bench.until(lambda: bench.told("client-kind"))
    assert bench.settle() < 50


def test_a_telnet_client_that_breaks_its_protocol_is_detached_and_nobody_else(bench: Bench) -> None:
    vm, port, raw = bench.connect(), bench.port(), bench.raw()
    negotiate(bench, port)
    port.say(b"\xff\xfa\x1fxx\xff\x01")
    bench.until(lambda: bench.told("detached"))
    bench.until(port.ended)
    vm.speak(b"going on")
    bench.until(lambda: raw.heard() == b"going on")


def test_an_endless_subnegotiation_of_a_client_ends_it(bench: Bench) -> None:
    bench.connect()
    port = bench.port()
    negotiate(bench, port)
    port.say(b"\xff\xfa\x1f" + b"x" * 20000)
    bench.until(lambda: bench.told("detached"))


# Notices


def test_tools_and_telnet_clients_are_told_what_happens_to_the_vm(bench: Bench) -> None:
    vm, tool, port = bench.connect(), bench.tool(), bench.port()
    negotiate(bench, port)
    vm.close()
    bench.until(lambda: tool.payloads(attach.NOTICE) == [b"web01 disconnected"])
    bench.until(lambda: b"[vspcd: web01 disconnected]" in port.heard())
    bench.connect()
    bench.until(lambda: len(tool.payloads(attach.NOTICE)) == 2)


def test_a_notice_shows_no_control_character_of_a_name(benches: Benches) -> None:
    bench = benches()
    bench.own(name="evil\x1b]0;x\x07\r\n")
    tool = bench.tool()
    bench.connect()
    bench.until(lambda: tool.payloads(attach.NOTICE))
    assert tool.payloads(attach.NOTICE)[0].decode().isprintable()


# Clients come and go


@pytest.mark.parametrize("sort", ["raw", "tool", "port"])
def test_a_client_that_hangs_up_is_detached(bench: Bench, sort: str) -> None:
    getattr(bench, sort)().close()
    bench.until(lambda: bench.told("detached"), 20)


def test_a_program_that_ends_its_input_still_gets_the_answer(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    raw.say(b"uptime\r")
    raw.finish()
    bench.until(lambda: vm.typed() == b"uptime\r")
    vm.speak(b"up 3 days\r\n")
    bench.until(lambda: raw.heard() == b"up 3 days\r\n")
    assert bench.settle() < 50


def test_the_master_can_detach_a_client_with_a_reason(bench: Bench) -> None:
    tool = bench.tool()
    assert bench.worker.console is not None
    (number,) = bench.worker.console.clients
    bench.tell("detach", client=number, reason="you are not needed")
    bench.until(tool.ended)
    assert tool.payloads(attach.BYE) == [b"you are not needed"]


def test_the_last_client_of_a_console_without_vm_leaves_it_idle(bench: Bench) -> None:
    raw = bench.raw()
    raw.close()
    bench.until(lambda: bench.told("idle"))


def test_everybody_is_told_when_the_console_closes(bench: Bench) -> None:
    bench.connect()
    tool, raw = bench.tool(), bench.raw()
    bench.tell("quit", reason="vspcd is stopping")
    bench.until(lambda: tool.ended() and raw.ended())
    assert tool.payloads(attach.BYE) == [b"vspcd is stopping"]
