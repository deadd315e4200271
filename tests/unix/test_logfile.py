"""Console logs: the VM's bytes exactly, over rotations and restarts, each to be found again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.unix.logs import STEM, Folder
from tests.unix.turning import open_descriptors
from vspcd.core.indexfile import Index
from vspcd.unix import logfile, logwriter
from vspcd.unix.logfile import TAIL, LogFile

EVERYTHING = bytes(range(256))


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def read_all(log: LogFile, position: int, chunk: int = 4096) -> bytes:
    """Everything from a position on, as a client is fed."""
    found = bytearray()
    while position < log.head:
        data = log.read(position, chunk)
        assert data, f"nothing at {position} of {log.head}"
        found += data
        position += len(data)
    return bytes(found)


# Exact bytes


def test_the_file_holds_exactly_what_the_vm_sent(folder: Folder) -> None:
    log = folder.log()
    for piece in (EVERYTHING, b"\xff\xff\x00\x11\r\n", b"", EVERYTHING[::-1]):
        log.append(piece)
    assert folder.content() == EVERYTHING + b"\xff\xff\x00\x11\r\n" + EVERYTHING[::-1]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_sort_of_buffer_can_be_appended_and_reused_by_its_owner(folder: Folder, kind: type) -> None:
    log = folder.log()
    owned = bytearray(b"first")
    log.append(kind(owned))
    owned[:] = b"other"
    assert (log.read(0, 10), folder.content()) == (b"first", b"first")


def test_bytes_are_in_the_file_when_append_returns(folder: Folder) -> None:
    folder.log().append(b"at once")
    assert folder.content() == b"at once"


def test_the_log_is_not_for_everybody(folder: Folder) -> None:
    folder.log()
    assert folder.file().stat().st_mode & 0o007 == 0
    assert folder.file("idx").stat().st_mode & 0o007 == 0


def test_a_symbolic_link_in_the_place_of_the_log_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"mine")
    folder.file().symlink_to(target)
    folder.log().append(b"yours")
    assert target.read_bytes() == b"mine"
    assert folder.troubles


# Reading


def test_reading_at_the_head_gives_nothing_yet(folder: Folder) -> None:
    log = folder.log()
    assert log.read(0, 10) == b""
    log.append(b"abc")
    assert log.read(3, 10) == b""


def test_what_has_left_memory_is_read_from_the_file(folder: Folder) -> None:
    log = folder.log()
    data = noise(5 * TAIL)
    for at in range(0, len(data), 10000):
        log.append(data[at : at + 10000])
    assert log.tail.start > 0
    assert read_all(log, 0) == data


def test_without_logging_what_has_left_memory_is_gone_and_what_follows_can_be_found(folder: Folder) -> None:
    log = folder.log(enabled=False)
    data = noise(5 * TAIL)
    log.append(data)
    assert log.read(0, 10) is None
    there = log.next_readable(0)
    assert read_all(log, there) == data[there:]
    assert list(folder.path.iterdir()) == []


def test_a_laggard_reads_on_over_several_rotations(folder: Folder) -> None:
    log = folder.log(max_size=20000, keep=2)
    data = noise(6 * TAIL)
    for at in range(0, len(data), 7000):
        log.append(data[at : at + 7000])
    assert read_all(log, 0) == data  # also what no longer has a name


def test_a_laggard_that_asks_for_little_reads_the_same(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    data = noise(3 * TAIL)
    for at in range(0, len(data), 9000):
        log.append(data[at : at + 9000])
    assert read_all(log, 1, 777) == data[1:]


def test_a_reader_past_too_many_rotations_is_told_where_it_can_go_on(folder: Folder) -> None:
    log = folder.log(max_size=5000)
    data = noise(10 * TAIL)
    for at in range(0, len(data), 5000):
        log.append(data[at : at + 5000])
    log.release(0)
    assert log.read(0, 10) is None
    there = log.next_readable(0)
    assert 0 < there < log.tail.start
    assert read_all(log, there) == data[there:]


def test_released_files_are_closed_and_others_kept(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    before = len(open_descriptors())
    for _ in range(10):
        log.append(noise(1000))
    log.release(log.head)
    assert len(open_descriptors()) == before


def test_closing_closes_everything(tmp_path: Path) -> None:
    before = open_descriptors()
    folder = Folder(tmp_path)
    log = folder.log(max_size=1000)
    for _ in range(5):
        log.append(noise(1000))
    folder.close()
    assert open_descriptors() == before


# Rotation by size


def test_rotated_files_joined_are_what_the_vm_sent(folder: Folder) -> None:
    log = folder.log(max_size=1000, keep=3)
    data = noise(3500)
    for at in range(0, len(data), 500):
        log.append(data[at : at + 500])
    joined = b"".join(folder.content(f"log.{n}") for n in (3, 2, 1)) + folder.content()
    assert joined == data


def test_no_more_rotated_files_are_kept_than_asked_for(folder: Folder) -> None:
    log = folder.log(max_size=100, keep=2)
    for _ in range(10):
        log.append(noise(100))
    names = sorted(path.name.split(".", 1)[1] for path in folder.path.iterdir())
    assert names == ["idx", "idx.1", "idx.2", "log", "log.1", "log.2"]


def test_with_none_kept_the_old_file_goes(folder: Folder) -> None:
    log = folder.log(max_size=100, keep=0)
    log.append(b"x" * 100)
    log.append(b"young")
    assert sorted(path.name for path in folder.path.iterdir()) == [f"{STEM}.idx", f"{STEM}.log"]
    assert folder.content() == b"young"


def test_a_position_lies_where_the_base_of_its_file_says(folder: Folder) -> None:
    log = folder.log(max_size=1000, keep=3)
    data = noise(3700)
    for at in range(0, len(data), 500):
        log.append(data[at : at + 500])
    first = 0
    for number in (3, 2, 1, None):
        tail = "" if number is None else f".{number}"
        size = len(folder.content(f"log{tail}"))
        assert folder.words(f"idx{tail}")[0] == "base"
        assert folder.at(first, size, number) == data[first : first + size]
        first += size
    assert first == len(data)


def test_the_index_tells_that_and_where_a_file_ended(folder: Folder) -> None:
    log = folder.log(max_size=1000)
    log.append(noise(1200))
    last = folder.lines("idx.1")[-1]
    assert (last[1], last[2]) == ("1000", "rotated")
    assert folder.bases() == [1000]


@pytest.mark.parametrize("step", [1, 333, 999, 1000, 1001, 5000])
def test_no_file_is_longer_than_asked_for(folder: Folder, step: int) -> None:
    log = folder.log(max_size=1000, keep=9)
    data = noise(7500)
    for at in range(0, len(data), step):
        log.append(data[at : at + step])
    sizes = [path.stat().st_size for path in folder.path.iterdir() if ".log" in path.name]
    assert max(sizes) == 1000
    assert sum(sizes) == len(data)


def test_a_rotation_that_failed_is_not_tried_at_every_write(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "ROTATE_RETRY", 60.0)
    (folder.file("log.1") / "occupied").mkdir(parents=True)
    log = folder.log(max_size=10, keep=1)
    for _ in range(100):
        log.append(b"x" * 10)
    assert len(folder.troubles) == 1
    assert folder.content() == b"x" * 1000


def test_an_index_that_grows_without_end_is_rotated_with_its_log(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM can make events without saying a byte."""
    monkeypatch.setattr(logwriter, "INDEX_LIMIT", 5000)
    log = folder.log(keep=2)
    log.append(b"abc")
    for _ in range(1000):
        log.event("line", {"baud": 9600})
    sizes = [path.stat().st_size for path in folder.path.iterdir() if ".idx" in path.name]
    assert max(sizes) < 5200
    assert len(sizes) == 3
    log.append(b"def")
    assert folder.at(3, 3) == b"def"
    log.close()
    assert folder.log().head == 6


