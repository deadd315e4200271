"""What patterns see of a console, and what TEXT means."""

from __future__ import annotations

import pytest

from vspcd.ctl.failure import Failure
from vspcd.ctl.transcript import KEPT, Transcript, compiled
from vspcd.ctl.typed import typed


def said(*pieces: bytes) -> Transcript:
    transcript = Transcript()
    for piece in pieces:
        transcript.feed(piece)
    return transcript


def test_colours_and_carriage_returns_are_no_text() -> None:
    transcript = said(b"\x1b[31mKer", b"nel\x1b", b"[0m panic\r", b"\r\n\x1b[2Jweb01 login: ")
    assert transcript.text == "Kernel panic\nweb01 login: "
    assert transcript.last_line == "web01 login: "


@pytest.mark.parametrize(
    "pieces", [(b"a\n\x1b[?2004l\rtwo\r\n",), (b"a\n\x1b[?2004l\r", b"two\r", b"\n"), (b"a\n\r\rt\rwo\n",)]
)
def test_a_line_begins_behind_the_carriage_return_of_a_line_editor(pieces: tuple[bytes, ...]) -> None:
    assert said(*pieces).search(compiled(["^two$"])) == (0, "two", "two")


def test_a_letter_in_two_pieces_is_one() -> None:
    assert said("ü".encode()[:1], "ü".encode()[1:]).text == "ü"


def test_a_pattern_is_found_in_pieces_and_told_with_its_line() -> None:
    transcript = said(b"one\r\ntwo th")
    patterns = compiled(["three", "^two"])
    found = transcript.search(patterns[:1])
    assert found is None
    transcript.feed(b"ree four\r\nfive")
    assert transcript.search(patterns[:1]) == (0, "three", "two three four")
    assert transcript.search(patterns[:1]) is None


def test_of_several_patterns_the_one_that_comes_first_counts() -> None:
    assert said(b"a b c").search(compiled(["c", "b"])) == (1, "b", "a b c")
    assert said(b"ab").search(compiled(["ab", "a"])) == (0, "ab", "ab")


def test_only_so_much_is_kept() -> None:
    transcript = said(b"first\n")
    for _ in range(KEPT // 1000 + 2):
        transcript.feed(b"x" * 999 + b"\n")
    assert len(transcript.text) <= KEPT
    assert transcript.search(compiled(["first"])) is None


def test_what_is_no_pattern_is_told() -> None:
    with pytest.raises(Failure, match="'\\(' is not a regular expression"):
        compiled(["("])


@pytest.mark.parametrize(
    ("text", "data"),
    [("reboot", b"reboot"), (r"a\tb\r\n", b"a\tb\r\n"), (r"\x03\e\\", b"\x03\x1b\\"), ("ü", b"\xc3\xbc")],
)
def test_escapes_are_characters(text: str, data: bytes) -> None:
    assert typed(text) == data


@pytest.mark.parametrize("text", [r"\q", r"\x1", "\\"])
def test_what_is_no_escape_is_told(text: str) -> None:
    with pytest.raises(Failure, match="is no escape"):
        typed(text)
