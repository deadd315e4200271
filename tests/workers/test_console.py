"""A console: what the VM says reaches the log and every client, each in his own way and at his own pace."""

from __future__ import annotations

import os
import random
from typing import Callable

import pytest

from tests.unix.logs import disk_full_at
from tests.unix.turning import open_descriptors
from tests.workers.bench import ID, Bench, Far, Vm
from tests.workers.conftest import Benches
from vspcd.proto import attach, telnet
from vspcd.unix import logfile
from vspcd.unix.page import BYTES_IN, HEAD, NOT_LOGGED
from workers import client as clients

EVERYTHING = bytes(range(256)) * 4
AGREES = bytes.fromhex("FFFD01 FFFD03 FFFD00 FFFB00 FFFB03")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def console_bytes(wire: bytes) -> bytes:
    """What a telnet client shows: its options aside."""
    return b"".join(token for token, _ in telnet.tokens(wire) if isinstance(token, bytes))


def until_it_has(client: Far, size: int) -> Callable[[], bool]:
    return lambda: len(client.heard()) == size


# Output


def test_what_the_vm_says_reaches_the_log_and_every_sort_of_client(bench: Bench) -> None:
    vm = bench.connect()
    raw, tool, port = bench.raw(), bench.tool(), bench.port()
    port.say(AGREES)
    bench.until(lambda: bench.told("client-kind"))
    vm.speak(EVERYTHING)
    bench.until(lambda: raw.heard() == EVERYTHING)
    bench.until(lambda: tool.seen() == EVERYTHING)
    bench.until(lambda: console_bytes(port.heard()).endswith(EVERYTHING))
    assert bench.log() == EVERYTHING


def test_a_client_gets_what_is_said_after_it_came(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"before\r\n")
    bench.until(lambda: bench.log() == b"before\r\n")
    raw = bench.raw()
    vm.speak(b"after")
    bench.until(lambda: raw.heard() == b"after")


