"""What the keeper makes of a disk that refuses what the system had taken: whose bytes, how many, since when."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from vspcd.unix import logdoubt
from vspcd.unix.logdoubt import Doubts, trouble_of
from vspcd.unix.logfile import LogFile
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.page import Arena
from workers.disksync import WORD, DiskSync

STEM = "01234567-89ab-cdef-fedc-ba98000000{:02}"


class Disk:
    """Syncs as it is told to: ``refuses`` holds the inodes that have met an error, once each, as the system has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses: set[int] = set()
        self.failing = False
        self.syncs = 0
        self.before: Callable[[], None] = lambda: None
        monkeypatch.setattr("ctypes.CDLL", lambda *_args, **_words: self)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def syncfs(self, _fd: int) -> int:
        self.syncs += 1
        self.before()
        failing, self.failing = self.failing, False
        if failing or self.refuses:
            ctypes.set_errno(errno.EIO)
            return -1
        return 0

    def fdatasync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        if inode in self.refuses:
            self.refuses.discard(inode)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Console:
    """A worker's log, which speaks to a keeper."""

    def __init__(self, stage: Stage, number: int, **settings: object) -> None:
        self.stage = stage
        self.number = stage.arena.take()
        self.page = stage.arena.page(self.number)
        self.stem = STEM.format(number)
        self.path = stage.folder / f"{self.stem}.log"
        ties = Ties(self._changed, lambda _reason: None, lambda _seconds, _call: None)
        chosen = LogSettings(**{"spool": 0, "dir": str(stage.folder), **settings})  # type: ignore[arg-type]
        self.log = LogFile(os.dup(stage.directory), chosen, self.page, ties)
        self.log.begin(self.stem, chosen)

    def _changed(self, inode: int) -> bool:
        self.stage.sync.heard(WORD.pack(self.number, inode))
        return True

    def say(self, data: bytes, word: bool = True) -> None:
        self.log._last_sync = -1e9 if word else 1e18  # what 0.4 s do otherwise
        self.log.append(data)
        self.page.words[0] = self.log.head

    def refused(self) -> None:
        self.stage.disk.refuses.add(self.path.stat().st_ino)


