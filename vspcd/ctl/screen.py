"""Where the VM's output has left the screen: on which kind of line, in which modes.

Does: finds the moments and the bytes for a notice that garbles nothing, and what undoes the VM's modes.
Owns: the tail of the current line, and the set of modes that differ from a fresh terminal.
Never: writes; changes a byte of the output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TAIL_LIMIT = 256
"""Bytes of the current line that are kept to be shown again below a notice."""

UNDO: Mapping[bytes, bytes] = {
    b"1": b"\x1b[?1l",  # application cursor keys
    b"9": b"\x1b[?9l",  # mouse reports
    b"25": b"\x1b[?25h",  # the cursor
    b"47": b"\x1b[?47l",  # alternate screens
    b"1000": b"\x1b[?1000l",
    b"1002": b"\x1b[?1002l",
    b"1003": b"\x1b[?1003l",
    b"1004": b"\x1b[?1004l",  # focus reports
    b"1005": b"\x1b[?1005l",
    b"1006": b"\x1b[?1006l",
    b"1015": b"\x1b[?1015l",
    b"1047": b"\x1b[?1047l",
    b"1049": b"\x1b[?1049l",
    b"2004": b"\x1b[?2004l",  # bracketed paste
}
"""What takes back each private mode that would bother a shell."""
_USUALLY_ON = frozenset({b"25"})

_MODES = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_DRAWN = re.compile(rb"\x1b\[[0-9;]*m|\x1b\(0|\x0e|\x1b=")
_OPEN_SEQUENCE = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|[ -/]*|[\]PX^_][^\x07\x1b]{0,200}\x1b?)?"
    rb"|[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})\Z"
)
_HARMLESS = re.compile(rb"\x1b\[[0-9;]*m|\x1b\[\?[0-9;]+[hl]")

_CLEARED = re.compile(rb"\x1b\[(?:1;1)?H(?:\x1b\[[23]?J)+")
"""What empties the screen: the line behind it is a new one."""


class Screen:
    """Follows the output of one session."""

    def __init__(self) -> None:
        self._tail = b""
        self._modes: set[bytes] = set()
        self._dressed = False

    def feed(self, data: bytes) -> None:
        """Take note of output that was written."""
        window = self._open_part() + data
        for numbers, verb in _MODES.findall(window):
            for number in numbers.split(b";"):
                self._switch(number, (verb == b"h") != (number in _USUALLY_ON))
        self._dressed = self._dressed or _DRAWN.search(window) is not None
        self._tail = _CLEARED.split((self._tail + data).rpartition(b"\n")[2])[-1][-TAIL_LIMIT:]

    @property
    def settled(self) -> bool:
        """Whether a notice can be written now: no escape sequence or character is half out."""
        return not self._open_part()

    def notice(self, text: str) -> bytes:
        """What shows a notice on a line of its own, and the line that it has interrupted again below it."""
        return self.interruption() + text.encode("utf-8", "replace") + b"\r\n" + self.again()

    def interruption(self) -> bytes:
        """What begins a line of our own."""
        cancel = b"" if self.settled else b"\x18"
        return cancel + (b"\r\n" if self._tail else b"\r")

    def again(self) -> bytes:
        """The line that was interrupted, as far as it can be shown again."""
        again = _HARMLESS.sub(b"", self._tail)
        return again if b"\x1b" not in again else b""

    def last_notice(self, text: str) -> bytes:
        """What ends a session: the VM's modes taken back, then the notice, and a fresh line for the shell."""
        cancel = b"" if self.settled else b"\x18"
        undo = self.farewell()
        start = b"\r\n" if self._tail or undo else b"\r"
        return cancel + undo + start + text.encode("utf-8", "replace") + b"\r\n"

    def farewell(self) -> bytes:
        """What takes back the modes that the VM has left set."""
        undo = b"".join(UNDO[mode] for mode in sorted(self._modes))
        return undo + (b"\x1b[0m\x1b(B\x0f\x1b>" if self._dressed else b"")

    def _switch(self, number: bytes, changed: bool) -> None:
        if number in UNDO:
            (self._modes.add if changed else self._modes.discard)(number)

    def _open_part(self) -> bytes:
        match = _OPEN_SEQUENCE.search(self._tail)
        return match[0] if match else b""
