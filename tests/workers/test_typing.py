"""Typing: what clients type reaches the VM once, in order, whole; nothing is read that nobody can take."""

from __future__ import annotations

import re

import pytest

from tests.proto.streams import tokens_of
from tests.workers.bench import Bench, Far, Vm
from tests.workers.conftest import Benches
from tests.workers.test_console import AGREES, EVERYTHING, negotiate, noise
from vspcd.proto import attach, telnet
from vspcd.proto.vmware import VM_NAME, frame
from vspcd.unix.page import BYTES_OUT

BREAK = telnet.command(telnet.BREAK)


@pytest.fixture
def vm(bench: Bench) -> Vm:
    return bench.connect()


@pytest.mark.parametrize("sort", ["raw", "tool"])
def test_every_byte_that_a_client_types_reaches_the_vm(bench: Bench, vm: Vm, sort: str) -> None:
    client = getattr(bench, sort)()
    client.type(EVERYTHING) if sort == "tool" else client.say(EVERYTHING)
    bench.until(lambda: vm.typed() == EVERYTHING)


def test_every_byte_that_a_binary_telnet_client_types_reaches_the_vm(bench: Bench, vm: Vm) -> None:
    port = bench.port()
    negotiate(bench, port)
    port.say(telnet.escape(EVERYTHING))
    bench.until(lambda: vm.typed() == EVERYTHING)


def test_a_break_of_a_tool_reaches_the_vm_in_its_place(bench: Bench, vm: Vm) -> None:
    tool = bench.tool()
    tool.say(tool.typing(b"before") + tool.breaking() + tool.typing(b"after"))
    bench.until(lambda: b"before" + BREAK + b"after" in vm.heard())


@pytest.mark.parametrize("together", [1, 2, 20])
def test_frames_are_understood_however_many_are_in_a_packet(bench: Bench, vm: Vm, together: int) -> None:
    tool = bench.tool()
    frames = [tool.typing(b"piece %d\xff" % number) for number in range(20)]
    for at in range(0, len(frames), together):
        tool.say(b"".join(frames[at : at + together]))
    expected = b"".join(b"piece %d\xff" % number for number in range(20))
    bench.until(lambda: vm.typed() == expected)


@pytest.mark.parametrize("size", [1, 15, 17, 20, 50])
def test_a_packet_that_holds_half_a_frame_is_the_end_of_its_tool(bench: Bench, vm: Vm, size: int) -> None:
    tool = bench.tool()
    wire = tool.typing(b"whole") + tool.typing(b"half of this one is missing")
    tool.say(wire[:size])
    bench.until(lambda: bench.told("detached"))
    assert vm.typed() in (b"", b"whole")


def test_typing_that_a_tool_sends_again_is_typed_once(bench: Bench, vm: Vm) -> None:
    tool = bench.tool()
    first = tool.typing(b"once,")
    tool.say(first)
    bench.until(lambda: vm.typed() == b"once,")
    tool.say(first)
    tool.type(b"then")
    bench.until(lambda: vm.typed().endswith(b"then"))
    assert vm.typed() == b"once,then"


@pytest.mark.parametrize(
    "bad", [b"\x63" + bytes(15), attach.frame(attach.DATA, b"x"), b"\x10\0\0\0\xff\xff\xff\xff" + bytes(8)]
)
def test_a_tool_that_breaks_the_framing_is_let_go(bench: Bench, vm: Vm, bad: bytes) -> None:
    tool = bench.tool()
    tool.say(bad)
    bench.until(lambda: bench.told("detached") and tool.ended())


@pytest.mark.parametrize("sort", ["raw", "tool", "port"])
def test_a_client_that_may_only_watch_types_nothing(bench: Bench, vm: Vm, sort: str) -> None:
    client, other = getattr(bench, sort)(mode="ro"), bench.raw()
    client.type(b"not me") if sort == "tool" else client.say(b"not me")
    bench.settle()
    other.say(b"but me")
    bench.until(lambda: vm.typed() == b"but me")
    vm.speak(b"seen by all")
    bench.until(lambda: client.heard().endswith(b"seen by all"))


def test_what_one_who_may_only_watch_types_piles_up_nowhere(bench: Bench, vm: Vm) -> None:
    watcher = bench.raw(mode="ro")
    bench.pour(watcher, b"x" * (4 << 20))
    bench.settle()
    assert vm.typed() == b""


def test_typing_is_counted(bench: Bench, vm: Vm) -> None:
    raw = bench.raw()
    raw.say(b"12345")
    bench.until(lambda: vm.typed() == b"12345")
    assert bench.page.words[BYTES_OUT] == 5


