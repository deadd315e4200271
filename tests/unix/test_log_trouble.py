"""What a log does in trouble and once a second: the spool, the marker, the files that others touch, sync and space."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.logs import STEM, Folder, disk_full_at, no_descriptors
from tests.unix.test_logfile import noise, read_all
from vspcd.unix import logfile, logindex
from vspcd.unix.lognotes import FILE_GONE, why
from vspcd.unix.page import LOG_TROUBLE, NOT_LOGGED

MARKER = re.compile(rb"\r\n\[vspcd: (\d+) bytes not logged: ([^\]]*)\]\r\n")
PAST = 20000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setattr(logfile, "ROTATE_RETRY", 0.0)
    (tmp_path / "log").mkdir()
    made = Folder(tmp_path / "log")
    yield made
    made.close()


@pytest.fixture
def spool(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def test_what_a_full_disk_refuses_is_logged_by_a_timer(folder: Folder, spool: str) -> None:
    log = folder.log(spool=5000, spool_dir=spool)
    said = noise(PAST)
    log.append(said)
    with disk_full_at(PAST):
        log.append(b"first,")
        log.append(b"second")
        folder.tick()
        assert folder.content() == said
        assert folder.page.words[LOG_TROUBLE]
    folder.tick()
    assert folder.content() == said + b"first,second"
    assert folder.page.words[LOG_TROUBLE] == 0
    assert not list(Path(spool).iterdir())
    assert log.not_logged == 0


def test_nobody_is_called_while_all_is_well(folder: Folder) -> None:
    log = folder.log()
    log.append(b"abc")
    assert folder.waiting == []


def test_a_failing_log_is_not_tried_at_every_chunk(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "RETRY", 60.0)
    log = folder.log(spool=5000, spool_dir=str(folder.path))
    log.append(noise(PAST))
    with disk_full_at(PAST):
        log.append(b"x")
    log.append(b"y")
    assert len(folder.content()) == PAST
    assert len(folder.waiting) == 1


def test_logged_then_spooled_then_marked_then_what_follows(folder: Folder, spool: str) -> None:
    log = folder.log(spool=10, spool_dir=spool)
    said = noise(PAST)
    log.append(said)
    with disk_full_at(PAST):
        log.append(b"0123456789lost")
        log.append(b"lost too")
        assert log.not_logged == folder.page.words[NOT_LOGGED] == 12
    folder.tick()
    log.append(b"after")
    assert folder.content() == said + b"0123456789\r\n[vspcd: 12 bytes not logged: File too large]\r\nafter"
    assert log.not_logged == folder.page.words[NOT_LOGGED] == 12
    assert folder.at(PAST + 10 + 12, 5) == b"after"
    assert read_all(log, PAST + 22) == b"after"


def test_what_is_spooled_can_be_read(folder: Folder, spool: str) -> None:
    log = folder.log(spool=1 << 20, spool_dir=spool)
    said = noise(4 * logfile.TAIL)
    log.append(said[:PAST])
    with disk_full_at(4 * logfile.TAIL):
        log.append(said[PAST:] + b"more")
        later = noise(3 * logfile.TAIL, 2)
        log.append(later)
        assert read_all(log, 0) == said + b"more" + later


def test_a_spool_is_found_and_written_by_who_comes_next(folder: Folder, spool: str) -> None:
    log = folder.log(spool=5000, spool_dir=spool)
    said = noise(PAST)
    log.append(said)
    with disk_full_at(PAST):
        log.append(b"spooled")
        log.close()
    log = folder.log(spool=5000, spool_dir=spool)
    assert folder.content() == said + b"spooled"
    assert log.head == PAST + 7


def test_a_spool_of_which_a_part_is_in_the_log_is_not_written_twice(folder: Folder, spool: str) -> None:
    log = folder.log(spool=5000, spool_dir=spool)
    said = noise(PAST)
    log.append(said)
    with disk_full_at(PAST):
        log.append(b"spooled")
        log.close()
    with folder.file().open("ab") as file:
        file.write(b"spo")
    log = folder.log(spool=5000, spool_dir=spool)
    assert folder.content() == said + b"spooled"


def test_half_a_marker_is_taken_away_before_anything_follows(folder: Folder) -> None:
    log = folder.log()
    log.append(b"p" * 5000)
    with disk_full_at(5000):
        log.append(b"lost")
    with disk_full_at(5020):
        folder.tick()
        assert len(folder.content()) == 5020
    folder.tick()
    log.append(b"after")
    assert MARKER.sub(b"|", folder.content()) == b"p" * 5000 + b"|after"


# Files that others touch.


def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LOOK_EVERY", 0.0)


def test_files_are_looked_after_once_a_second_and_not_at_every_chunk(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = folder.log()
    log.append(b"abc")
    looks: list[float] = []
    monkeypatch.setattr(log, "_look", looks.append)
    for _ in range(1000):
        log.append(b"x")
    assert looks == []


def test_a_removed_folder_is_made_again_with_what_came_since(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_once(monkeypatch)
    log = folder.log(dir=str(folder.path))
    log.append(b"seen,")
    log.reopen()
    log._last_look = float("inf")
    log.append(b"unseen,")
    shutil.rmtree(folder.path)
    log._last_look = 0.0
    log.append(b"after")
    assert folder.content() == b"unseen,after"
    assert log.not_logged == 0
    assert folder.page.words[LOG_TROUBLE] == 0
    assert folder.path.stat().st_mode & 0o777 == 0o750


def test_what_a_removed_file_had_is_written_again_when_it_is_much(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = folder.log(dir=str(folder.path))
    log.append(b"seen")
    log.reopen()
    said = noise(3 * logfile.COPY_AT_ONCE)
    log.append(said)
    folder.file().unlink()
    log.reopen()
    assert folder.content() == said


def test_a_file_that_cannot_be_made_again_costs_what_is_counted(folder: Folder) -> None:
    log = folder.log(dir=str(folder.path))
    log.append(b"seen,")
    log.reopen()
    log.append(b"unseen,")
    folder.file().unlink()
    with no_descriptors():
        log.reopen()
        log.append(b"lost")
    folder.tick()
    log.append(b"after")
    assert MARKER.sub(b"|", folder.content()) == b"unseen,|after"
    assert log.not_logged == 4


def test_the_notes_of_a_dead_worker_tell_what_went_with_a_removed_file(folder: Folder) -> None:
    log = folder.log()
    log.append(b"seen,")
    log.reopen()
    log.append(b"unseen")
    folder.file().unlink()
    log.close()
    folder.page.words[0] = 11
    heir = folder.log(resume=11)
    assert folder.content() == f"\r\n[vspcd: 6 bytes not logged: {why(FILE_GONE)}]\r\n".encode()
    assert (heir.head, heir.not_logged) == (11, 6)


def test_a_file_that_was_renamed_as_its_worker_died_is_found(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    os.rename(folder.file(), folder.file("log.moved"))
    log.close()
    heir = folder.log(resume=3)
    assert heir.head == 6
    heir.append(b"after")
    assert folder.content() == b"after"
    assert folder.at(6, 5) == b"after"


# The index.


def test_a_log_without_an_index_is_written_all_the_same(folder: Folder) -> None:
    (folder.file("idx")).mkdir()
    log = folder.log()
    log.append(b"abc")
    assert folder.content() == b"abc"
    assert log.not_logged == 0
    assert folder.troubles == ["no index: Is a directory"]


def test_an_index_that_can_be_opened_later_has_the_base_that_fits(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_once(monkeypatch)
    folder.file("idx").mkdir()
    log = folder.log()
    log.append(b"abc")
    folder.file("idx").rmdir()
    log.append(b"def")
    assert folder.bases() == [0]


def test_a_base_that_could_not_be_written_is_written_before_anything_else(folder: Folder) -> None:
    log = folder.log()
    log.append(b"p" * 5000)
    log.event("many", {"x": "y" * 10000})
    size = len(folder.content("idx"))
    with disk_full_at(5000):
        log.append(b"lost")
    with disk_full_at(size):
        log.retry()
    assert folder.content("idx").count(b" base\n") == 1
    log.event("next", {})
    assert folder.words()[-2:] == ["base", "next"]
    assert folder.at(5004, 1) == b""
    log.append(b"after")
    assert folder.at(5004, 5) == b"after"


def test_a_line_cut_off_by_a_full_disk_does_not_spoil_the_next(folder: Folder) -> None:
    log = folder.log()
    with disk_full_at(len(folder.content("idx")) + 9):
        log.event("cut", {})
    log.event("whole", {})
    assert folder.content("idx").splitlines()[-1].endswith(b" 0 whole")


def test_the_last_marker_is_found_however_long_the_index_is(folder: Folder) -> None:
    log = folder.log()
    log.append(b"p" * 5000)
    with disk_full_at(5000):
        log.append(b"lost")
    log.retry()
    log.append(b"after")
    with folder.file("idx").open("ab") as index:
        index.write(b"1700000000000 5006 mark\n" * (3 * logindex.BLOCK // 24))
    log.close()
    log = folder.log()
    assert read_all(log, 5004) == b"after"
    assert log.read(4990, 100) is None


# Sync.


@pytest.mark.parametrize(("sync", "synced", "asked"), [("always", 3, 0), ("interval", 0, 1), ("never", 0, 0)])
def test_who_brings_bytes_to_the_disk(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, sync: str, synced: int, asked: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    log = folder.log(sync=sync)
    for number in range(3):
        log.append(b"abc")
        assert len(calls) == (number + 1 if synced else 0)
    assert (len(calls), folder.changes) == (synced, asked)


# Without a log.


def test_without_a_log_a_lagging_reader_finds_what_left_memory(folder: Folder, tmp_path: Path) -> None:
    log = folder.log(enabled=False, spool_dir=str(tmp_path / "journal"))
    said = noise(300000)
    for at in range(0, len(said), 10000):
        log.append(said[at : at + 10000])
    assert read_all(log, 0) == said
    assert list(folder.path.iterdir()) == []
    log.close()
    assert list((tmp_path / "journal").iterdir()) == []


def test_without_a_log_who_comes_next_goes_on_from_what_was_kept(folder: Folder, tmp_path: Path) -> None:
    kept = str(tmp_path / "journal")
    log = folder.log(enabled=False, spool_dir=kept)
    said = noise(400000)
    for at in range(0, len(said), 10000):
        log.append(said[at : at + 10000])
    heir = folder.log(resume=len(said), enabled=False, spool_dir=kept)
    assert heir.head == len(said)
    heir.reach(100000)
    assert read_all(heir, 200000) == said[200000:]


def test_without_a_log_nothing_is_counted_and_nobody_is_told(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"a file in the place of the folder")
    log = folder.log(enabled=False, spool_dir=str(tmp_path / "journal"))
    log.append(b"abc")
    assert log.read(0, 3) == b"abc"
    assert (log.not_logged, folder.page.words[LOG_TROUBLE], folder.troubles, folder.waiting) == (0, 0, [], [])


def test_a_new_console_does_not_see_what_was_kept_for_an_old_one(folder: Folder, tmp_path: Path) -> None:
    kept = tmp_path / "journal"
    kept.mkdir()
    (kept / f"{STEM}.tail").write_bytes(b"old")
    log = folder.log(enabled=False, spool_dir=str(kept))
    assert log.head == 0
    log.append(b"new")
    assert (kept / f"{STEM}.tail").read_bytes() == b"new"
