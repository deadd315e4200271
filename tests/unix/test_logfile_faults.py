"""Disks in trouble: the console goes on, and every byte that was not logged is counted."""

from __future__ import annotations

import os
import re

import pytest

from tests.unix.logs import Folder, disk_full_at, no_descriptors
from tests.unix.test_logfile import read_all
from tests.unix.test_logfile_places import rename_away
from vspcd.core.indexfile import Index
from vspcd.unix import logfile
from vspcd.unix.logfile import LogFile

MARKER = re.compile(rb"\r\n\[vspcd: (\d+) bytes not logged: [^\]]*\]\r\n")


def lose(log: LogFile, size: int) -> None:
    """Say something that the disk does not take."""
    with disk_full_at(os.stat(log._log.fd).st_size):
        log.append(b"L" * size)


def test_the_console_goes_on_while_the_disk_is_full(folder: Folder) -> None:
    log = folder.log()
    log.append(b"a" * 100)
    with disk_full_at(100):
        log.append(b"lost, but seen")
    assert log.read(100, 100) == b"lost, but seen"
    assert log.head == 114


def test_what_the_disk_took_of_a_chunk_is_not_counted_as_lost(folder: Folder) -> None:
    log = folder.log()
    with disk_full_at(1000):
        log.append(b"x" * 1500)
    assert folder.content() == b"x" * 1000
    assert log.not_logged == 500


@pytest.mark.parametrize("size", [1, 20, 500, 100000])
def test_a_gap_is_marked_and_counted_to_the_byte(folder: Folder, size: int) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, size)
    log.append(b"after")
    (found,) = MARKER.finditer(folder.content())
    assert int(found[1]) == log.not_logged == size
    assert MARKER.sub(b"|", folder.content()) == b"before|after"


def test_many_lost_chunks_make_one_gap(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    for _ in range(10):
        lose(log, 7)
    log.append(b"after")
    assert [found[1] for found in MARKER.finditer(folder.content())] == [b"70"]


def test_trouble_and_its_end_are_told_once_each(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    for _ in range(3):
        lose(log, 10)
    log.append(b"after")
    log.append(b"more")
    assert len(folder.troubles) == 2
    assert folder.troubles[0]
    assert folder.troubles[1] == ""


def test_the_index_tells_what_was_lost_and_where(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, 500)
    log.append(b"after")
    (entry,) = [entry for entry, _ in Index(folder.content("idx")).entries() if entry.word == "lost"]
    assert entry.details() == {"bytes": 500}


@pytest.mark.parametrize("size", [1, 20, 500, 100000])
def test_behind_a_gap_positions_lie_where_the_base_says(folder: Folder, size: int) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, size)
    log.append(b"after")
    assert folder.at(6 + size, 5) == b"after"


@pytest.mark.parametrize("size", [1, 20, 500])
def test_behind_a_gap_a_reader_of_the_index_finds_the_right_byte(folder: Folder, size: int) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, size)
    log.append(b"after")
    log.event("break", {})
    entry, byte = list(Index(folder.content("idx")).entries())[-1]
    assert (entry.word, byte) == ("break", len(folder.content()))


@pytest.mark.parametrize("size", [1, 20, 500])
def test_behind_a_gap_positions_go_on_over_a_restart(folder: Folder, size: int) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, size)
    log.append(b"after")
    head = log.head
    log.close()
    log = folder.log()
    assert log.head == head
    assert log.read(head - 5, 5) == b"after"


def test_positions_do_not_go_back_when_the_end_was_lost(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, 500)
    log.event("stopped", {})
    log.close()
    assert folder.log().head == 506


def test_a_reader_is_led_over_a_gap_and_over_its_marker(folder: Folder) -> None:
    log = folder.log(max_size=1 << 30)
    log.append(b"before")
    lose(log, 500)
    data = os.urandom(4 * logfile.TAIL)
    log.append(b"after" + data)
    assert log.read(0, 100) == b"before"
    assert log.read(6, 100) is None
    assert log.next_readable(6) == 506
    assert read_all(log, 506) == b"after" + data


