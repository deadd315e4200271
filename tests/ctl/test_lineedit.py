"""The line that answers a question."""

from __future__ import annotations

from typing import Optional

import pytest

from vspcd.ctl.lineedit import CANCELLED, ENTER, LIMIT, LineEdit


def typed(keys: bytes) -> tuple[str, Optional[str]]:
    """The line after these keys, and how it has ended."""
    line = LineEdit()
    ends = [end for end in map(line.feed, keys) if end is not None]
    return line.text, ends[0] if ends else None


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (b"abc", "abc"),
        (b"abc\x7f\x08d", "ad"),
        (b"\x7f", ""),
        ("fürn\x7fü".encode(), "fürü"),
        ("f\u20ac\x7f".encode(), "f"),
        (b"one two\x17", "one "),
        (b"one two  \x17", "one "),
        (b"one\x17", ""),
        (b"one two\x15three", "three"),
        (b"a\x1b[Db\x1b[1;5Cc\x1bOHd", "abcd"),
        (b"\x1b[200~pasted\x1b[201~", "pasted"),
        (b"a\x1bb", "ab"),
        (b"a\x1b\x1b[Ab", "ab"),
        (b"a\x01\x1ab", "ab"),
        (b"\xff", "\ufffd"),
    ],
)
def test_keys_edit_the_line(keys: bytes, line: str) -> None:
    assert typed(keys) == (line, None)


@pytest.mark.parametrize("key", [b"\r", b"\n"])
def test_enter_ends_the_line(key: bytes) -> None:
    assert typed(b"a b" + key) == ("a b", ENTER)


@pytest.mark.parametrize("keys", [b"a\x03", b"a\x07", b"\x04"])
def test_the_line_can_be_cancelled(keys: bytes) -> None:
    assert typed(keys)[1] == CANCELLED


def test_an_end_of_file_within_a_line_is_nothing() -> None:
    assert typed(b"a\x04") == ("a", None)


def test_a_line_has_a_limit() -> None:
    assert typed(b"x" * (LIMIT + 5) + b"\r") == ("x" * LIMIT, ENTER)
