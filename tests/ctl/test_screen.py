"""Notices between the VM's output, and what is undone at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.screen import Screen


def fed(*output: bytes) -> Screen:
    screen = Screen()
    for piece in output:
        screen.feed(piece)
    return screen


def test_a_notice_at_the_start_of_a_line_takes_that_line() -> None:
    assert fed(b"text\r\n").notice("[n]") == b"\r[n]\r\n"


def test_a_notice_within_a_line_begins_a_new_one_and_shows_the_line_again() -> None:
    assert fed(b"login: ").notice("[n]") == b"\r\n[n]\r\nlogin: "


def test_a_line_with_colours_is_shown_again_without_them() -> None:
    assert fed(b"\x1b[?2004h\x1b[32m$ \x1b[0m").notice("[n]") == b"\r\n[n]\r\n$ "


def test_a_line_that_moves_the_cursor_is_not_shown_again() -> None:
    assert fed(b"a\x1b[5;5Hb").notice("[n]") == b"\r\n[n]\r\n"


def test_a_line_behind_a_cleared_screen_is_shown_again() -> None:
    assert fed(b"old\x1b[H\x1b[2J\x1b[3J", b"$ ls").notice("[n]") == b"\r\n[n]\r\n$ ls"


@pytest.mark.parametrize(
    "half", [b"\x1b", b"\x1b[", b"\x1b[3", b"\x1b]0;title", b"\x1b(", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"]
)
def test_a_half_sequence_is_no_place_for_a_notice(half: bytes) -> None:
    assert not fed(b"text" + half).settled


@pytest.mark.parametrize(
    "whole",
    [b"", b"\x1b[31m", b"\x1b]0;title\x07", b"\x1b(0", b"\xc3\xa9", b"\xe2\x82\xac", b"\x1bM", b"\xff"],
)
def test_a_whole_sequence_is_a_place_for_a_notice(whole: bytes) -> None:
    assert fed(b"text" + whole).settled


def test_a_notice_that_cannot_wait_cancels_the_half_sequence() -> None:
    assert fed(b"\r\n\x1b[3").notice("[n]").startswith(b"\x18\r\n[n]\r\n")


def test_the_last_notice_leaves_a_fresh_line() -> None:
    assert fed(b"login: ").last_notice("[n]") == b"\r\n[n]\r\n"
    assert fed(b"text\r\n").last_notice("[n]") == b"\r[n]\r\n"


def test_the_last_notice_stands_on_the_screen_that_remains() -> None:
    assert fed(b"\x1b[?1049h\x1b[2J\r\n").last_notice("[n]") == b"\x1b[?1049l\r\n[n]\r\n"


def test_the_last_notice_cancels_a_half_sequence() -> None:
    assert fed(b"\r\n\x1b[3").last_notice("[n]").startswith(b"\x18")


def test_modes_left_set_are_taken_back() -> None:
    assert fed(b"\x1b[?1049h\x1b[?25l").farewell() == b"\x1b[?1049l\x1b[?25h"


def test_modes_that_the_vm_took_back_are_left_alone() -> None:
    assert fed(b"\x1b[?1049h\x1b[?25l", b"\x1b[?1049;25l\x1b[?25h").farewell() == b""


def test_plain_output_needs_no_farewell() -> None:
    assert fed(b"hello\r\n").farewell() == b""


def test_colours_and_line_drawing_are_taken_back() -> None:
    assert fed(b"\x1b[31mred").farewell() == b"\x1b[0m\x1b(B\x0f\x1b>"


@given(st.integers(0, 16))
def test_a_mode_is_seen_however_the_output_is_cut(cut: int) -> None:
    output = b"text\x1b[?1000;1006h"
    assert fed(output[:cut], output[cut:]).farewell() == b"\x1b[?1000l\x1b[?1006l"


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_output_is_followed_without_an_error(output: list[bytes]) -> None:
    screen = fed(*output)
    assert b"[n]" in screen.notice("[n]")
    assert isinstance(screen.farewell(), bytes)
