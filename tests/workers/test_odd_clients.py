"""Clients that go at a bad moment, say what nobody can, or use urgent data: nobody dies of it, and what they have typed
counts."""

from __future__ import annotations

import socket

import pytest

from tests.workers.bench import Bench
from tests.workers.deaths import Failpoints
from tests.workers.test_console import negotiate
from vspcd.proto import attach, telnet
from vspcd.unix import listen

BREAK = telnet.command(telnet.BREAK)
SYNCH = telnet.command(telnet.IP) + bytes((telnet.IAC,)), bytes((telnet.DM,))


@pytest.mark.parametrize("mode", ["rw", "ro"])
@pytest.mark.parametrize("offset", [(1 << 64) - 1, 1 << 63, (1 << 63) - 1])
@pytest.mark.parametrize("type", [attach.INPUT, attach.BREAK])
def test_a_tool_that_claims_to_have_typed_too_much_is_let_go(
    bench: Bench, mode: str, offset: int, type: int
) -> None:
    vm, tool = bench.connect(), bench.tool(mode)
    tool.say(attach.frame(type, b"x" if type == attach.INPUT else b"", offset))
    bench.until(tool.ended)
    other = bench.tool()
    other.type(b"typed")
    bench.until(lambda: vm.typed() == b"typed")


def test_what_a_tool_typed_before_it_went_without_reading_is_typed(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    vm.speak(b"never read")
    bench.settle()
    for piece in (b"re", b"boot", b"\r"):
        tool.type(piece)
    tool.sock.close()
    bench.until(lambda: vm.typed() == b"reboot\r")
    bench.until(lambda: bench.told("detached"))


def test_a_tool_that_goes_with_its_typing_on_its_way_harms_nobody(bench: Bench) -> None:
    vm, tool = bench.connect(small=True), bench.tool()
    vm.speak(b"never read")
    bench.settle()
    typed = 0
    try:
        for _ in range(6):
            tool.type(b"p" * 60000)
            typed += 60000
    except BlockingIOError:
        pass
    bench.settle()
    assert bench.keyboard.typing
    tool.sock.close()
    bench.until(lambda: len(vm.typed()) == typed, 30)
    assert vm.typed() == b"p" * typed
    bench.until(lambda: bench.told("detached"))


@pytest.mark.parametrize("kind", ["raw", "port", "tool"])
def test_what_was_typed_before_a_good_bye_is_typed_though_output_comes_first(bench: Bench, kind: str) -> None:
    vm = bench.connect()
    client = getattr(bench, kind)()
    bench.settle()
    vm.speak(b"hello")
    client.type(b"reboot\r") if kind == "tool" else client.say(b"reboot\r")
    client.reset() if kind == "port" else client.sock.close()
    bench.until(lambda: vm.typed() == b"reboot\r")
    bench.until(lambda: bench.told("detached"))


def test_output_that_comes_first_after_a_good_bye_finds_its_typing(bench: Bench) -> None:
    vm, client = bench.connect(), bench.raw()
    bench.settle()
    console = bench.worker.console
    assert console is not None
    client.say(b"reboot\r")
    client.sock.close()
    console.fanout.said(b"hello")  # before the loop has looked at the client
    bench.until(lambda: vm.typed() == b"reboot\r")
    bench.until(lambda: bench.told("detached"))


@pytest.mark.parametrize("point", ["typing.settled", "typing.doubt", "typing.done"])
def test_a_break_is_sent_once_wherever_the_worker_dies(
    bench: Bench, failpoints: Failpoints, point: str
) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    before = len(vm.heard())
    tool.say(tool.breaking())
    failpoints.dies(bench.turn, point)
    bench.succeed()
    tool.type(b"after")
    bench.until(lambda: vm.heard().endswith(b"after"))
    assert vm.heard()[before:] == BREAK + b"after"


def test_who_connects_keeps_urgent_data_in_its_place() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    far = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
    for sock in (listener, far, near):
        sock.close()


@pytest.mark.parametrize("paused", [False, True])
def test_a_telnet_synch_is_understood_and_what_follows_is_typed(bench: Bench, paused: bool) -> None:
    vm, port = bench.connect(), bench.port()
    negotiate(bench, port)
    port.say(b"ab" + SYNCH[0])
    if paused:
        bench.settle()
    port.sock.send(SYNCH[1], socket.MSG_OOB)
    if paused:
        bench.settle()
    port.say(b"cd")
    bench.until(lambda: vm.typed() == b"abcd")
    assert bench.settle() == 0
    port.say(b"e")
    bench.until(lambda: vm.typed() == b"abcde")


@pytest.mark.parametrize("deaths", [0, 1])
def test_an_urgent_byte_of_the_vm_is_one_like_the_others(
    bench: Bench, failpoints: Failpoints, deaths: int
) -> None:
    vm, tool = bench.connect(), bench.tool()
    vm.say(b"123")
    vm.sock.send(b"U", socket.MSG_OOB)
    vm.say(b"456")
    bench.until(lambda: tool.seen() == b"123U456")
    vm.say(b"abc")
    if deaths:
        failpoints.dies(bench.turn, "leg.consume")
        bench.succeed()
    vm.say(b"def")
    bench.until(lambda: tool.seen().endswith(b"def"))
    assert tool.seen() == b"123U456abcdef" == bench.log()


def test_urgent_data_inside_a_message_of_the_vm_ends_its_connection(bench: Bench) -> None:
    vm = bench.connect()
    vm.say(b"12\xff")
    vm.sock.send(b"\xfa", socket.MSG_OOB)
    vm.say(b"456")
    bench.until(lambda: bench.told("disconnected"))
    assert "urgent" in bench.told("disconnected")[0]["reason"]
    assert bench.log() == b"12"
