"""Bytes of a log that the disk may not have: it has refused them after the system had taken them.

Does: gives the page's words about them their meaning, and the marker its text.
Owns: nothing; the page is the worker's, and one group of facts in it the keeper's.
Never: touches a file.

The keeper notes a doubt when it finds one, and again when the disk has taken what came since: then the worker marks the
place in the log. Both count journal positions. Which bytes of those the disk lacks, nobody can tell.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from vspcd.unix.lognotes import why
from vspcd.unix.page import LOG_DOUBT, LOG_DOUBTED, LOG_TROUBLE, Page


class Doubt(NamedTuple):
    """The disk may lack what lies between two positions. ``code``: the system's number for why; ``over``: 1 when the
    disk works again.
    """

    since: int
    until: int
    code: int
    over: int

    @property
    def size(self) -> int:
        """How many bytes that are."""
        return self.until - self.since

    def text(self) -> str:
        """In words."""
        return f"up to {self.size} bytes since position {self.since} may be missing: {os.strerror(self.code)}"


class Doubts:
    """A console's words about them in its page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @property
    def open(self) -> Optional[Doubt]:
        """What the log does not tell of yet."""
        facts = self._page.get(LOG_DOUBT)
        return Doubt(*facts) if facts[1] > self._page.get(LOG_DOUBTED)[0] else None

    def note(self, since: int, until: int, code: int) -> None:
        """The keeper: the disk has refused some of this."""
        before = self.open
        since = since if before is None else min(since, before.since)
        self._page.put(LOG_DOUBT, since, until, code, 0)

    def is_over(self) -> None:
        """The keeper: the disk has taken all that came since. Or there is no keeper any more that could tell."""
        doubt = self.open
        if doubt is not None:
            self._page.put(LOG_DOUBT, *doubt._replace(over=1))

    def told(self, doubt: Doubt) -> None:
        """The worker: the log tells of it."""
        self._page.put(LOG_DOUBTED, doubt.until, self.bytes + doubt.size)

    @property
    def bytes(self) -> int:
        """How many bytes the log tells of as doubtful."""
        return self._page.get(LOG_DOUBTED)[1]


def trouble_of(page: Page) -> str:
    """What is wrong with a console's log at the moment, in words; empty when nothing is."""
    doubt = Doubts(page).open
    return why(page.words[LOG_TROUBLE]) or ("" if doubt is None else doubt.text())
