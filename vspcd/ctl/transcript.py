"""What a VM has said lately, as text for patterns: without colours, escape sequences and carriage returns.

Does: takes bytes in any chunks, searches what is new together with the lines that it continues.
Owns: the last KEPT characters.
Never: waits.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

from vspcd.ctl.failure import USAGE, Failure
from vspcd.ctl.plain import PlainText

KEPT = 1 << 17
BACK = 4096  # characters before what is new that a match may begin in
_COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")


class Found(NamedTuple):
    """Which pattern, and the line that it was found in."""

    number: int
    match: str
    line: str


def compiled(patterns: Sequence[str], ignore_case: bool = False) -> list[re.Pattern[str]]:
    """Raises Failure for what is no pattern. ^ and $ are a line's."""
    found = []
    for pattern in patterns:
        try:
            found.append(re.compile(pattern, re.MULTILINE | (re.IGNORECASE if ignore_case else 0)))
        except (re.error, OverflowError, RecursionError) as error:
            raise Failure(f"{pattern!r} is not a regular expression: {error}", USAGE) from None
    return found


class Transcript:
    """The text so far."""

    def __init__(self) -> None:
        self.text = ""
        self._plain = PlainText()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._searched = 0  # characters that were searched already

    def feed(self, data: bytes) -> None:
        """The VM has said this."""
        clean = _COLOUR.sub(b"", self._plain.feed(data)).replace(b"\r", b"")
        self.text += self._decoder.decode(clean)
        over = len(self.text) - KEPT
        if over > 0:
            self.text = self.text[over:]
            self._searched = max(0, self._searched - over)

    def forget(self) -> None:
        """Patterns are for what comes from now on."""
        self.text, self._searched = "", 0

    @property
    def last_line(self) -> str:
        """The line that has not ended yet, such as a prompt."""
        return self.text.rpartition("\n")[2]

    def search(self, patterns: Sequence[re.Pattern[str]]) -> Optional[Found]:
        """The pattern whose match begins first; of several the first in the list. What has matched is forgotten."""
        begin = self.text.rfind("\n", 0, max(self._searched - BACK, 0)) + 1
        self._searched = len(self.text)
        best: Optional[re.Match[str]] = None
        number = 0
        for index, pattern in enumerate(patterns):
            match = pattern.search(self.text, begin)
            if match is not None and (best is None or match.start() < best.start()):
                best, number = match, index
        if best is None:
            return None
        start = self.text.rfind("\n", 0, best.start()) + 1
        end = self.text.find("\n", best.end())
        line = self.text[start : end if end >= 0 else len(self.text)]
        self.text, self._searched = self.text[best.end() :], 0
        return Found(number, best[0], line)
