"""Quarantine: what waits in a connection is in a file of its own, whatever else is put aside."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from workers import quarantine


def put_aside(directories: list[str], data: bytes, before: bytes = b"") -> quarantine.Kept:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        return quarantine.put_aside(directories, "console", ours, before)


def test_two_in_one_millisecond_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    first, second = (put_aside([str(tmp_path)], data) for data in (b"one", b"two"))
    assert Path(first.file).read_bytes() == b"one"
    assert Path(second.file).read_bytes() == b"two"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "console.quarantine.1000500",
        "console.quarantine.1000501",
    ]


def test_what_came_before_is_at_the_beginning(tmp_path: Path) -> None:
    kept = put_aside([str(tmp_path)], b"behind", before=b"before ")
    assert Path(kept.file).read_bytes() == b"before behind"
    assert kept.size == 13


def test_the_next_directory_takes_what_the_first_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = put_aside([str(tmp_path / "file"), str(tmp_path / "spool")], b"data")
    assert Path(kept.file).parent == tmp_path / "spool"
    assert Path(kept.file).read_bytes() == b"data"


def test_without_any_place_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = put_aside([str(tmp_path / "file")], b"data")
    assert kept.file == f"no file ({tmp_path / 'file'}: File exists)"
    assert kept.size == 4
