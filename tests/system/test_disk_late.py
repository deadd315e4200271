"""A disk that refuses what the system has taken for it: what may be missing is counted, or written again."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.disks import Disk, joined, make_ext4, mount, small_disk, unmount
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.wait import throughout, until

FULL = "No space left on device"
MARKER = re.compile(rb"\r\n\[vspcd: up to (\d+) bytes since position (\d+) may be missing: ([^\]]*)\]\r\n")
LINE = 64


@contextmanager
def thin_disk(path: Path, beside: Path) -> Iterator[Disk]:
    """A file system at ``path`` that promises more room than the disk below it has: the one that this returns."""
    with small_disk(beside, "16M") as below:
        path.mkdir(parents=True, exist_ok=True)
        image = beside / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        make_ext4(image, "-b", 4096, "-O", "^has_journal", "-E", "nodiscard")
        mount("-o", "loop,errors=continue", image, path)
        try:
            yield below
        finally:
            unmount(path)


@pytest.fixture
def below(root: Path) -> Iterator[Disk]:
    """The disk below the one that the daemon's logs are on."""
    with thin_disk(root / "log", root / "below") as found:
        yield found


class Talker:
    """A VM that says numbered lines."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon = daemon
        self.vm: FakeVm = daemon.dial(name=name)
        self.name = self.vm.console
        self.log = daemon.log_file(self.name)
        self.said = b""

    def say(self, lines: int) -> None:
        more = numbered(len(self.said) // LINE, lines)
        self.said += more
        self.vm.send(more)
        self.daemon.wait_console(self.name, lambda c: bool(c["bytes_in"] == len(self.said)), "is heard")

    def say_until_in_trouble(self) -> None:
        """Say so much that the disk below must have refused some of it."""
        self.say(60_000)
        self.daemon.wait_console(
            self.name, lambda c: "may be missing" in (c["log_trouble"] or ""), "is in doubt"
        )

    def doubts(self) -> list[tuple[int, int]]:
        """By the markers: since when, and how many bytes."""
        return [(int(found[2]), int(found[1])) for found in MARKER.finditer(joined(self.log))]

    def told_by_index(self) -> list[tuple[int, int]]:
        files = [*sorted(self.log.parent.glob("*.idx.*"), reverse=True), self.log.with_suffix(".idx")]
        mine = [path for path in files if path.name.startswith(self.log.stem)]
        lines = [line.split(" ", 3) for path in mine for line in path.read_text().splitlines()]
        facts = [json.loads(line[3]) for line in lines if line[2] == "in-doubt"]
        return [(fact["since"], fact["bytes"]) for fact in facts]


def without_markers(log: bytes) -> bytes:
    return MARKER.sub(b"", log)


def drop_caches() -> None:
    """What the disk has refused is gone for good then."""
    subprocess.run(["sync"], check=False)
    Path("/proc/sys/vm/drop_caches").write_text("3")


def test_what_the_disk_refuses_afterwards_is_counted_in_log_index_and_status(
    below: Disk, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon("log.reserve=off")
    talker, quiet = Talker(daemon, "web01"), Talker(daemon, "quiet")
    for each in (talker, quiet):
        each.say(10)
    safe = 10 * LINE
    assert throughout(lambda: True, 1.5)  # they are brought to the disk within a second
    below.fill()
    talker.say_until_in_trouble()
    daemon.wait_log("log-not-synced", talker.name, FULL)
    below.make_room()
    daemon.wait_console(
        talker.name, lambda c: c["log_trouble"] is None and c["in_doubt"] > 0, "has told of it"
    )
    talker.say(10)
    doubts = talker.doubts()
    assert doubts == talker.told_by_index()
    assert sum(size for _, size in doubts) == daemon.console(talker.name)["in_doubt"]
    assert quiet.doubts() == []
    assert daemon.console(quiet.name)["in_doubt"] == 0
    assert without_markers(joined(talker.log)) == talker.said
    daemon.stop()
    drop_caches()
    assert talker.doubts() == doubts
    log = without_markers(joined(talker.log))
    assert len(log) == len(talker.said)
    wrong = [at for at in range(0, len(log), LINE) if log[at : at + LINE] != talker.said[at : at + LINE]]
    assert wrong, "the disk has everything: nothing was tried"
    assert all(any(since <= at < since + size for since, size in doubts) for at in wrong)
    assert min(since for since, _ in doubts) >= safe


def test_a_worker_that_dies_before_it_could_tell_leaves_it_to_the_next_one(
    below: Disk, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon("log.reserve=off")
    talker = Talker(daemon, "web01")
    below.fill()
    talker.say_until_in_trouble()
    pid = daemon.worker(talker.name)
    processes.kill(pid)
    below.make_room()
    until(lambda: (daemon.console(talker.name)["worker"] or {"pid": pid})["pid"] != pid, "another goes on")
    daemon.wait_console(
        talker.name, lambda c: c["log_trouble"] is None and c["in_doubt"] > 0, "has told of it"
    )
    assert talker.doubts() == talker.told_by_index()
    assert sum(size for _, size in talker.doubts()) == daemon.console(talker.name)["in_doubt"]


def test_a_doubt_outlives_the_master(below: Disk, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("log.reserve=off")
    talker = Talker(daemon, "web01")
    below.fill()
    talker.say_until_in_trouble()
    processes.kill(daemon.pid)
    daemon.wait_end()
    below.make_room()
    daemon.start()
    daemon.wait_console(
        talker.name, lambda c: c["log_trouble"] is None and c["in_doubt"] > 0, "has told of it"
    )
    assert talker.doubts() == talker.told_by_index()


def test_with_sync_always_what_the_disk_refuses_is_written_again(
    below: Disk, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon("log.reserve=off", "log.sync=always", "log.spool=16M")
    talker = Talker(daemon, "web01")
    talker.say(10)
    below.fill()
    talker.say(30_000)
    daemon.wait_console(talker.name, lambda c: c["log_trouble"] == FULL, "is in trouble")
    below.make_room()
    daemon.wait_console(talker.name, lambda c: c["log_trouble"] is None, "is logged again")
    assert joined(talker.log) == talker.said
    console = daemon.console(talker.name)
    assert (console["not_logged"], console["in_doubt"]) == (0, 0)
    daemon.stop()
    drop_caches()
    assert joined(talker.log) == talker.said
    assert os.stat(talker.log).st_size == len(talker.said)