def test_what_a_client_sees_is_in_the_log_already(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    for number in range(50):
        vm.speak(b"%03d" % number)
        bench.until(until_it_has(raw, 3 * (number + 1)))
        assert bench.log().endswith(b"%03d" % number)


def negotiate(bench: Bench, port: Far) -> None:
    """Let a client of the port speak telnet, and forget what was said about it."""
    port.say(AGREES)
    bench.until(lambda: bench.told("client-kind"))
    bench.settle()
    port.heard()
    port.got.clear()


def flood(bench: Bench, vm: Vm, data: bytes) -> None:
    """Let the VM say much, whatever its clients do."""
    bench.pour(vm, telnet.escape(data), lambda: bench.page.words[HEAD] == len(data))


@pytest.mark.parametrize("sort", ["raw", "tool", "port"])
def test_a_client_that_reads_late_gets_everything(bench: Bench, sort: str) -> None:
    vm = bench.connect()
    client = getattr(bench, sort)()
    if sort == "port":
        negotiate(bench, client)
    data = noise(8 << 20)
    flood(bench, vm, data)
    assert bench.log() == data
    seen = {"raw": client.heard, "port": lambda: console_bytes(client.heard())}.get(sort) or client.seen
    bench.until(lambda: len(client.heard()) >= len(data) and len(seen()) >= len(data), 60)
    assert seen() == data


def test_a_client_that_never_reads_costs_no_memory_and_nobody_else_waits(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    asleep = [bench.raw(), bench.tool(), bench.port()]
    data = noise(8 << 20)
    bench.pour(vm, telnet.escape(data), lambda: len(raw.heard()) == len(data))
    assert raw.heard() == data
    console = bench.worker.console
    assert console is not None
    held = sum(len(client.out) for client in console.clients.values())
    assert held <= len(asleep) * (clients.CHUNK + clients.NOTICE_LIMIT + 100)
    assert console.journal.head - console.journal.tail.start <= 2 * logfile.TAIL


def test_output_cut_in_the_middle_of_a_doubled_byte_goes_on_there(bench: Bench) -> None:
    """Nothing but FF, to a telnet client with a tiny window that reads an odd number of bytes at a time."""
    vm, port = bench.connect(), bench.port(small=True)
    negotiate(bench, port)
    data = b"\xff" * 50000 + b"a" + b"\xff" * 50000 + b"bc"  # pairs at even and at odd places

    def slowly() -> bool:
        for _ in range(10):
            try:
                port.got += port.sock.recv(777)
            except BlockingIOError:
                break
        return len(port.got) == len(telnet.escape(data))

    bench.pour(vm, telnet.escape(data), slowly, seconds=20)
    assert bytes(port.got) == telnet.escape(data)


def test_a_laggard_past_the_limit_is_moved_forward_and_told_how_far(benches: Benches) -> None:
    bench = benches(max_lag=1 << 20)
    bench.own()
    vm, tool = bench.connect(), bench.tool()
    data = noise(8 << 20)
    flood(bench, vm, data)
    bench.until(lambda: tool.reached() == len(data), 60)
    skipped = sum(int(count) for count in tool.payloads(attach.SKIPPED))
    assert skipped > 0
    assert len(tool.seen()) + skipped == len(data)
    assert sum(fact["bytes"] for fact in bench.index("skipped")) == skipped
    assert all(
        data[each.offset :].startswith(each.payload) for each in tool.all() if each.type == attach.DATA
    )


def test_a_lag_limit_below_the_tails_size_tells_nobody_of_nothing(benches: Benches) -> None:
    bench = benches(max_lag=1000)
    bench.own()
    vm, tool = bench.connect(), bench.tool()
    data = noise(2 << 20)
    flood(bench, vm, data)
    bench.until(lambda: tool.reached() == len(data), 60)
    counts = [int(count) for count in tool.payloads(attach.SKIPPED)]
    assert 0 not in counts
    assert all(fact["bytes"] for fact in bench.index("skipped"))


def test_a_raw_client_is_never_told_anything(bench: Bench) -> None:
    raw = bench.raw()
    vm = bench.connect()
    vm.speak(b"x")
    bench.until(raw.heard)
    vm.close()
    bench.until(lambda: bench.told("disconnected"))
    bench.settle()
    assert raw.heard() == b"x"


# Rotated files


def test_rotated_files_are_closed_when_nobody_lags(benches: Benches) -> None:
    bench = benches(max_size=1000, keep=1)
    bench.own()
    vm, raw = bench.connect(), bench.raw()
    before = len(open_descriptors())
    for number in range(20):
        vm.speak(noise(1000))
        bench.until(until_it_has(raw, 1000 * (number + 1)))
    assert len(open_descriptors()) <= before + 2


def test_rotated_files_are_closed_when_the_laggard_has_gone(benches: Benches) -> None:
    bench = benches(max_size=1 << 19, keep=1)
    bench.own()
    vm, raw, laggard = bench.connect(), bench.raw(), bench.raw()
    before = len(open_descriptors())
    for number in range(20):
        vm.speak(b"x" * (1 << 18))
        bench.until(until_it_has(raw, (number + 1) << 18))
    assert len(open_descriptors()) > before + 2
    laggard.close()
    bench.until(lambda: len(open_descriptors()) <= before)


def test_a_laggard_reads_on_over_rotations(benches: Benches) -> None:
    bench = benches(max_size=1 << 20, keep=1)
    bench.own()
    vm, raw, laggard = bench.connect(), bench.raw(), bench.raw()
    said = noise(6 << 20)
    bench.pour(vm, telnet.escape(said), lambda: len(raw.heard()) == len(said))
    bench.until(lambda: len(laggard.heard()) == len(said), 60)
    assert laggard.heard() == said


def test_settings_that_came_before_the_console_are_its_own(benches: Benches) -> None:
    bench = benches(max_size=1 << 30)
    log = {**bench.settings["log"], "max_size": 4096}
    bench.tell("settings", settings={**bench.settings, "log": log})
    bench.own()
    bench.connect().speak(noise(10000))
    bench.until((bench.folder / f"{ID}.log.1").exists)


# Replay


def test_a_tool_is_shown_the_last_lines_beginning_with_a_whole_one(bench: Bench) -> None:
    vm = bench.connect()
    said = b"".join(b"line %03d\r\n" % number for number in range(100))
    vm.speak(said)
    bench.until(lambda: bench.log() == said)
    tool = bench.tool(replay=55)
    bench.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == said[-50:]


def test_a_replay_longer_than_the_journal_shows_all_of_it(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"all there is\r\nprompt")
    bench.until(bench.log)
    tool = bench.tool(replay=4096)
    bench.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == b"all there is\r\nprompt"


def test_a_replay_without_a_line_end_is_shown_as_it_is(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"x" * 1000)
    bench.until(bench.log)
    tool = bench.tool(replay=100)
    bench.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == b"x" * 100


def test_without_a_replay_nothing_older_is_shown(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"older\r\n")
    bench.until(bench.log)
    tool = bench.tool(replay=0)
    bench.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == b""


def test_positions_in_frames_are_those_of_the_journal(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"0123456789")
    bench.until(bench.log)
    tool = bench.tool()
    vm.speak(b"abc")
    bench.until(lambda: tool.seen() == b"abc")
    data = [frame for frame in tool.all() if frame.type == attach.DATA]
    assert data[0].offset == 10


def test_after_a_restart_a_replay_comes_from_the_log(benches: Benches, bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"before the restart\r\n")
    bench.until(bench.log)
    again = benches()
    again.own()
    tool = again.tool(replay=4096)
    again.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == b"before the restart\r\n"


def test_after_a_rotation_and_a_restart_a_replay_shows_what_the_young_log_has(benches: Benches) -> None:
    bench = benches(max_size=1000)
    bench.own()
    vm = bench.connect()
    vm.speak(b"x" * 1000 + b"young\r\n")
    bench.until(lambda: bench.log() == b"young\r\n")
    again = benches()
    again.own()
    tool = again.tool(replay=4096)
    again.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen().endswith(b"young\r\n")


def test_a_client_of_a_vm_that_is_away_sees_the_past_and_waits(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"last words\r\n")
    bench.until(bench.log)
    vm.close()
    bench.until(lambda: bench.told("disconnected"))
    tool = bench.tool(replay=4096)
    bench.until(lambda: tool.payloads(attach.LIVE))
    assert tool.seen() == b"last words\r\n"
    bench.connect().speak(b"back")
    bench.until(lambda: tool.seen() == b"last words\r\nback")


# Figures and settings


def test_the_page_tells_how_much_came_and_how_far_each_client_is(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    vm.speak(b"\xff" * 100)
    bench.until(lambda: len(raw.heard()) == 100)
    words = bench.page.words
    assert (words[HEAD], words[BYTES_IN]) == (100, 100)
    (figures,) = bench.page.clients().values()
    assert (figures.cursor, figures.half) == (100, False)


def test_bytes_that_were_not_logged_are_counted_as_they_are_lost(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    with disk_full_at(0):
        for number in range(1, 4):
            vm.speak(b"x" * 10)
            bench.until(until_it_has(raw, 10 * number))
            assert bench.page.words[NOT_LOGGED] == 10 * number


def test_a_new_name_moves_the_link(bench: Bench) -> None:
    assert bench.worker.console is not None
    bench.worker.console.rename("db01")
    links = {path.name: os.readlink(path) for path in (bench.folder / "by-name").iterdir()}
    assert links == {"db01.log": f"../{ID}.log"}


def test_a_log_that_was_renamed_is_begun_again_when_the_master_says_so(bench: Bench) -> None:
    vm = bench.connect()
    vm.speak(b"before")
    bench.until(bench.log)
    for suffix in ("log", "idx"):
        os.rename(bench.folder / f"{ID}.{suffix}", bench.folder / f"{ID}.{suffix}-moved")
    bench.tell("reopen")
    bench.until((bench.folder / f"{ID}.log").exists)
    vm.speak(b"after")
    bench.until(lambda: bench.log() == b"after")
    assert (bench.folder / f"{ID}.log-moved").read_bytes() == b"before"


def test_without_logging_there_is_no_file_and_clients_are_served(benches: Benches) -> None:
    bench = benches(enabled=False)
    bench.own()
    vm, raw = bench.connect(), bench.raw()
    vm.speak(b"unlogged")
    bench.until(lambda: raw.heard() == b"unlogged")
    assert list(bench.folder.iterdir()) == []


def test_an_idle_console_does_not_wake_up(bench: Bench) -> None:
    bench.connect()
    bench.raw()
    bench.tool()
    bench.settle()
    assert bench.settle() == 0


def test_what_has_arrived_is_logged_before_a_worker_quits(bench: Bench) -> None:
    vm, raw = bench.connect(), bench.raw()
    vm.speak(b"last words" * 1000)
    bench.worker._quit({"reason": "vspcd is stopping"}, [])
    assert raw.heard() == b"last words" * 1000
    (log,) = bench.folder.glob("*.log")
    assert log.read_bytes() == b"last words" * 1000