class Stage:
    """A keeper's duty with the disk, and the arena."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.disk = Disk(monkeypatch)
        self.arena = Arena()
        self.directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.sync = self.keeper()

    def keeper(self) -> DiskSync:
        return DiskSync(self.directory, str(self.folder), self.arena.fd, self.arena.in_use())


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    os.close(made.directory)


def doubt(console: Console) -> tuple[int, int]:
    found = Doubts(console.page).open
    assert found is not None, "nothing is in doubt"
    return found.since, found.until


def test_a_quiet_disk_is_left_alone(stage: Stage) -> None:
    assert not stage.sync.waits


def test_what_came_since_the_last_good_sync_is_in_doubt_and_nothing_before(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    assert stage.sync.sync() == []
    console.say(b"b" * 50)
    console.refused()
    (message,) = stage.sync.sync()
    assert message["type"] == "not-synced"
    assert (message["console"], message["bytes"]) == (console.stem, 50)
    assert doubt(console) == (100, 150)


def test_what_is_said_during_a_sync_is_not_taken_for_safe(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    stage.disk.before = lambda: console.say(b"b" * 50, word=False)
    assert stage.sync.sync() == []
    stage.disk.before = lambda: None
    console.refused()
    stage.sync.sync()
    assert doubt(console) == (100, 150)


def test_a_console_that_was_spared_is_not_in_doubt_nor_one_that_is_silent(stage: Stage) -> None:
    one, other, silent = (Console(stage, number) for number in range(3))
    for console in (one, other):
        console.say(b"a" * 100)
    one.refused()
    silent.refused()
    messages = stage.sync.sync()
    assert [message["console"] for message in messages] == [one.stem]
    assert Doubts(other.page).open is None
    other.say(b"b" * 10)
    other.refused()
    stage.sync.sync()
    assert doubt(other) == (100, 110)


def test_an_error_that_is_somebody_elses_puts_nothing_in_doubt(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    stage.disk.failing = True
    assert stage.sync.sync() == []
    assert Doubts(console.page).open is None


def test_the_log_is_to_tell_when_the_disk_works_again(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    console.refused()
    stage.sync.sync()
    console.log.look_for_doubts()
    assert console.path.read_bytes() == b"a" * 100
    assert trouble_of(console.page) == "up to 100 bytes since position 0 may be missing: Input/output error"
    assert stage.sync.waits
    assert stage.sync.sync() == [{"type": "in-doubt", "page": console.number}]
    console.log.look_for_doubts()
    marker = b"\r\n[vspcd: up to 100 bytes since position 0 may be missing: Input/output error]\r\n"
    assert console.path.with_suffix(".log.1").read_bytes() == b"a" * 100
    assert console.path.read_bytes() == marker
    assert trouble_of(console.page) == ""
    assert Doubts(console.page).bytes == 100


def test_a_disk_that_goes_on_failing_is_one_doubt(stage: Stage) -> None:
    console = Console(stage, 1)
    for _ in range(3):
        console.say(b"a" * 100)
        console.refused()
        stage.sync.sync()
    assert doubt(console) == (0, 300)


def test_a_marker_that_is_refused_puts_nothing_in_doubt(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    console.refused()
    stage.sync.sync()
    stage.sync.sync()
    console.log._last_sync = -1e9
    console.log.look_for_doubts()
    console.refused()
    assert stage.sync.waits
    assert stage.sync.sync() == []
    assert Doubts(console.page).open is None


def test_what_comes_just_behind_a_word_is_synced_without_another_one(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a")
    stage.sync.sync()
    console.say(b"b" * 9, word=False)
    assert stage.sync.waits
    console.refused()
    stage.sync.sync()
    assert doubt(console) == (1, 10)
    stage.sync.sync()
    assert not stage.sync.waits


def test_a_file_that_was_rotated_since_is_asked_too(stage: Stage) -> None:
    console = Console(stage, 1, max_size=100)
    console.say(b"a" * 80)
    console.refused()
    console.say(b"b" * 50, word=False)
    assert console.path.with_suffix(".log.1").exists()
    stage.sync.sync()
    assert doubt(console) == (0, 130)


def test_another_keeper_looks_after_what_the_dead_one_was_told(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    stage.sync.sync()
    console.say(b"b" * 20, word=False)
    console.refused()
    stage.sync = stage.keeper()
    assert stage.sync.waits
    stage.sync.sync()
    assert doubt(console) == (100, 120)


def test_with_another_way_to_sync_nobody_is_looked_after(stage: Stage) -> None:
    console = Console(stage, 1, sync="never")
    console.say(b"a" * 100)
    assert not stage.sync.waits
    assert not stage.keeper().waits


def test_what_was_there_before_the_log_was_opened_is_not_in_doubt(stage: Stage) -> None:
    (stage.folder / f"{STEM.format(1)}.log").write_bytes(b"of old" * 100)
    console = Console(stage, 1)
    begin = console.log.head
    console.say(b"new")
    console.refused()
    stage.sync.sync()
    assert doubt(console) == (begin, begin + 3)


def test_of_a_console_whose_worker_has_ended_the_master_is_told(stage: Stage) -> None:
    console = Console(stage, 1)
    console.say(b"a" * 100)
    stage.sync.sync()
    console.say(b"b" * 30)
    console.refused()
    console.log.close()
    stage.arena.give_back(console.number)
    assert stage.arena.take() == console.number  # another worker has the page, empty
    (message,) = stage.sync.sync()
    assert (message["console"], message["bytes"]) == (console.stem, 30)
    assert Doubts(console.page).open is None


def test_a_folder_that_was_replaced_is_the_one_that_is_synced(stage: Stage) -> None:
    stage.folder.rename(stage.folder.with_name("away"))
    stage.folder.mkdir()
    console = Console(stage, 1)
    console.say(b"a" * 10)
    stage.sync.sync()
    assert os.fstat(stage.directory).st_ino == stage.folder.stat().st_ino


def test_doubts_grow_until_the_log_tells_of_them_and_begin_anew_then(stage: Stage) -> None:
    doubts = Doubts(stage.arena.page(stage.arena.take()))
    doubts.note(5, 10, errno.EIO)
    doubts.note(10, 12, errno.EIO)
    assert doubts.open == logdoubt.Doubt(5, 12, errno.EIO, 0)
    doubts.is_over()
    found = doubts.open
    assert found is not None
    assert found.over
    doubts.told(found)
    assert doubts.open is None
    doubts.note(20, 25, errno.EIO)
    assert doubts.open == logdoubt.Doubt(20, 25, errno.EIO, 0)
    assert doubts.bytes == 7
