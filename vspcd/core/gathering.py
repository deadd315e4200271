"""When matches of triggers are told: each console once in a while, and those that match together as one.

Pure. Does: takes matches with their times, gives what is due.
Owns: when each console was told of last, and what waits, both bounded.
Never: asks for the time.

A panic of one VM is told after ``gather`` seconds, one of a thousand VMs as well, in one piece. The same trigger on the
same console is told again only after ``every`` seconds; the lines in between are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

from vspcd.core.automation import Trigger

REMEMBERED = 20000  # consoles per trigger, for which it is known when they were told of last
TOGETHER = 5000  # consoles that are told of at once; more are another piece


class Match(NamedTuple):
    """A console that has matched: its first line that did, and how many have since it was told of last."""

    console: str
    line: str
    lines: int


class Gathering:
    """Of one trigger."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.due: Optional[float] = None
        self._told: dict[str, float] = {}
        self._quiet: dict[str, int] = {}  # lines since then
        self._waiting: dict[str, Match] = {}

    def matched(self, console: str, line: str, now: float) -> None:
        """A line of this console has matched."""
        waiting = self._waiting.get(console)
        if waiting is not None:
            self._waiting[console] = waiting._replace(lines=waiting.lines + 1)
        elif now - self._told.get(console, float("-inf")) < self.trigger.every:
            self._quiet[console] = self._quiet.get(console, 0) + 1
        else:
            self._waiting[console] = Match(console, line, self._quiet.pop(console, 0) + 1)
            if self.due is None:
                self.due = now + self.trigger.gather

    def take(self, now: float) -> list[Match]:
        """What is to be told now, if anything is."""
        if self.due is None or now < self.due:
            return []
        taken = dict(list(self._waiting.items())[:TOGETHER])
        for console in taken:
            del self._waiting[console]
            self._told.pop(console, None)
            self._told[console] = now
        self.due = now if self._waiting else None
        self._forget(now)
        return list(taken.values())

    def _forget(self, now: float) -> None:
        """Consoles that may be told of again need not be remembered."""
        over = len(self._told) - REMEMBERED
        for console, told in tuple(self._told.items()):
            if over <= 0 and (now - told < self.trigger.every or console in self._quiet):
                break
            del self._told[console]
            self._quiet.pop(console, None)
            over -= 1


def next_due(gatherings: Iterator[Gathering]) -> Optional[float]:
    """When the next of them has something to tell."""
    return min((each.due for each in gatherings if each.due is not None), default=None)
