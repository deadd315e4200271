"""Makes a console's bytes harmless for a terminal that only shows a log.

Does: keeps text, line ends, tabs and colours; takes out every other escape sequence and control character.
Owns: a sequence that is not complete yet.
Never: lets anything through that moves the cursor elsewhere, or makes the terminal answer.
"""

from __future__ import annotations

import re

HELD_LIMIT = 1024
"""Bytes of an incomplete sequence that are held back."""

_COLOUR = rb"\x1b\[[0-9;:]*m"
_SEQUENCE = rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ`-~])"
_CONTROL = rb"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]"
_FOUND = re.compile(rb"(" + _COLOUR + rb")|" + _SEQUENCE + rb"|" + _CONTROL)
_OPEN = re.compile(rb"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\n]*\x1b?|[ -/]*)?|\xc2)\Z")


class PlainText:
    """A filter over a stream, in any chunks."""

    def __init__(self) -> None:
        self._held = b""
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be shown."""
        data = self._held + data
        match = _OPEN.search(data, max(len(data) - HELD_LIMIT, 0))
        end = match.start() if match else len(data)
        self._held = data[end:]
        return self._clean(data[:end])

    def finish(self) -> bytes:
        """What is left at the end of the stream, with the colours taken back."""
        rest, self._held = self._clean(self._held), b""
        return rest + (b"\x1b[0m" if self._coloured else b"")

    def _clean(self, data: bytes) -> bytes:
        self._coloured = self._coloured or b"\x1b[" in data
        return _FOUND.sub(lambda match: match[1] or b"", data)
