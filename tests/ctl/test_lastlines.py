"""The last lines of a console, as they are shown once more."""

from __future__ import annotations

import pytest

from vspcd.ctl.lastlines import last_lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\r\ntwo\r\nthree", ["two", "three"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"10%\r50%\r100%\r\ndone\r\n", ["100%", "done"]),
        (b"\x1b]0;t\x07a\r\n\x07\x08b", ["a", "\x08b"]),
        (b"\x1b[31mred\r\n", ["\x1b[31mred\x1b[0m"]),
        (b"\xff", ["\ufffd"]),
        (b"", [""]),
    ],
)
def test_the_last_lines_are_shown_as_they_were_left(data: bytes, lines: list[str]) -> None:
    assert last_lines(data, 2) == lines
