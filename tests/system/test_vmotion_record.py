"""What an operator learns of a move: from status, the daemon's log, the console's index and the terminals."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.system.clients import PtyClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import VSPCCTL, Daemon, Json
from tests.system.vmotion_vm import SEQUENCE, THERE, Scene

STEPS = ("goahead_ms", "peer_ms", "complete_ms", "done_ms")


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def scene(daemon: Daemon, stack: ExitStack) -> Scene:
    return Scene(daemon, stack)


def index(scene: Scene, word: str) -> list[Json]:
    """The facts of the lines with this word in the console's index."""
    lines = scene.daemon.log_file(scene.console).with_suffix(".idx").read_text().splitlines()
    return [json.loads(line.split(" ", 3)[3]) for line in lines if line.split(" ")[2] == word]


def test_record_of_a_move_in_the_status(scene: Scene) -> None:
    source = scene.guest
    assert source is not None
    pair = scene.goahead()
    target = scene.target(pair)
    scene.turns(50)
    scene.complete(target)
    scene.until(scene.recorded, "the move is recorded")
    (record,) = scene.moves()
    assert (record["from"], record["to"], record["outcome"]) == (source.address, target.address, "moved")
    assert [record[step] for step in STEPS] == sorted(record[step] for step in STEPS)
    assert record["held"] > 0
    assert "moved" in scene.daemon.ctl("status", "web01").stdout


def test_held_bytes_are_told_exactly(scene: Scene) -> None:
    scene.quiet = True
    target = scene.target(scene.goahead())
    scene._type(97)
    scene.turns(50)
    scene.complete(target)
    scene.until(scene.recorded, "the move is recorded")
    assert scene.moves()[0]["held"] == 97


def test_record_in_the_daemons_log_and_in_the_consoles_index(scene: Scene) -> None:
    source = scene.guest
    assert source is not None
    target = scene.move()
    line = scene.daemon.wait_log("vm-moved", source.address, target.address, "moved")
    assert " info " in line
    assert "web01" in line
    assert [step for step in STEPS if step not in line] == []
    assert index(scene, "vmotion") == scene.moves()


def test_index_tells_where_in_the_log_the_vm_moved(scene: Scene) -> None:
    scene.turns()
    target = scene.target(scene.goahead())
    scene.mute = True
    last = len(scene.sent) + 501
    scene.complete(target)
    scene.until(scene.recorded, "the move is recorded")
    lines = scene.daemon.log_file(scene.console).with_suffix(".idx").read_text().splitlines()
    (moved,) = [line.split(" ") for line in lines if line.split(" ")[2] == "vmotion"]
    assert int(moved[1]) == last


def test_people_are_told_of_a_move(scene: Scene, stack: ExitStack) -> None:
    command = [VSPCCTL, "--root", str(scene.daemon.root), "console", "web01"]
    terminal = stack.enter_context(PtyClient(command))
    scene.daemon.wait_clients("web01", 3)
    scene.mute = True
    target = scene.move()
    scene.until(lambda: any(b"moved" in text for text in scene.notices()), "a telnet client is told")
    assert any(target.address.encode() in text for text in scene.notices())
    terminal.read_until(b"moved from")


def test_failed_move_leaves_a_record_too(scene: Scene) -> None:
    scene.goahead()
    assert scene.guest is not None
    scene.guest.abort()
    scene.until(scene.recorded, "the move is recorded")
    (record,) = scene.moves()
    assert "aborted" in record["outcome"]
    assert record["goahead_ms"] >= 0
    assert "complete_ms" not in record
    scene.daemon.wait_log("vm-moved", "aborted")
    assert index(scene, "vmotion") == [record]


def test_last_ten_moves_are_kept(scene: Scene) -> None:
    scene.quiet = scene.mute = True
    for number in range(12):
        count = len(index(scene, "vmotion"))
        scene.goahead(bytes([number]))
        assert scene.guest is not None
        scene.guest.abort()
        scene.until(lambda count=count: len(index(scene, "vmotion")) > count, "it is recorded")  # type: ignore[misc]
    scene.until(lambda: scene.moves() == index(scene, "vmotion")[-10:], "the status has the last ten")


def test_goahead_near_the_limit_is_warned_of(start_daemon: StartDaemon, stack: ExitStack) -> None:
    scene = Scene(start_daemon("vmotion.limit=12s"), stack)
    source = scene.guest
    assert source is not None
    source.deaf = scene.quiet = scene.mute = True
    scene.fill()
    source.begin(SEQUENCE)
    waiting = [0]

    def long_enough() -> bool:
        waiting[0] += 1
        return waiting[0] > 1600  # turns of four milliseconds and more: beyond half the limit

    scene.until(long_enough, "the VM's host reads again")
    source.deaf = False
    scene.until(lambda: bool(source.pair()), "GOAHEAD")
    scene.complete(scene.target(source.pair() or b"", THERE))
    scene.until(scene.recorded, "the move is recorded")
    line = scene.daemon.wait_log("vm-moved", "moved")
    assert " warning " in line
    assert scene.moves()[0]["goahead_ms"] > 6000


def test_quick_goahead_is_not_warned_of(scene: Scene) -> None:
    scene.move()
    assert " warning " not in scene.daemon.wait_log("vm-moved", "moved")
