"""Rotated logs: which of them go to make room, and which can be read on from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vspcd.core.journal import Segments
from vspcd.unix.logfolder import Folder
from vspcd.unix.logrotated import Rotated

NAME, INDEX = "vm.log", "vm.idx"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(-1, str(tmp_path))
    folder.enter()
    yield folder
    folder.leave()


@pytest.fixture
def rotated(folder: Folder, tmp_path: Path) -> Rotated:
    """Three logs of 100 bytes with indexes of 10, beside the ones that are being written."""
    for number in ("", ".1", ".2", ".3"):
        (tmp_path / f"{NAME}{number}").write_bytes(bytes(100))
        (tmp_path / f"{INDEX}{number}").write_bytes(bytes(10))
    rotated = Rotated(folder)
    rotated.name, rotated.index = NAME, INDEX
    rotated.keep = 3
    return rotated


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Segments]:
    """The file that is being written begins at position 1000."""
    (tmp_path / NAME).touch()
    segments = Segments()
    segments.begin(1000, 0, os.open(tmp_path / NAME, os.O_RDONLY), 5)
    yield segments
    for fd in segments.close():
        os.close(fd)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_oldest_are_named_first_and_the_current_ones_never(rotated: Rotated) -> None:
    assert rotated.files() == [
        *[("vm.log.3", 100), ("vm.idx.3", 10)],
        *[("vm.log.2", 100), ("vm.idx.2", 10)],
        *[("vm.log.1", 100), ("vm.idx.1", 10)],
    ]


def test_a_log_goes_with_its_index_and_alone(rotated: Rotated, tmp_path: Path) -> None:
    assert rotated.drop_oldest()
    assert left(tmp_path) == ["vm.idx", "vm.idx.1", "vm.idx.2", "vm.log", "vm.log.1", "vm.log.2"]


def test_when_none_is_left_nothing_is_dropped(rotated: Rotated, tmp_path: Path) -> None:
    assert [rotated.drop_oldest() for _ in range(4)] == [True, True, True, False]
    assert left(tmp_path) == ["vm.idx", "vm.log"]


@pytest.mark.parametrize(
    ("quota", "files"), [(0, 3), (530, 3), (529, 2), (420, 2), (419, 1), (309, 0), (100, 0)]
)
def test_no_more_go_than_a_full_file_needs(rotated: Rotated, quota: int, files: int) -> None:
    rotated.quota = quota
    rotated.fit(200)
    assert len(rotated.files()) == 2 * files


def test_only_rotated_files_are_removed(rotated: Rotated, tmp_path: Path) -> None:
    rotated.remove()
    assert left(tmp_path) == ["vm.idx", "vm.log"]


def test_the_file_before_is_read_from_its_last_marker_on(
    rotated: Rotated, segments: Segments, tmp_path: Path
) -> None:
    (tmp_path / f"{INDEX}.1").write_text('1 900 base\n2 940 lost {"bytes":7}\n')
    assert rotated.read_before(segments)
    oldest = segments.oldest
    assert oldest is not None
    assert (oldest.base, oldest.at, oldest.length) == (940, 40, 60)


def test_a_file_without_an_index_is_taken_for_the_one_before(
    rotated: Rotated, segments: Segments, tmp_path: Path
) -> None:
    (tmp_path / f"{INDEX}.1").unlink()
    assert rotated.read_before(segments)
    assert segments.oldest is not None
    assert segments.oldest.base == 900


@pytest.mark.parametrize("base", [899, 901, 1000])
def test_a_file_that_does_not_end_where_the_next_begins_is_not_read(
    rotated: Rotated, segments: Segments, tmp_path: Path, base: int
) -> None:
    (tmp_path / f"{INDEX}.1").write_text(f"1 {base} base\n")
    assert not rotated.read_before(segments)
    assert not segments.several


def test_nothing_is_read_over_a_marker(rotated: Rotated, segments: Segments) -> None:
    fd = segments.fd
    segments.forget(fd)
    segments.begin(1000, 50, fd, 5)
    assert not rotated.read_before(segments)


def test_no_file_is_read_beyond_those_that_are_kept(rotated: Rotated, segments: Segments) -> None:
    rotated.keep = 0
    assert not rotated.read_before(segments)
