"""Another worker goes on where one has died: what was typed reaches the VM once, whole, and in its order."""

from __future__ import annotations

import re

import pytest

from tests.proto.streams import tokens_of
from tests.workers.bench import Bench, Far, Tool, Vm
from tests.workers.deaths import Failpoints
from tests.workers.test_console import negotiate
from tests.workers.test_modes import newest
from vspcd.proto import attach, pickles, telnet
from vspcd.unix.page import SENT_UP_TO

FILLING = b"\xff" * 30000
LINE_MODE = telnet.command(telnet.DO) + bytes((telnet.SGA,))
UNKNOWN_ASKED = bytes.fromhex("FFFD63 FFFB4D FFFD62")
UNKNOWN_ANSWERED = bytes.fromhex("FFFC63 FFFE4D FFFC62")
LINE_END = re.compile(b"\r[\n\0]")


def telnet_bytes(wire: bytes) -> bytes:
    """What a telnet client sees, with the notices taken out."""
    seen = b"".join(token for token in tokens_of(wire) if isinstance(token, bytes))
    return re.sub(rb"\r\n\[vspcd: [^\r\n]*\]\r\n", b"", seen)


def fill(bench: Bench, vm: Vm, typist: Far) -> bytes:
    """Type until the VM's connection takes no more, in the middle of a batch: what was typed."""
    typed = b""
    while not (bench.keyboard.typing and bench.keyboard._batch is not None and bench.keyboard._batch.sent):
        typed += FILLING[: typist.offer(FILLING)]
        bench.settle()
    return typed


@pytest.mark.parametrize("deaths", [1, 2, 3])
@pytest.mark.parametrize("first", ["typist", "other"])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_batch_on_its_way_goes_on_however_many_workers_die(
    bench: Bench, deaths: int, first: str, odd: int
) -> None:
    vm = bench.connect(small=True)
    ends = {first: bench.port(), "typist" if first == "other" else "other": bench.raw()}
    typist, other = ends["typist"], ends["other"]
    typed = fill(bench, vm, typist)
    other.say(b"other" * 10)
    for _ in range(deaths):
        bench.succeed()
        vm.got += vm.sock.recv(1000 + odd)
    bench.until(lambda: vm.heard().endswith(b"other"), 20)
    assert vm.typed() == typed + b"other" * 10


@pytest.mark.parametrize("point", ["leg.sent", "client.told"])
def test_one_who_had_just_typed_his_first_byte_hears_what_is_said_after(
    bench: Bench, failpoints: Failpoints, point: str
) -> None:
    """It is raw by what it typed, which the heir reads before anything else happens."""
    vm, client = bench.connect(), bench.port()
    client.say(b"r")
    failpoints.dies(bench.turn, point)
    bench.succeed()
    vm.speak(b"said")
    bench.until(lambda: client.heard() == b"said")
    assert vm.typed() == b"r"


@pytest.mark.parametrize("cut", range(4))
def test_half_an_escape_of_one_who_has_left_is_finished(bench: Bench, cut: int) -> None:
    """The escape is cut where the VM's connection was full; nobody has the other half but the page."""
    vm = bench.connect(small=True)
    typist, other = bench.port(), bench.port()
    typist.say(b"z" * (1 + cut % 2))
    typed = b"z" * (1 + cut % 2) + fill(bench, vm, typist)
    bench.tell("detach", client=min(bench._clients), reason="kicked")
    bench.until(lambda: bench.told("detached"))
    for _ in range(1 + cut // 2):
        bench.succeed()
    other.say(b"other")
    bench.until(lambda: vm.heard().endswith(b"other"), 20)
    heard = vm.typed()
    assert heard.endswith(b"other")
    assert typed.startswith(heard[: -len(b"other")])


@pytest.mark.parametrize("begin", [b"x\r", b"x\r\n", b"x\r\0", b"x"])
@pytest.mark.parametrize("rest", [b"\n", b"\0", b"", b"\r"])
def test_the_end_of_a_line_is_read_again_as_the_dead_worker_did(
    bench: Bench, begin: bytes, rest: bytes
) -> None:
    vm = bench.connect(small=True)
    typist, other = bench.port(), bench.port()
    typist.say(LINE_MODE + begin)
    bench.until(lambda: bench.told("client-kind") and b"x" in vm.typed())
    filling = rest + b"\xff\xff" * 30000
    typed = 0
    while not (bench.keyboard.typing and bench.keyboard._batch is not None and bench.keyboard._batch.sent):
        typed += typist.offer(filling[typed:])
        bench.settle()
    wanted = LINE_END.sub(b"\r", begin + filling[:typed])
    for _ in range(2):
        bench.succeed()
        vm.got += vm.sock.recv(1000)
    bench.until(lambda: bench.keyboard.idle or not vm.heard(), 20)
    other.say(b"other")
    bench.until(lambda: vm.heard().endswith(b"other"), 20)
    assert vm.typed() == wanted.replace(b"\xff\xff", b"\xff") + b"other"


@pytest.mark.parametrize("deaths", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 1, 2, 1777])
def test_half_an_escape_for_a_telnet_client_is_finished(bench: Bench, deaths: int, size: int) -> None:
    vm, port = bench.connect(), bench.port(small=True)
    negotiate(bench, port)
    said = b""
    while not newest(bench)._half:
        more = b"a" + b"\xff" * 20000  # the a moves what follows by one byte
        bench.pour(vm, telnet.escape(more))
        bench.settle()
        said += more
        if len(said) % 11 == 0:
            port.got += port.sock.recv(1777)
    for _ in range(deaths):
        bench.succeed()
        if size:
            port.got += port.sock.recv(size)
            bench.settle()
    vm.speak(b"end")
    bench.until(lambda: telnet_bytes(port.heard()).endswith(b"end"), 20)
    assert telnet_bytes(port.heard()) == said + b"end"