# A VM that is slow, away, or moves


def test_much_typing_arrives_whole_at_a_slow_vm(bench: Bench) -> None:
    vm, raw = bench.connect(small=True), bench.raw()
    data = noise(1 << 20)
    bench.pour(raw, data, lambda: len(vm.heard()) >= len(data) and len(vm.typed()) == len(data))
    assert vm.typed() == data


def test_typing_for_a_vm_that_does_not_read_stays_in_the_clients_socket(bench: Bench) -> None:
    bench.connect(small=True)
    raw = bench.raw()
    taken = 0
    for _ in range(100):
        taken += raw.offer(b"x" * 65536)
        bench.settle()
    assert taken < 2 << 20
    assert raw.offer(b"x") == 0


def test_several_clients_never_type_inside_anothers_escape(bench: Bench) -> None:
    """All type FF, breaks and their own letter, and the VM takes a few bytes at a time."""
    vm = bench.connect(small=True)
    tools = {letter: bench.tool() for letter in (b"a", b"b", b"c")}
    left = {
        letter: [tool.typing(b"\xff" * 1001 + letter) + tool.breaking() for _ in range(100)]
        for letter, tool in tools.items()
    }

    def served() -> bool:
        for letter, tool in tools.items():
            while left[letter] and tool.offer(left[letter][0]):
                del left[letter][0]
        try:
            vm.got += vm.sock.recv(1777)
        except BlockingIOError:
            pass
        return not any(left.values()) and len(vm.got) >= 2 * 100 * 3 * 1001

    bench.until(served, 60)
    bench.until(lambda: len(vm.typed()) == 3 * 100 * 1002)
    tokens = [token for token in tokens_of(vm.heard()) if not isinstance(token, telnet.Subnegotiation)]
    assert tokens.count(telnet.Command(telnet.BREAK)) == 300
    assert {token for token in tokens if not isinstance(token, (bytes, telnet.Negotiation))} == {
        telnet.Command(telnet.BREAK)
    }
    for letter in tools:
        assert vm.typed().count(letter) == 100


def test_the_vms_protocol_is_answered_while_typing_waits_and_never_inside_an_escape(bench: Bench) -> None:
    vm, raw = bench.connect(small=True), bench.raw()
    data = b"\xff" * 200000
    asked = 0
    left = memoryview(data)

    def served() -> bool:
        nonlocal left, asked
        left = left[raw.offer(left[:10000]) :]
        if asked < 50:
            asked += 1
            vm.say(frame(99))  # unknown: answered with its code
        try:
            vm.got += vm.sock.recv(1999)
        except BlockingIOError:
            pass
        return not left and asked == 50 and len(vm.got) > 2 * len(data)

    bench.until(served, 60)
    bench.until(lambda: vm.typed() == data)
    assert vm.heard().count(telnet.subnegotiation(telnet.VMWARE, b"\x03\x63")) == 50
    assert vm.frames(3) == 50


def test_what_is_typed_while_the_vm_is_away_arrives_when_it_is_back(bench: Bench) -> None:
    raw, tool = bench.raw(), bench.tool()
    raw.say(b"early")
    bench.settle()
    tool.type(b" bird")
    bench.settle()
    vm = bench.connect()
    bench.until(lambda: vm.typed() == b"early bird")


def test_typing_that_was_half_sent_when_the_connection_changed_goes_on_at_a_whole_byte(bench: Bench) -> None:
    old, raw = bench.connect(small=True), bench.raw()
    raw.say(b"\xff" * 16000)
    bench.settle()
    data = b"\xff" * 30000
    left = data[raw.offer(data) :]
    bench.settle()
    old.got += old.sock.recv(1001)
    new = bench.connect()
    while left:
        left = left[raw.offer(left) :]
        bench.turn()
    raw.say(b"end")
    bench.until(lambda: new.typed().endswith(b"end"))
    received = re.sub(rb"\xff[\xfa].*?\xff\xf0", b"", new.heard(), flags=re.S)
    assert received.replace(b"\xff\xff", b"").rstrip(b"end") in (b"", b"\xff\xf1")
    assert old.ended()


def test_nothing_is_typed_twice_when_the_connection_breaks_under_it(bench: Bench) -> None:
    for attempt in range(20):
        vm = bench.connect()
        raw = bench.raw()
        text = b"typed %d" % attempt
        raw.say(text)
        vm.reset()
        bench.until(lambda: bench.worker.connection is None)
        bench.settle()
        after = bench.connect()
        raw.say(b"|after")
        bench.until(lambda: after.typed().endswith(b"|after"))  # noqa: B023
        assert after.typed() in (text + b"|after", b"|after")
        after.close()
        bench.until(lambda: bench.worker.connection is None)
        raw.close()


