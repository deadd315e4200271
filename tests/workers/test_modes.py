"""The master says who may type: what is on its way is finished, what has not begun is dropped, no escape is cut."""

from __future__ import annotations

import json

import pytest

from tests.workers.bench import ID, Bench, Far
from tests.workers.conftest import Benches
from tests.workers.test_console import AGREES, console_bytes, negotiate
from vspcd.proto import attach, telnet
from vspcd.unix.page import TYPIST
from workers.client import Client

SORTS = ("raw", "tool", "port")


def newest(bench: Bench) -> Client:
    assert bench.worker.console is not None
    return bench.worker.console.clients[max(bench.worker.console.clients)]


def turn_to(bench: Bench, client: Client, mode: str, notice: str | None = None) -> None:
    bench.tell("mode", client=client.number, mode=mode, notice=notice, facts=None)
    bench.until(lambda: client.mode == mode)


def types(far: Far, data: bytes) -> None:
    far.type(data) if hasattr(far, "type") else far.say(telnet.escape(data))


def visitor(bench: Bench, sort: str) -> tuple[Far, Client]:
    far: Far = getattr(bench, sort)()
    client = newest(bench)
    if sort == "port":
        negotiate(bench, far)
    return far, client


@pytest.mark.parametrize("sort", SORTS)
def test_who_may_not_type_is_not_heard_and_who_may_again_is(bench: Bench, sort: str) -> None:
    vm = bench.connect()
    far, client = visitor(bench, sort)
    turn_to(bench, client, "ro")
    types(far, b"not this")
    bench.until(lambda: client.unread() == 0)
    turn_to(bench, client, "rw")
    types(far, b"but this")
    bench.until(lambda: vm.typed() == b"but this")
    assert not bench.told("detached")


@pytest.mark.parametrize("sort", SORTS)
def test_what_waits_for_the_vm_is_dropped(benches: Benches, sort: str) -> None:
    bench = benches()
    bench.own()
    far, client = visitor(bench, sort)
    other = bench.raw()
    types(far, b"not this")
    other.say(b"but this")
    bench.until(lambda: not client.heard)
    turn_to(bench, client, "ro")
    bench.until(lambda: client.heard and client.unread() == 0)
    vm = bench.connect()
    bench.until(lambda: vm.typed() == b"but this")
    turn_to(bench, client, "rw")
    types(far, b", and this")
    bench.until(lambda: vm.typed() == b"but this, and this")


def test_a_batch_that_is_begun_goes_out_as_a_whole(bench: Bench) -> None:
    vm = bench.connect(small=True)
    far, client = bench.raw(), newest(bench)
    assert bench.worker.console is not None
    keyboard = bench.worker.console.keyboard
    sent = 0
    while not (keyboard.typing and keyboard._batch is not None and keyboard._batch.sent):
        sent += far.offer(b"\xff" * 4096)
        bench.settle()
    begun = keyboard._batch
    turn_to(bench, client, "ro")
    assert keyboard._batch is begun
    far.say(b"after")
    bench.until(lambda: vm.heard() and not keyboard.typing and client.unread() == 0)
    other = bench.raw()
    other.say(b"other")
    bench.until(lambda: vm.typed().endswith(b"other"))
    typed = vm.typed()[: -len(b"other")]
    assert typed == b"\xff" * len(typed)
    assert len(typed) <= sent


@pytest.mark.parametrize(("begun", "rest"), [(1, b"\xff"), (2, b""), (3, b"")])
def test_a_worker_that_goes_on_finishes_half_an_escape_and_no_more(
    bench: Bench, begun: int, rest: bytes
) -> None:
    vm, far = bench.connect(), bench.raw(mode="ro")
    assert bench.worker.console is not None
    before = len(vm.heard())
    bench.worker.console.keyboard.resume(newest(bench).number, begun)
    far.say(b"\xffnothing of this")
    bench.until(lambda: newest(bench).unread() == 0)
    bench.settle()
    assert vm.heard()[before:] == rest
    assert bench.page.words[TYPIST] == 0


def test_a_tool_is_told_its_mode_and_why(bench: Bench) -> None:
    bench.connect()
    tool, client = bench.tool(), newest(bench)
    turn_to(bench, client, "ro", "web01: alice has the write lock")
    bench.until(lambda: tool.payloads(attach.NOTICE) == [b"web01: alice has the write lock"])
    assert tool.payloads(attach.MODE) == [b"ro"]
    turn_to(bench, client, "rw")
    bench.until(lambda: tool.payloads(attach.MODE) == [b"ro", b"rw"])


def test_a_telnet_client_is_told_once_it_is_known_to_be_one(bench: Bench) -> None:
    vm = bench.connect()
    port, client = bench.port(), newest(bench)
    turn_to(bench, client, "ro", "web01: locked")
    port.say(AGREES)
    bench.until(lambda: b"[vspcd: web01: locked]" in console_bytes(port.heard()))
    vm.speak(b"still seen")
    bench.until(lambda: console_bytes(port.heard()).endswith(b"still seen"))


def test_a_raw_client_is_never_told(bench: Bench) -> None:
    vm = bench.connect()
    raw, client = bench.raw(), newest(bench)
    turn_to(bench, client, "ro", "web01: locked")
    vm.speak(b"said")
    bench.until(lambda: raw.heard() == b"said")


def test_a_mode_for_somebody_who_has_left_harms_nobody(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    bench.tell("mode", client=4711, mode="ro", notice="x", facts=None)
    raw.say(b"typed")
    bench.until(lambda: vm.typed() == b"typed")


def test_the_page_tells_when_somebody_was_heard_last(bench: Bench) -> None:
    vm = bench.connect()
    raw, client = bench.raw(), newest(bench)
    slot = bench.page.slot_of(client.number)
    assert slot is not None
    assert bench.page.typed_when(slot) is None
    turn_to(bench, client, "ro")
    raw.say(b"not heard")
    bench.until(lambda: client.unread() == 0)
    assert bench.page.typed_when(slot) is None
    turn_to(bench, client, "rw")
    raw.say(b"heard")
    bench.until(lambda: vm.typed() == b"heard")
    assert bench.page.typed_when(slot) is not None


def test_a_break_is_told_to_the_master_unless_it_is_not_sent(bench: Bench) -> None:
    bench.connect()
    tool, client = bench.tool(), newest(bench)
    tool.say(tool.breaking() + tool.breaking())
    bench.until(lambda: bench.told("break"))
    assert bench.told("break") == [{"type": "break", "client": client.number, "count": 2}]
    turn_to(bench, client, "ro")
    tool.say(tool.breaking())
    bench.until(lambda: client.unread() == 0)
    assert len(bench.told("break")) == 1


def test_typing_that_no_disk_takes_is_counted_and_goes_on(bench: Bench) -> None:
    bench.settings["audit"]["typing"] = ["*"]
    bench.tell("settings", settings=bench.settings)
    vm, raw = bench.connect(), bench.raw()
    path = bench.folder / f"{ID}.typed"
    path.symlink_to("/dev/full")
    raw.say(b"lost")
    bench.until(lambda: vm.typed() == b"lost")
    path.unlink()
    raw.say(b"kept")
    bench.until(path.exists)
    (line,) = path.read_text().splitlines()
    assert (json.loads(line)["typed"], json.loads(line)["lost"]) == ("kept", 4)
