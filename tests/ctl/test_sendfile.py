"""Sending a file: what is fit to be sent, and when its pieces go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.sendfile import ECHO_PATIENCE, PIECE, SIZE_LIMIT, Pacer, Unfit, load


def file(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(data)
    return str(path)


def test_line_ends_become_enter(tmp_path: Path) -> None:
    assert load(file(tmp_path, b"a\nb\r\n\tc")) == b"a\rb\r\tc"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "it is empty"),
        (b"a\nb\x03", "line 2 has a control character, 0x03; send it encoded"),
        (b"a\rb", "line 1 has a control character, 0x0d"),
        (b"x" * (SIZE_LIMIT + 1), f"more than {SIZE_LIMIT} bytes"),
    ],
)
def test_a_file_that_is_not_fit_is_refused_with_the_reason(tmp_path: Path, data: bytes, word: str) -> None:
    with pytest.raises(Unfit, match=word):
        load(file(tmp_path, data))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, word in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "fifo", "not a file"),
    ):
        with pytest.raises(Unfit, match=word):
            load(str(path))


def test_a_file_is_found_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file(tmp_path, b"x")
    assert load("~/file") == b"x"


def test_a_line_waits_for_the_echo_of_the_one_before() -> None:
    pacer = Pacer(b"ls -l\rpwd\r", None, 0.0)
    assert pacer.take(0.0) == b"ls -l\r"
    assert (pacer.take(1.0), pacer.line) == (None, 0)
    pacer.heard(b"# ls", 1.0)
    assert pacer.take(1.0) is None
    pacer.heard(b" -l\r\n", 2.0)
    assert (pacer.line, pacer.take(2.0)) == (1, b"pwd\r")
    assert not pacer.done
    pacer.heard(b"total 0\r\n# pwd", 2.0)
    assert (pacer.done, pacer.line, pacer.lines) == (True, 2, 2)


def test_an_echo_that_is_wrapped_is_one() -> None:
    pacer = Pacer(b"abcdef\r", None, 0.0)
    pacer.take(0.0)
    pacer.heard(b"abc \r\x1b[Kdef", 0.1)
    assert pacer.done


def test_long_lines_go_in_pieces() -> None:
    line = b"0123456789" * 20
    pacer, sent = Pacer(line + b"\r", None, 0.0), []
    while (piece := pacer.take(0.0)) is not None:
        assert len(piece) <= PIECE
        assert pacer.line == 0
        sent.append(piece)
        pacer.heard(piece, 0.0)
    assert (b"".join(sent), pacer.line, pacer.done) == (line + b"\r", 1, True)


def test_a_missing_echo_fails_after_a_while_and_progress_extends_it() -> None:
    pacer = Pacer(b"abc\r", None, 0.0)
    pacer.take(0.0)
    assert not pacer.failed(ECHO_PATIENCE - 0.1)
    pacer.heard(b"a", 2.0)
    assert not pacer.failed(2.0 + ECHO_PATIENCE - 0.1)
    assert pacer.due(2.0) == ECHO_PATIENCE
    assert pacer.failed(2.0 + ECHO_PATIENCE)


def test_lines_without_anything_to_see_have_no_echo_to_wait_for() -> None:
    pacer = Pacer(b"\r  \r", None, 0.0)
    assert [pacer.take(0.0), pacer.take(0.0)] == [b"\r", b"  \r"]
    assert pacer.done


def test_a_pause_is_between_lines_and_needs_no_echo() -> None:
    pacer = Pacer(b"a\rb\rc", 0.5, 0.0)
    assert pacer.take(0.0) == b"a\r"
    assert pacer.take(0.4) is None
    assert pacer.due(0.4) == pytest.approx(0.1)
    assert pacer.take(0.5) == b"b\r"
    assert not pacer.done
    assert pacer.take(1.0) == b"c"
    assert (pacer.done, pacer.line, pacer.lines) == (True, 3, 3)
    assert not pacer.failed(100.0)


@given(
    st.lists(st.sampled_from([b"echo x", b"", b"y" * 150, b"\xc3\xa9"]), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_all_of_a_file_is_sent_in_order_however_the_echo_comes(lines: list[bytes], cut: int) -> None:
    data = b"".join(line + b"\r" for line in lines)
    pacer, sent = Pacer(data, None, 0.0), b""
    while not pacer.done:
        piece = pacer.take(0.0)
        assert piece is not None
        sent += piece
        for at in range(0, len(piece), cut):
            pacer.heard(piece[at : at + cut], 0.0)
    assert (sent, pacer.line) == (data, pacer.lines)
