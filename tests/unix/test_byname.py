"""Links by name: each console has one, whatever its VM calls itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vspcd.unix.byname import DIRECTORY, ByName

MINE, YOURS = "01234567-89ab-cdef-fedc-ba9800000001", "01234567-89ab-cdef-fedc-ba9800000002"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def links(tmp_path: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in (tmp_path / DIRECTORY).iterdir()}


def show(by_name: ByName, name: str, identity: str = MINE) -> None:
    by_name.show(name, f"{identity}.log", identity)


def test_a_console_can_be_found_by_its_name(folder: int, tmp_path: Path) -> None:
    show(ByName(folder), "web01")
    assert links(tmp_path) == {"web01.log": f"../{MINE}.log"}


def test_a_renamed_console_has_one_link_with_the_new_name(folder: int, tmp_path: Path) -> None:
    by_name = ByName(folder)
    show(by_name, "web01")
    show(by_name, "db01")
    assert links(tmp_path) == {"db01.log": f"../{MINE}.log"}


def test_showing_the_same_name_again_changes_nothing(folder: int, tmp_path: Path) -> None:
    by_name = ByName(folder)
    show(by_name, "web01")
    before = os.lstat(tmp_path / DIRECTORY / "web01.log").st_ino
    show(by_name, "web01")
    assert os.lstat(tmp_path / DIRECTORY / "web01.log").st_ino == before


def test_two_consoles_of_one_name_both_have_a_link(folder: int, tmp_path: Path) -> None:
    show(ByName(folder), "web01")
    show(ByName(folder), "web01", YOURS)
    assert links(tmp_path) == {"web01.log": f"../{MINE}.log", f"web01.{YOURS}.log": f"../{YOURS}.log"}


def test_a_console_keeps_its_link_over_a_restart(folder: int, tmp_path: Path) -> None:
    show(ByName(folder), "web01")
    show(ByName(folder), "web01")
    assert links(tmp_path) == {"web01.log": f"../{MINE}.log"}


def test_a_deleted_link_is_made_again(folder: int, tmp_path: Path) -> None:
    by_name = ByName(folder)
    show(by_name, "web01")
    (tmp_path / DIRECTORY / "web01.log").unlink()
    show(by_name, "web01")
    assert "web01.log" in links(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "..", ".", "", "a/b", "\x1b]0;x\x07", "x" * 300, "ü" * 300, "\udcff", "-rf"],
)
def test_no_name_leads_out_of_the_folder(folder: int, tmp_path: Path, name: str) -> None:
    show(ByName(folder), name)
    (found,) = links(tmp_path).items()
    assert found[1] == f"../{MINE}.log"
    assert not found[0].startswith((".", "-"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [DIRECTORY]


def test_removing_takes_only_what_is_still_ours(folder: int, tmp_path: Path) -> None:
    by_name = ByName(folder)
    show(by_name, "web01")
    link = tmp_path / DIRECTORY / "web01.log"
    link.unlink()
    link.symlink_to(f"../{YOURS}.log")
    by_name.remove(f"{MINE}.log")
    assert links(tmp_path) == {"web01.log": f"../{YOURS}.log"}


def test_what_a_crash_left_half_made_is_no_obstacle(folder: int, tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / f".{os.getpid()}.new").symlink_to("nowhere")
    show(ByName(folder), "web01")
    assert links(tmp_path) == {"web01.log": f"../{MINE}.log"}


def test_a_name_whose_place_is_taken_by_a_folder_is_an_error_that_leaves_nothing_behind(
    folder: int, tmp_path: Path
) -> None:
    by_name = ByName(folder)
    (tmp_path / DIRECTORY / "web01.log").mkdir(parents=True)
    with pytest.raises(OSError):
        show(by_name, "web01")
    show(by_name, "db01")
    assert sorted(path.name for path in (tmp_path / DIRECTORY).iterdir()) == ["db01.log", "web01.log"]
