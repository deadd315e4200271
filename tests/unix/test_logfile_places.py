"""Console logs that others rename, and that are opened again: every byte stays where its position says."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import pytest

from tests.unix.logs import Folder
from tests.unix.test_logfile import noise, read_all
from tests.unix.turning import open_descriptors
from vspcd.core.indexfile import Index
from vspcd.unix import logindex
from vspcd.unix.logdoubt import Doubts
from vspcd.unix.logfile import LogFile
from vspcd.unix.page import HEAD, LOG_TROUBLE

EVERYTHING = bytes(range(256))


# Rename and reopen


def rename_away(folder: Folder, *suffixes: str) -> None:
    for suffix in suffixes:
        os.rename(folder.file(suffix), folder.file(f"{suffix}.moved"))


def test_nothing_is_lost_when_someone_renames_the_log_and_says_so(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before,")
    rename_away(folder, "log", "idx")
    log.append(b"between,")
    log.reopen()
    log.append(b"after")
    assert folder.content("log.moved") == b"before,between,"
    assert folder.content() == b"after"
    assert folder.at(15, 5) == b"after"
    assert read_all(log, 0) == b"before,between,after"


SHORT, MARKED = b"hello", b"\r\n[vspcd: "


def marked(folder: Folder) -> LogFile:
    """A console's first log, with a marker in it that is longer than all that was said."""
    log = folder.log()
    log.append(SHORT)
    Doubts(folder.page).note(0, len(SHORT), errno.EIO)
    Doubts(folder.page).is_over()
    log.look_for_doubts()
    assert MARKED in folder.content()
    return log


@pytest.mark.parametrize("left", [0, 3, len(SHORT) + 4])
def test_a_first_log_with_a_marker_may_be_cut_while_nobody_writes_it(folder: Folder, left: int) -> None:
    marked(folder).close()
    os.truncate(folder.file(), left)
    for count in range(1, 4):
        log = folder.log()
        log.append(b"later")
        assert folder.content()[left:] == b"later" * count
        assert log.head == len(SHORT) + len(b"later") * count
        assert folder.at(log.head - 5, 5) == b"later"
        log.close()


@pytest.mark.parametrize("trouble", [0, errno.ENOSPC])
@pytest.mark.parametrize("moved", [False, True])
def test_a_first_log_with_a_marker_may_be_cut_when_its_worker_dies(
    folder: Folder, trouble: int, moved: bool
) -> None:
    marked(folder)
    folder.page.words[HEAD] = len(SHORT)
    folder.page.words[LOG_TROUBLE] = trouble
    os.truncate(folder.file(), 0)
    if moved:
        os.rename(folder.file(), folder.file("log.moved"))
    log = folder.log(resume=len(SHORT))
    log.append(b"later")
    assert folder.content().endswith(b"later")
    assert log.head == len(SHORT) + len(b"later")


def test_reopening_without_a_rename_changes_nothing(folder: Folder) -> None:
    log = folder.log()
    log.append(b"one,")
    before = folder.content("idx")
    log.reopen()
    log.append(b"two")
    assert folder.content() == b"one,two"
    assert folder.content("idx") == before


def test_a_log_that_was_deleted_is_begun_again(folder: Folder) -> None:
    log = folder.log()
    log.append(b"one")
    log.reopen()
    folder.file().unlink()
    log.reopen()
    log.append(b"two")
    assert folder.content() == b"two"
    assert folder.at(3, 3) == b"two"


