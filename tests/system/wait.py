"""Waiting for a condition, always with a deadline. Owns the only sleep of the system tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional, TypeVar

T = TypeVar("T")

# Long enough for a busy two-core machine; what works takes a small part of it.
PATIENCE = 30.0
PAUSE = 0.02


class Late(AssertionError):
    """What a test waited for did not happen in time."""


class Deadline:
    """A moment in the near future. Late is raised by whoever asks after it."""

    def __init__(self, what: str, seconds: float = PATIENCE) -> None:
        self.what = what
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise Late(f"waited {self.seconds:g} s in vain: {self.what}")
        return left


def until(probe: Callable[[], Optional[T]], what: str, seconds: float = PATIENCE) -> T:
    """The first true value of probe."""
    deadline = Deadline(what, seconds)
    while True:
        value = probe()
        if value:
            return value
        time.sleep(min(PAUSE, deadline.left()))


def throughout(probe: Callable[[], bool], seconds: float) -> bool:
    """Whether probe stays true for a while: for what must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not probe():
            return False
        time.sleep(PAUSE)
    return True
