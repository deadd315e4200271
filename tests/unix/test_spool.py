"""The spool: a bounded file with a position, for whoever comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unix.logs import disk_full_at, no_descriptors
from vspcd.unix.spool import HEADER, LINE, Missing, Spool, forget, header_of, missing_of, position_of

STEM = "01234567-89ab-cdef-fedc-ba9800000000"


def made(folder: Path, limit: int = 1000) -> Spool:
    spool = Spool(str(folder / "journal"), limit)
    spool.stem = STEM
    return spool


def test_what_is_kept_is_read_at_its_position(tmp_path: Path) -> None:
    spool = made(tmp_path)
    assert spool.put(500, b"abc") == 3
    assert spool.put(503, b"def") == 3
    assert [spool.read(position, 10) for position in (499, 500, 502, 505, 506)] == [
        b"",
        b"abcdef",
        b"cdef",
        b"f",
        b"",
    ]


def test_another_process_finds_it(tmp_path: Path) -> None:
    made(tmp_path).put(1 << 50, b"abc")
    heir = made(tmp_path)
    assert heir.find()
    assert (heir.base, heir.end, heir.read(heir.base, 10)) == (1 << 50, (1 << 50) + 3, b"abc")
    assert heir.put(heir.end, b"def") == 3
    assert heir.read(heir.base, 10) == b"abcdef"


def test_it_takes_no_more_than_its_limit(tmp_path: Path) -> None:
    spool = made(tmp_path, 10)
    assert spool.put(0, b"12345678") == 8
    assert spool.put(8, b"abcdef") == 2
    assert spool.put(10, b"x") == 0
    assert spool.read(0, 100) == b"12345678ab"


def test_it_takes_nothing_that_does_not_follow(tmp_path: Path) -> None:
    spool = made(tmp_path)
    spool.put(0, b"abc")
    assert spool.put(4, b"e") == 0


def test_without_a_limit_there_is_no_file(tmp_path: Path) -> None:
    assert made(tmp_path, 0).put(0, b"abc") == 0
    assert list(tmp_path.iterdir()) == []


def test_cleared_it_leaves_nothing_and_begins_anew(tmp_path: Path) -> None:
    spool = made(tmp_path)
    spool.put(0, b"abc")
    spool.clear()
    assert list((tmp_path / "journal").iterdir()) == []
    assert not made(tmp_path).find()
    assert spool.put(77, b"x") == 1
    assert spool.read(77, 1) == b"x"


def test_only_the_daemon_can_read_it(tmp_path: Path) -> None:
    made(tmp_path).put(0, b"secret")
    (file,) = (tmp_path / "journal").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"mine")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / f"{STEM}.spool").symlink_to(target)
    assert made(tmp_path).put(0, b"yours") == 0
    assert target.read_bytes() == b"mine"


def test_a_run_directory_that_is_full_too_takes_what_it_can(tmp_path: Path) -> None:
    spool = made(tmp_path)
    with disk_full_at(HEADER + 2):
        assert spool.put(0, b"abc") == 2
        assert spool.put(2, b"c") == 0
    assert spool.read(0, 10) == b"ab"


def test_the_last_tenth_of_the_run_directory_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = made(tmp_path, 1 << 20)
    assert spool.put(0, b"a" * 65536) == 65536
    monkeypatch.setattr("vspcd.unix.spool.SPARE", 100.0)  # what is free is less than all
    assert spool.put(65536, b"b") == 0


def test_when_nothing_can_be_opened_nothing_is_taken(tmp_path: Path) -> None:
    spool = made(tmp_path)
    with no_descriptors():
        assert spool.put(0, b"abc") == 0
    assert spool.put(0, b"abc") == 3


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", header_of(5), header_of(5)[:-1], b"y" * 90),
        *(b"vspcd-spool-2 -1" + b" " * 70, header_of(5)[:LINE] + b"z" * LINE),
    ],
)
def test_a_file_that_says_nothing_is_no_spool_and_goes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").mkdir()
    file = tmp_path / "journal" / f"{STEM}.spool"
    file.write_bytes(content)
    assert not made(tmp_path).find()
    assert not file.exists()


@pytest.mark.parametrize("word", [b"vspcd-spool", b"vspcd-spool-1", b"vspcd-spool-3"])
def test_what_another_version_has_kept_is_set_aside(tmp_path: Path, word: bytes) -> None:
    (tmp_path / "journal").mkdir()
    file = tmp_path / "journal" / f"{STEM}.spool"
    left = word + b" 5\nbytes of a VM"
    file.write_bytes(left)
    spool = made(tmp_path)
    assert not spool.find()
    assert not file.exists()
    assert file.with_name(file.name + ".other-version").read_bytes() == left
    assert all(part in spool.strange for part in (word.decode(), "other-version", "vspcd-spool-2"))
    assert spool.put(7, b"abc") == 3
    heir = made(tmp_path)
    assert (heir.find(), heir.strange) == (True, "")


def test_headers_are_of_one_length_and_can_be_read_back() -> None:
    for position in (0, 1, 999, 1 << 59):
        assert len(header_of(position)) == HEADER
        assert position_of(header_of(position)[:LINE]) == position
        assert missing_of(header_of(position)[LINE:]) == Missing(0, 0)


def test_what_found_no_room_is_counted_for_another_process(tmp_path: Path) -> None:
    spool = made(tmp_path, 3)
    assert spool.put(500, b"abcdef") == 3
    spool.miss(503, 3, 28)
    spool.miss(503, 1 << 50, 4097)
    heir = made(tmp_path, 3)
    assert heir.find()
    assert (heir.base, heir.end, heir.missing) == (500, 503, Missing(1 << 50, 4097))
    assert heir.read(500, 10) == b"abc"


def test_a_spool_that_may_keep_nothing_counts(tmp_path: Path) -> None:
    spool = made(tmp_path, 0)
    assert spool.put(500, b"abc") == 0
    spool.miss(500, 3, 28)
    heir = made(tmp_path, 0)
    assert heir.find()
    assert (heir.base, heir.end, heir.missing) == (500, 500, Missing(3, 28))


def test_nothing_is_counted_where_nothing_is_missing(tmp_path: Path) -> None:
    spool = made(tmp_path, 0)
    spool.miss(500, 0, 28)
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_spool_is_gone_and_tells_how_much_it_stood_for(tmp_path: Path) -> None:
    spool = made(tmp_path, 3)
    spool.put(500, b"abcdef")
    spool.miss(503, 3, 28)
    assert forget(str(tmp_path / "journal"), STEM) == 6
    assert list((tmp_path / "journal").iterdir()) == []
    assert forget(str(tmp_path / "journal"), STEM) == 0
