"""What a console's log notes in the worker's page, so that another process can go on from there.

Does: gives the page's words about the log their meaning, and the reasons for trouble their words.
Owns: nothing; the page is the worker's.
Never: touches a file.

``LOG_PLACE`` holds four facts that are in force together: the log file's inode, the position that its first byte has,
where in the file a marker begins that is not in force yet, and how many bytes all markers so far stand for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Optional

from vspcd.unix.page import HEAD, LOG_ON_DISK, LOG_PLACE, LOG_SEEN, LOG_TROUBLE, NOT_LOGGED, Page

ROTATING = 0  # no file has this inode: the next one begins at the position beside it
WORD = 1 << 64

# Reasons beside the system's, whose numbers are below 4096.
BELOW_RESERVE = 4096
FILE_GONE = 4097
REASONS: Mapping[int, str] = MappingProxyType(
    {BELOW_RESERVE: "log.reserve", FILE_GONE: "the log file was removed"}
)


def why(code: int) -> str:
    """The reason for trouble in words, empty for none."""
    return REASONS.get(code) or os.strerror(code) if code else ""


class Place(NamedTuple):
    """Where a log stands. ``marker``: one more than the byte at which an unfinished marker begins, 0 without one."""

    inode: int
    base: int
    marker: int = 0
    lost: int = 0


class Notes:
    """The log's words in a page. ``logging``: False for what is kept for clients alone, in which nothing is missed."""

    def __init__(self, page: Page, logging: bool = True) -> None:
        self._page = page
        self._logging = logging

    @property
    def place(self) -> Place:
        """Where the log stands."""
        inode, base, marker, lost = self._page.get(LOG_PLACE)
        return Place(inode, base - WORD if base >= WORD // 2 else base, marker, lost)

    @place.setter
    def place(self, place: Place) -> None:
        self._page.put(LOG_PLACE, place.inode, place.base % WORD, place.marker, place.lost)

    @property
    def placed(self) -> bool:
        """Whether any place was noted."""
        return self.place != Place(ROTATING, 0)

    @property
    def head(self) -> int:
        """The journal position behind the last byte that a dead worker has dealt with."""
        return self._page.words[HEAD]

    @property
    def seen(self) -> int:
        """Up to which position the log file is known to have had its name."""
        return self._page.words[LOG_SEEN]

    @seen.setter
    def seen(self, position: int) -> None:
        self._page.words[LOG_SEEN] = position

    @property
    def on_disk(self) -> Optional[int]:
        """Up to which position the keeper knows the log to be on the disk; None when it is not asked to look."""
        return self._page.words[LOG_ON_DISK] - 1 if self._page.words[LOG_ON_DISK] else None

    @on_disk.setter
    def on_disk(self, position: Optional[int]) -> None:
        self._page.words[LOG_ON_DISK] = 0 if position is None else position + 1

    @property
    def trouble(self) -> int:
        """Why the log takes nothing: a reason's number, 0 when it does."""
        return self._page.words[LOG_TROUBLE]

    @trouble.setter
    def trouble(self, code: int) -> None:
        if self._logging:
            self._page.words[LOG_TROUBLE] = code

    def missed(self, size: int) -> None:
        """So many bytes are not in the log, and no marker that could not be written yet changes that."""
        if self._logging:
            self._page.words[NOT_LOGGED] = size