@pytest.mark.parametrize("kind", ["raw", "port", "tool"])
@pytest.mark.parametrize("point", ["client.attach", "page.client", "client.attached"])
def test_a_client_that_comes_when_the_worker_dies_sees_what_it_asked_for(
    bench: Bench, failpoints: Failpoints, kind: str, point: str
) -> None:
    vm = bench.connect()
    vm.speak(b"line one\nline two\nline three\n")
    bench.settle()
    replay = {"replay": 20} if kind == "tool" else {}
    client = bench.comes(lambda: failpoints.dies(bench.turn, point), kind, **replay)
    bench.succeed()
    if isinstance(client, Tool):
        bench.until(lambda: client.payloads(attach.LIVE))
    elif kind == "port":
        client.say(b"x")  # a raw one, as this shows
    bench.settle()
    vm.speak(b"after")
    heard = client.seen if isinstance(client, Tool) else client.heard
    bench.until(lambda: heard().endswith(b"after"))
    assert heard() == (b"line three\n" if kind == "tool" else b"") + b"after"


@pytest.mark.parametrize(
    "point", ["client.attach", "client.attached", "client.noted", "client.sent", "client.send"]
)
def test_one_of_the_admin_port_is_shown_what_was_said_once(
    bench: Bench, failpoints: Failpoints, point: str
) -> None:
    vm = bench.connect()
    vm.speak(b"line one\nline two\n")
    bench.settle()
    client = bench.comes(lambda: failpoints.dies(bench.turn, point), "port", replay=1000, seed="text")
    bench.succeed()
    bench.settle()
    wanted = pickles.dump(b"line one\nline two\n", str)
    bench.until(lambda: len(client.heard()) >= len(wanted))
    bench.settle()
    assert client.heard()[: len(wanted)] == wanted
    assert pickles.dump(b"", str)[:2] not in client.heard()[len(wanted) :]


@pytest.mark.parametrize("halves", [False, True])
def test_typing_of_one_who_was_sent_away_does_not_pass_for_replies(
    bench: Bench, failpoints: Failpoints, halves: bool
) -> None:
    vm, typist, other = bench.connect(small=True), bench.port(), bench.port()
    if halves:
        typist.say(b"z")
        fill(bench, vm, typist)
    else:
        typed = 0
        while not bench.keyboard.typing:
            typed += typist.offer(b"k" * 20000)
            bench.settle()
    bench.tell("detach", client=min(bench._clients), reason="kicked")
    bench.until(lambda: bench.told("detached"))

    def reads() -> None:
        try:
            vm.got += vm.sock.recv(3000)
        except BlockingIOError:
            pass
        bench.turn()

    failpoints.dies(reads, "leg.sent")
    bench.succeed()
    other.say(b"other")
    bench.until(lambda: vm.typed().endswith(b"other"), 20)
    before = len(vm.got)
    vm.say(UNKNOWN_ASKED)
    bench.until(lambda: len(vm.heard()) >= before + len(UNKNOWN_ANSWERED))
    assert bytes(vm.got[before:]) == UNKNOWN_ANSWERED


def test_a_batch_that_an_heir_could_not_go_on_with_is_not_begun_anew(
    bench: Bench, failpoints: Failpoints
) -> None:
    vm, typist = bench.connect(small=True), bench.port()
    typed = b""
    while not bench.keyboard.typing:
        piece = bytes(range(33, 127)) * 200
        typed += piece[: typist.offer(piece)]
        bench.settle()
    batch = bench.keyboard._batch
    assert batch is not None
    out = bench.page.get(SENT_UP_TO)[2] + len(typed) - len(batch.typed.wire)
    vm.sock.close()
    bench.until(lambda: bench.told("disconnected"))
    bench.succeed()
    _, vm = bench.offer()
    failpoints.dies(bench.turn, "connect.booked")
    bench.succeed()
    typist.say(b"end")
    bench.until(lambda: vm.typed().endswith(b"end"), 20)
    assert vm.typed() == typed[out:] + b"end"


@pytest.mark.parametrize("handed", [1, 2, 3])
def test_who_was_not_handed_everything_ends_with_the_master(bench: Bench, handed: int) -> None:
    vm = bench.connect()
    bench.tool()
    bench.succeed(handed=handed)
    bench.worker.shell._orphan.run = "/nonexistent"
    assert bench.worker.shell._survivor is not None
    assert not bench.worker.shell._survivor.lasts()
    assert not vm.ended()