def test_a_client_that_hangs_up_with_typing_waiting_has_typed_it(bench: Bench) -> None:
    vm, raw = bench.connect(small=True), bench.raw()
    data = noise(100000)
    left = memoryview(data)
    while left and (sent := raw.offer(left)):
        left = left[sent:]
        bench.turn()
    said = data[: len(data) - len(left)]
    raw.sock.close()
    bench.until(lambda: vm.typed() == said)
    bench.until(lambda: bench.told("detached"))


def test_what_one_who_has_gone_typed_for_a_vm_that_is_away_is_dropped(bench: Bench) -> None:
    raw = bench.raw()
    raw.say(b"reboot\r")
    bench.settle()
    raw.close()
    bench.until(lambda: bench.told("detached"), 20)
    vm, other = bench.connect(), bench.raw()
    other.say(b"ls\r")
    bench.until(lambda: vm.typed().endswith(b"ls\r"))
    assert vm.typed() == b"ls\r"


def test_a_client_that_waits_does_not_keep_the_worker_busy(bench: Bench) -> None:
    clients: list[Far] = [bench.raw(), bench.tool(), bench.port()]
    clients[0].say(b"waiting")
    clients[1].say(attach.frame(attach.INPUT, b"waiting", 0))
    clients[2].say(AGREES + b"waiting")
    bench.settle()
    assert bench.settle() == 0


def test_console_data_behind_a_name_in_one_packet_is_not_held_up(bench: Bench, vm: Vm) -> None:
    raw = bench.raw()
    vm.say(frame(VM_NAME, b"db01") + b"x")
    bench.until(lambda: raw.heard() == b"x")


@pytest.mark.parametrize("cut", range(1, 8))
def test_half_an_escape_of_the_vm_waits_without_a_spin(bench: Bench, vm: Vm, cut: int) -> None:
    raw = bench.raw()
    wire = b"a" + frame(VM_NAME, b"\xff") + b"b"
    vm.say(wire[:cut])
    bench.settle()
    assert bench.settle() == 0
    vm.say(wire[cut:])
    bench.until(lambda: raw.heard() == b"ab")


@pytest.mark.parametrize("before", range(4))
def test_an_escape_of_the_vm_that_is_cut_where_the_buffer_is_full_is_read_on(
    bench: Bench, vm: Vm, before: int
) -> None:
    """One byte that is left unread can hold the memory of a whole buffer, and the window closed with it."""
    raw, data = bench.raw(), b"a" * before + b"\xff" * 300000 + b"end"
    bench.pour(vm, telnet.escape(data), lambda: len(raw.heard()) == len(data), seconds=20)
    assert raw.heard() == data


@pytest.mark.parametrize("before", range(4))
def test_an_escape_of_a_client_that_is_cut_where_the_buffer_is_full_is_read_on(
    bench: Bench, vm: Vm, before: int
) -> None:
    port, data = bench.port(), b"a" * before + b"\xff" * 300000 + b"end"
    negotiate(bench, port)
    wanted = len(telnet.escape(data))
    bench.pour(
        port, telnet.escape(data), lambda: len(vm.heard()) >= wanted and vm.typed() == data, seconds=20
    )


def test_a_vm_that_goes_in_the_middle_of_a_message_is_gone(bench: Bench, vm: Vm) -> None:
    vm.heard()
    vm.say(b"last\xff\xfa\xe8")
    vm.finish()
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == b"last"


def test_an_endless_message_of_the_vm_ends_its_connection(benches: Benches, bench: Bench, vm: Vm) -> None:
    vm.say(b"\xff\xfa\xe8")
    for _ in range(10):
        vm.offer(b"x" * 10000)
        bench.turn()
    bench.until(lambda: bench.told("disconnected"))
    assert "longer than" in bench.told("disconnected")[0]["reason"]


@pytest.mark.parametrize("typed", [b"x", b"more"])
def test_one_who_has_reset_his_connection_has_typed_what_came_before(bench: Bench, typed: bytes) -> None:
    vm, client = bench.connect(), bench.port()
    bench.keyboard.hold()
    client.say(typed)
    bench.settle()
    client.reset()
    bench.settle()
    bench.keyboard.release()
    bench.worker.pump()
    bench.until(lambda: vm.typed() == typed)
