"""Deaths on a worker's bench: the worker ends at a failpoint, and its heir gets what the master was told.

Owns nothing. A death is an exception that no code catches; ``Bench.succeed`` closes what the dead worker had open.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Callable, Optional

import pytest

from vspcd.unix.failpoint import POINTS

ROUNDS = 300


class Died(BaseException):
    """The worker has died here."""


class Failpoints:
    """Where workers are to die, and what they have reached. Use the fixture ``failpoints``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached: list[str] = []
        self._armed: dict[str, int] = {}
        for name, module in tuple(sys.modules.items()):
            if name.split(".")[0] in ("vspcd", "workers") and hasattr(module, "reached"):
                monkeypatch.setattr(module, "reached", self._reached)

    def _reached(self, name: str) -> None:
        self.reached.append(name)
        left = self._armed.get(name)
        if left is not None:
            self._armed[name] = left - 1
            if left <= 1:
                del self._armed[name]
                raise Died(name)

    def arm(self, name: str, nth: int = 1) -> None:
        """Die when this place is reached for the nth time from now on."""
        assert name in POINTS, name
        self._armed[name] = nth

    def disarm(self) -> None:
        """Nobody dies any more."""
        self._armed.clear()

    def dies(self, turn: Callable[[], object], name: str, nth: int = 1) -> None:
        """The worker dies there while ``turn`` is called; fails when it does not."""
        self.arm(name, nth)
        try:
            for _ in range(ROUNDS):
                turn()
        except Died:
            return
        raise AssertionError(f"{name} was not reached")


class Told:
    """What a master knows of a worker's connections and its move: see ``vspcd.consoles`` and ``vspcd.claims``."""

    def __init__(self, messages: Iterable[dict[str, Any]]) -> None:
        self.sessions: dict[int, dict[str, Any]] = {}
        self.feeds: Optional[int] = None
        self.move: Optional[dict[str, Any]] = None
        for message in messages:
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("connected", "session", "took") and message["session"] is not None:
            self.sessions[message["leg"]] = message["session"]
            self.move = message["move"]
        if kind == "connected":
            self.feeds = message["leg"]
        elif kind == "disconnected" and message["leg"] == self.feeds:
            self.feeds = None
        elif kind == "moved":
            self.move = None

    def role(self, leg: int) -> str:
        """What a connection is handed to an heir for."""
        if leg == self.feeds:
            return "feeds"
        return "target" if self.move is not None and self.move["target"] == leg else "newcomer"

    def resume_leg(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The message that hands it over. ``facts``: how it was offered to the dead worker."""
        number = facts["leg"]
        known = {**facts, "session": self.sessions.get(number, facts["session"])}
        return {"type": "resume-leg", "role": self.role(number), **known}