def test_a_marker_that_does_not_fit_comes_when_there_is_room(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    lose(log, 100)
    with disk_full_at(6 + 10):
        log.append(b"l" * 50)
    log.append(b"after")
    assert [found[1] for found in MARKER.finditer(folder.content())] == [b"150"]
    assert folder.content().endswith(b"after")
    assert folder.at(6 + 150, 5) == b"after"
    assert log.not_logged == 150


def test_losses_are_counted_over_several_gaps(folder: Folder) -> None:
    log = folder.log()
    for size in (10, 20, 30):
        log.append(b"fine")
        lose(log, size)
    log.append(b"fine")
    assert [found[1] for found in MARKER.finditer(folder.content())] == [b"10", b"20", b"30"]
    assert log.not_logged == 60


def test_a_log_that_cannot_be_opened_is_opened_as_soon_as_it_can(folder: Folder) -> None:
    with no_descriptors():
        log = folder.log()
        log.append(b"lost")
    log.append(b"logged")
    assert (log.not_logged, log.head) == (4, 10)
    assert MARKER.sub(b"|", folder.content()) == b"|logged"
    assert folder.at(4, 6) == b"logged"


def test_a_log_with_a_past_that_cannot_be_opened_at_first_has_right_bases_later(folder: Folder) -> None:
    log = folder.log()
    log.append(b"p" * 5000)
    log.close()
    with no_descriptors():
        log = folder.log()
        log.append(b"lost")
    log.append(b"logged")
    assert folder.at(log.head - 6, 6) == b"logged"
    assert log.read(log.head - 6, 6) == b"logged"


def test_a_rotation_that_cannot_open_the_new_file_goes_on_later(folder: Folder) -> None:
    log = folder.log(max_size=100)
    with no_descriptors():
        log.append(b"x" * 100)
        log.append(b"lost")
    log.append(b"logged")
    assert folder.content("log.1") == b"x" * 100
    assert MARKER.sub(b"|", folder.content()) == b"|logged"
    assert folder.at(104, 6) == b"logged"


@pytest.mark.parametrize("suffixes", [("log",), ("idx",), ("log", "idx")])
def test_reopening_without_descriptors_does_not_end_the_worker(
    folder: Folder, suffixes: tuple[str, ...]
) -> None:
    log = folder.log()
    log.append(b"before")
    rename_away(folder, *suffixes)
    with no_descriptors():
        log.reopen()
        log.append(b"12345")
    log.append(b"after")
    moved = folder.content("log.moved") if "log" in suffixes else b""
    now = folder.content()
    logged = MARKER.sub(b"", moved + now)
    assert len(logged) + log.not_logged == len(b"before12345after")
    assert logged.endswith(b"after")


def test_a_full_disk_at_a_rotation_costs_only_what_is_counted(folder: Folder) -> None:
    log = folder.log(max_size=1000, keep=5)
    data = bytes(range(250)) * 40
    with disk_full_at(700):
        for at in range(0, len(data) // 2, 250):
            log.append(data[at : at + 250])
    for at in range(len(data) // 2, len(data), 250):
        log.append(data[at : at + 250])
    kept = b"".join(folder.content(f"log.{n}") for n in range(9, 0, -1) if folder.file(f"log.{n}").exists())
    assert len(MARKER.sub(b"", kept + folder.content())) + log.not_logged == len(data)


def test_a_log_directory_that_was_deleted_does_not_stop_the_console(folder: Folder) -> None:
    log = folder.log()
    log.append(b"before")
    for path in folder.path.iterdir():
        path.unlink()
    folder.path.rmdir()
    log.reopen()
    log.append(b"after")
    assert log.read(0, 100) == b"beforeafter"
    folder.path.mkdir()
