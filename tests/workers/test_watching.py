"""What the watcher reads and how it matches: lines, escape sequences, rotations, patterns without end."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from workers import following
from workers.following import Following
from workers.matching import LIMIT, LINE_LIMIT, Lines, TooSlow, found, prepare

CONSOLE = "50000000-0000-0000-0000-000000000001"


def test_lines_are_whole_in_any_pieces_and_without_escapes() -> None:
    lines = Lines()
    assert lines.feed(b"\x1b[31mKernel pa") == ([], b"Kernel pa")
    assert lines.feed(b"nic\x1b[0m\r\nweb01 ") == ([b"Kernel panic"], b"web01 ")
    assert lines.feed(b"login: ") == ([], b"web01 login: ")


def test_a_line_without_end_is_cut() -> None:
    lines = Lines()
    whole, rest = lines.feed(b"x" * (2 * LINE_LIMIT + 5))
    assert ([len(line) for line in whole], len(rest)) == ([LINE_LIMIT] * 2, 5)


def test_a_pattern_without_end_is_stopped_and_the_next_one_has_its_turn() -> None:
    prepare()
    began = time.process_time()
    for pattern in (rb"(a+)+$", rb"(a|aa)+$", rb"(?:a*)*b", rb"^(([a-z])+.)+[A-Z]([a-z])+$"):
        with pytest.raises(TooSlow):
            found(re.compile(pattern), [b"a" * 60 + b"!"] * 3)
    assert time.process_time() - began < 4 * LIMIT + 1
    assert found(re.compile(b"b"), [b"a", b"b"]) == [1]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def follow(logs: Path) -> Following:
    return Following(os.open(logs, os.O_RDONLY), str(logs.parent / "places"))


def add(logs: Path, data: bytes, console: str = CONSOLE) -> None:
    with (logs / f"{console}.log").open("ab") as file:
        file.write(data)


def rotate(logs: Path) -> None:
    for number in range(5, 0, -1):
        older = logs / f"{CONSOLE}.log.{number}"
        if older.exists():
            older.rename(logs / f"{CONSOLE}.log.{number + 1}")
    (logs / f"{CONSOLE}.log").rename(logs / f"{CONSOLE}.log.1")


def all_of(reader: Following) -> bytes:
    read = b""
    while (piece := reader.read(CONSOLE)) is not None:
        read += piece.data
    return read


def test_what_was_there_before_is_passed_over(logs: Path) -> None:
    add(logs, b"old")
    reader = follow(logs)
    reader.begin()
    add(logs, b"new")
    assert all_of(reader) == b"new"


def test_a_log_that_comes_later_is_read_from_its_beginning(logs: Path) -> None:
    reader = follow(logs)
    reader.begin()
    assert reader.read(CONSOLE) is None
    add(logs, b"first")
    assert all_of(reader) == b"first"


@pytest.mark.parametrize("rotations", [1, 2, 4])
def test_rotations_lose_nothing(logs: Path, rotations: int) -> None:
    add(logs, b"0")
    reader = follow(logs)
    assert all_of(reader) == b"0"
    expected = b""
    for number in range(rotations):
        add(logs, b"before %d " % number)
        rotate(logs)
        expected += b"before %d " % number
    add(logs, b"now")
    assert all_of(reader) == expected + b"now"


def test_rotated_before_there_is_a_new_one(logs: Path) -> None:
    reader = follow(logs)
    add(logs, b"one")
    assert all_of(reader) == b"one"
    rotate(logs)
    assert all_of(reader) == b""
    add(logs, b"two")
    assert all_of(reader) == b"two"


def test_a_log_that_was_cut_is_read_on_from_there(logs: Path) -> None:
    add(logs, b"one half a marker")
    reader = follow(logs)
    reader.begin()
    os.truncate(logs / f"{CONSOLE}.log", 4)
    assert all_of(reader) == b""
    add(logs, b"two")
    assert all_of(reader) == b"two"


def test_who_is_too_far_behind_is_moved_forward(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BEHIND", 100)
    monkeypatch.setattr(following, "AHEAD", 10)
    reader = follow(logs)
    add(logs, b"x" * 200 + b"0123456789")
    piece = reader.read(CONSOLE)
    assert piece == (b"0123456789", False, 200)


def test_another_process_goes_on_at_the_same_place(logs: Path) -> None:
    add(logs, b"one")
    reader = follow(logs)
    assert all_of(reader) == b"one"
    reader.save()
    add(logs, b"two")
    heir = follow(logs)
    assert heir.resume()
    assert all_of(heir) == b"two"


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', '{"x": [1]}', '{"x": ["a", 2]}', "nul"])
def test_damaged_places_are_none(logs: Path, text: str) -> None:
    (logs.parent / "places").write_text(text)
    reader = follow(logs)
    assert not reader.resume()
    assert reader.places == {}


def test_a_link_is_no_log(logs: Path) -> None:
    (logs.parent / "secret").write_text("secret")
    (logs / f"{CONSOLE}.log").symlink_to(logs.parent / "secret")
    assert follow(logs).read(CONSOLE) is None