def test_a_directory_that_refuses_to_rename_costs_no_byte(folder: Folder) -> None:
    """Rotated names are directories with something in them: rename fails, whoever asks."""
    for suffix in ("log.1", "idx.1"):
        (folder.file(suffix) / "occupied").mkdir(parents=True)
    log = folder.log(max_size=1000, keep=1)
    data = noise(5000)
    for at in range(0, len(data), 500):
        log.append(data[at : at + 500])
    assert folder.content() == data
    assert read_all(log, 0) == data
    assert folder.at(4000, 1000) == data[4000:]
    assert any("cannot rotate" in trouble for trouble in folder.troubles)
    assert log.not_logged == 0


def test_a_rotation_that_fails_for_ever_does_not_use_up_descriptors(folder: Folder) -> None:
    for suffix in ("log.1", "idx.1"):
        (folder.file(suffix) / "occupied").mkdir(parents=True)
    log = folder.log(max_size=10, keep=1)
    before = len(open_descriptors())
    for _ in range(200):
        log.append(b"x" * 10)
        log.release(log.head)
    assert len(open_descriptors()) <= before + logfile.MAX_SEGMENTS


def test_an_index_with_words_of_a_newer_version_is_gone_on_with(folder: Folder) -> None:
    folder.log().append(b"of this version, ")
    with folder.file("idx").open("ab") as index:
        now = int(time.time() * 1000)
        index.write(b'%d 17 future {"bytes": 99, "until": 99}\n%d 17 future-mark\n' % (now, now))
    folder.log().append(b"and of this one")
    assert folder.content() == b"of this version, and of this one"
    assert folder.at(17, 15) == b"and of this one"
    assert Index(folder.content("idx")).byte_since(time.time() - 60) == 0
    assert folder.troubles == []
