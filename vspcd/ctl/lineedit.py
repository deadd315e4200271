"""A line that is typed at a question: what the keys do to it, and how it is shown.

Owns: the line, as bytes that may end in half a character.
Never: reads or writes a terminal. Any chunking of the same keys gives the same line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional

LIMIT = 1000
"""Bytes of a line; what is typed beyond them is left out."""

ENTER, CANCELLED = "enter", "cancelled"

_RETURN, _NEWLINE, _ESCAPE, _DELETE = 0x0D, 0x0A, 0x1B, 0x7F


class SequenceFilter:
    """Notices the escape sequences that function keys send."""

    def __init__(self) -> None:
        self._state = ""

    def takes(self, key: int) -> bool:
        """Whether this byte belongs to a sequence."""
        if self._state == "":
            self._state = "begun" if key == _ESCAPE else ""
            return key == _ESCAPE
        if self._state == "begun":
            self._state = {ord("["): "parameters", ord("O"): "last", _ESCAPE: "begun"}.get(key, "")
            return self._state != ""
        if self._state == "last" or not 0x20 <= key <= 0x3F:
            self._state = ""
        return True


class LineEdit:
    """One line. ``feed`` it with keys until it is done."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._sequence = SequenceFilter()

    @property
    def text(self) -> str:
        return self._line.decode("utf-8", "replace")

    def feed(self, key: int) -> Optional[str]:
        """ENTER or CANCELLED when the line is done."""
        if self._sequence.takes(key):
            return None
        if key in (_RETURN, _NEWLINE):
            return ENTER
        if key in (0x03, 0x07) or (key == 0x04 and not self._line):  # Ctrl-C, Ctrl-G, Ctrl-D
            return CANCELLED
        if key in _EDITS:
            _EDITS[key](self._line)
        elif key >= 0x20 and len(self._line) < LIMIT:
            self._line.append(key)
        return None


def _rub_out(line: bytearray) -> None:
    while line and 0x80 <= line[-1] < 0xC0:
        line.pop()
    if line:
        line.pop()


def _rub_out_word(line: bytearray) -> None:
    del line[len(line.rstrip().rpartition(b" ")[0]) + (b" " in line.rstrip()) :]


_EDITS: Mapping[int, Callable[[bytearray], None]] = {
    _DELETE: _rub_out,
    0x08: _rub_out,
    0x15: bytearray.clear,  # Ctrl-U
    0x17: _rub_out_word,  # Ctrl-W
}