def test_when_only_the_index_was_renamed_the_new_one_fits_the_log(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    log.append(noise(1000))
    log.append(b"abc")
    rename_away(folder, "idx")
    log.reopen()
    log.append(b"def")
    assert folder.content() == b"abcdef"
    assert folder.at(1003, 3) == b"def"


def test_when_only_the_log_was_renamed_the_index_goes_on_with_a_new_base(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before,")
    rename_away(folder, "log")
    log.reopen()
    log.append(b"after")
    assert folder.at(7, 5) == b"after"


def test_reopening_leaks_no_descriptor(folder: Folder) -> None:
    log = folder.log()
    before = len(open_descriptors())
    for number in range(5):
        log.append(b"x")
        for suffix in ("log", "idx"):
            os.rename(folder.file(suffix), folder.file(f"{suffix}.{number}"))
        log.reopen()
        log.release(log.head)
    assert len(open_descriptors()) <= before


# Restarts


def restarted(folder: Folder, log: LogFile, **settings: Any) -> LogFile:
    log.close()
    return folder.log(**settings)


def test_positions_go_on_over_a_restart(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before,")
    log = restarted(folder, log)
    assert log.head == 7
    log.append(b"after")
    assert folder.at(7, 5) == b"after"
    assert read_all(log, 0) == b"before,after"


def test_positions_go_on_over_a_rotation_and_a_restart(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    data = noise(1700)
    log.append(data[:1000])
    log.append(data[1000:])
    log = restarted(folder, log, max_size=1000)
    assert log.head == 1700
    assert log.read(1000, 700) == data[1000:]
    assert log.read(0, 10) is None
    assert log.next_readable(0) == 1000


def test_positions_go_on_when_the_rotation_was_the_last_thing_before_a_restart(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    log.append(noise(1000))
    assert restarted(folder, log).head == 1000


def test_positions_go_on_when_the_log_was_renamed_while_nobody_served_the_console(folder: Folder) -> None:
    """logrotate takes *.log; the index stays, and its last line tells how far the journal was."""
    log = folder.log()
    log.append(b"before,")
    log.event("stopped", {})
    log.close()
    rename_away(folder, "log")
    log = folder.log()
    assert log.head == 7
    log.append(b"after")
    assert folder.at(7, 5) == b"after"


def test_positions_go_on_when_a_rotation_was_cut_short(folder: Folder) -> None:
    """Killed between the two renames: the log is new, the index is not."""
    log = folder.log(max_size=1000)
    log.append(noise(900))
    log.event("rotated", {})
    log.close()
    rename_away(folder, "log")
    assert folder.log().head == 900


def test_a_log_without_its_index_is_read_from_its_beginning(folder: Folder) -> None:
    folder.file().write_bytes(b"older")
    log = folder.log()
    log.append(b",new")
    assert (log.head, read_all(log, 0)) == (9, b"older,new")


def test_a_damaged_index_is_no_obstacle(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before,")
    log.close()
    with folder.file("idx").open("ab") as index:
        index.write(b"\x00\xff garbage\n1 2\n 9 base\n12 x base\n34")
    log = folder.log()
    assert log.head == 7
    log.append(b"after")
    assert folder.content() == b"before,after"


def test_a_line_cut_off_by_a_crash_does_not_cost_the_position(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    log.append(noise(1000))
    log.close()
    with folder.file("idx").open("ab") as index:
        index.write(b"1234 56")
    folder.log(max_size=1000).append(b"after")
    assert folder.log().head == 1005


def test_a_long_index_does_not_slow_a_start(folder: Folder) -> None:
    """A month of marks on a console that talks all the time, and no rotation."""
    folder.file().write_bytes(b"x" * 100)
    line = b"1700000000000 12345 mark\n"
    folder.file("idx").write_bytes(b"1700000000000 12300 base\n" + line * (16 * 1024 * 1024 // len(line)))
    begun = time.process_time()
    log = folder.log()
    assert time.process_time() - begun < 6  # by far less; looking at blocks again and again takes a minute
    assert log.head == 12400


def test_the_base_is_found_wherever_it_lies_in_the_index(folder: Folder) -> None:
    folder.file().write_bytes(b"x" * 10)
    line = b"1700000000000 777 mark\n"
    for before in range(logindex.BLOCK // len(line) - 3, logindex.BLOCK // len(line) + 3):
        folder.file("idx").write_bytes(b"1700000000000 770 base\n" + line * before)
        log = folder.log()
        assert log.head == 780
        log.close()


# The index


def test_marks_tell_at_most_once_a_second_how_far_the_journal_was(folder: Folder) -> None:
    log = folder.log()
    for _ in range(100):
        log.append(b"x")
    assert folder.words().count("mark") == 1


def test_an_event_is_noted_with_its_position_and_facts(folder: Folder) -> None:
    log = folder.log()
    log.append(b"abc")
    log.event("renamed", {"to": "web\n01 \x1b größe"})
    entry = list(Index(folder.content("idx")).entries())[-1]
    assert (entry[0].word, entry[1]) == ("renamed", 3)
    assert entry[0].details() == {"to": "web\n01 \x1b größe"}


def test_somebody_is_asked_to_bring_bytes_to_the_disk_but_not_for_each(folder: Folder) -> None:
    log = folder.log()
    for _ in range(100):
        log.append(b"x")
    assert folder.changes == 1


@pytest.mark.parametrize("sync", ["always", "never"])
def test_nobody_is_asked_when_bytes_are_synced_at_once_or_never(folder: Folder, sync: str) -> None:
    folder.log(sync=sync).append(b"x")
    assert folder.changes == 0
