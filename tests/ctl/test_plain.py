"""What of a log a terminal may see."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.plain import PlainText


def shown(*pieces: bytes) -> bytes:
    plain = PlainText()
    return b"".join(plain.feed(piece) for piece in pieces) + plain.finish()


@pytest.mark.parametrize("text", [b"plain\r\n", b"tab\tback\b\b", "grün €".encode(), b"\x1b[1;31mred\x1b[0m"])
def test_text_and_colours_are_shown(text: bytes) -> None:
    assert shown(text).startswith(text)


@pytest.mark.parametrize(
    "evil",
    [b"\x1b[6n", b"\x1b[c", b"\x1b[2J", b"\x1b]0;title\x07", b"\x1b]52;c;eA==\x1b\\", b"\x1bP$q\"p\x1b\\",
     b"\x1bc", b"\x07", b"\x05", b"\x00", b"\x7f", b"\xc2\x9b6n", b"\x1b[?1049h", b"\x1b(0"],
)  # fmt: skip
def test_what_steers_a_terminal_is_left_out(evil: bytes) -> None:
    assert re.fullmatch(rb"a(6n)?b(\x1b\[0m)?", shown(b"a" + evil + b"b"))


def test_colours_are_taken_back_at_the_end() -> None:
    assert shown(b"\x1b[31mred") == b"\x1b[31mred\x1b[0m"


def test_an_endless_sequence_is_not_kept_for_ever() -> None:
    plain = PlainText()
    for _ in range(100):
        plain.feed(b"\x1b]" + b"x" * 100)
    assert len(plain.finish()) < 2000


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_cut_gives_the_same_text(data: bytes, cut: int) -> None:
    assert shown(data[:cut], data[cut:]) == shown(data)


@given(
    st.lists(
        st.sampled_from(
            [b"\x1b", b"[", b"]", b"6", b"n", b"m", b"\x07", b"x", b"\xc2", b"\x9b", b"P", b"\\"]
        ),
        max_size=40,
    )
)
def test_nothing_but_colours_begins_with_escape(pieces: list[bytes]) -> None:
    assert re.sub(rb"\x1b\[[0-9;:]*m", b"", shown(*pieces)).count(b"\x1b") == 0
