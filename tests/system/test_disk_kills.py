"""A worker is killed at each step of a log in trouble, of its end, and while it rotates: no byte is unaccounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import TcpClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.disks import Disk, joined, missing, small_disk
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.wait import until
from vspcd.unix.failpoint import POINTS

LINE = 64
WHILE_FULL = ("log.write", "log.spool", "log.spooled")
WHEN_THERE_IS_ROOM = (
    *("log.write", "log.wrote", "log.copied", "log.mark", "log.marked", "log.told", "log.skipped"),
    *("log.recovered", "log.cleared"),
)
ROTATING = ("log.rotate", "log.shifted", "log.renamed", "log.created", "log.write", "log.wrote")
OTHERS = ("log.sync", "log.synced", "log.displaced")


class Points:
    """The folder of armed failpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.visited: set[str] = set()

    def arm(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    def disarm(self, *names: str) -> None:
        """Note which have done their work, and take the others away."""
        for name in names:
            if (self.folder / name).exists():
                (self.folder / name).unlink()
            else:
                self.visited.add(name)


@pytest.fixture
def points(root: Path, monkeypatch: pytest.MonkeyPatch) -> Points:
    folder = root / "points"
    folder.mkdir()
    monkeypatch.setenv("VSPCD_FAILPOINTS", str(folder))
    return Points(folder)


@pytest.fixture
def disk(root: Path, stack: ExitStack) -> Disk:
    return stack.enter_context(small_disk(root / "log", "2M"))


class Stream:
    """A VM that says numbered lines, and a client that must never be hung up on nor miss one."""

    def __init__(self, daemon: Daemon, stack: ExitStack) -> None:
        self.daemon = daemon
        self.vm: FakeVm = stack.enter_context(daemon.dial())
        self.log = daemon.log_file(self.vm.console)
        self.client = stack.enter_context(TcpClient(daemon.port(self.vm.console)))
        self.client.send(b"!")
        assert self.vm.read(1) == b"!"
        self.said = b""

    def say(self, lines: int) -> None:
        more = numbered(len(self.said) // LINE, lines)
        self.said += more
        self.vm.send(more)
        assert self.client.read(len(more)) == more

    def settle(self) -> None:
        """Wait until all that was said is in the log, but for what its markers tell."""
        self.daemon.wait_console(self.vm.console, lambda c: c["log_trouble"] is None, "is logged again")
        self.say(1)
        until(lambda: joined(self.log).endswith(self.said[-LINE:]), "the end is logged")

    def check(self) -> int:
        """Every byte is in the log or accounted for in the log, the index and the status alike: how many are."""
        lost = missing(joined(self.log), self.said)
        assert lost == self.daemon.console(self.vm.console)["not_logged"] == sum(self.told_by_indexes())
        return lost

    def told_by_indexes(self) -> Iterator[int]:
        for path in self.log.parent.glob(f"{self.log.stem}.idx*"):
            for line in path.read_text().splitlines():
                if line.split(" ")[2] == "lost":
                    yield json.loads(line.split(" ", 3)[3])["bytes"]


def fall_into_trouble(stream: Stream, disk: Disk) -> None:
    stream.settle()
    disk.fill()
    stream.say(200)
    stream.daemon.wait_console(stream.vm.console, lambda c: bool(c["log_trouble"]), "is in trouble")


@pytest.mark.parametrize("spool", ["1M", "16K", "off"])
def test_deaths_in_trouble_and_at_its_end_are_exact(
    disk: Disk, points: Points, start_daemon: StartDaemon, stack: ExitStack, spool: str
) -> None:
    stream = Stream(start_daemon("log.reserve=off", f"log.spool={spool}"), stack)
    for name in WHILE_FULL:
        fall_into_trouble(stream, disk)
        points.arm(name)
        stream.say(300)
        points.disarm(name)
        disk.make_room()
    for name in WHEN_THERE_IS_ROOM:
        fall_into_trouble(stream, disk)
        stream.say(300)
        points.arm(name)
        disk.make_room()
        stream.settle()
        points.disarm(name)
    stream.settle()
    lost = stream.check()
    assert bool(lost) == (spool != "1M")
    if spool == "16K":
        assert points.visited == {*WHILE_FULL, *WHEN_THERE_IS_ROOM}


@pytest.mark.parametrize("again", ["log.created", "log.copied", "log.mark", "log.told", "log.recovered"])
def test_deaths_in_trouble_and_again_while_another_goes_on_are_exact(
    disk: Disk, points: Points, start_daemon: StartDaemon, stack: ExitStack, again: str
) -> None:
    stream = Stream(start_daemon("log.reserve=off", "log.spool=16K"), stack)
    for name in ("log.spooled", "log.copied", "log.marked", "log.told", "log.skipped"):
        fall_into_trouble(stream, disk)
        stream.say(300)
        points.arm(name, again)
        disk.make_room()
        stream.settle()
        points.disarm(name, again)
    assert stream.check() > 0
    assert again in points.visited


@pytest.mark.parametrize("keep", ["0", "99"])
def test_deaths_while_rotating_are_exact(
    points: Points, start_daemon: StartDaemon, stack: ExitStack, keep: str
) -> None:
    stream = Stream(start_daemon("log.max_size=16K", f"log.keep={keep}"), stack)
    for name in ROTATING * 2:
        stream.say(300)
        points.arm(name)
        stream.say(600)
        points.disarm(name)
    stream.settle()
    log = joined(stream.log)
    assert stream.said.endswith(log)
    assert keep == "0" or log == stream.said
    assert points.visited == set(ROTATING)


def test_a_death_with_sync_always_is_exact(
    points: Points, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start_daemon("log.sync=always"), stack)
    for name in ("log.sync", "log.synced"):
        points.arm(name)
        stream.say(100)
        points.disarm(name)
    assert joined(stream.log) == stream.said
    assert points.visited == {"log.sync", "log.synced"}


def test_a_death_just_when_a_removed_log_is_found_out_is_counted(
    points: Points, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start_daemon(), stack)
    stream.say(10)
    points.arm("log.displaced")
    stream.log.unlink()
    until(lambda: stream.say(1) or stream.log.exists(), "there is a log again")  # type: ignore[func-returns-value]
    stream.settle()
    assert not points.folder.joinpath("log.displaced").exists()
    log = joined(stream.log)
    marker = log[: log.index(b"]\r\n") + 3]
    assert b"bytes not logged: the log file was removed" in marker
    assert stream.said.endswith(log[len(marker) :])
    removed = 10 * LINE  # what it held when it was seen last may have been all of this, or nothing
    counted = stream.daemon.console(stream.vm.console)["not_logged"]
    assert len(stream.said) - removed <= counted + len(log) - len(marker) <= len(stream.said)


def test_every_point_of_the_log_is_visited_here() -> None:
    visited = {*WHILE_FULL, *WHEN_THERE_IS_ROOM, *ROTATING, *OTHERS}
    assert visited == {name for name in POINTS if name.startswith("log.")}
