"""The audit log: who did what, on which console, from where.

Does: makes a line of each act and each refusal, and lets the keeper write them, a batch at a time.
Owns: the lines that are not written yet, a bounded number, and the count of those that there was no room for.
Never: touches a disk or waits for one: what cannot be written is tried again, and counted when it is too much.

A line is one JSON object, ASCII alone. The keeper brings it to the disk within a second.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Optional, Union

from vspcd.config_schema import Config
from vspcd.core.rights import Who
from vspcd.proto.control import Message, packed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

if TYPE_CHECKING:
    from vspcd.portkeeper import PortKeeper
    from vspcd.table import Console

Fact = Union[str, int, float, bool, None]

LIMIT = 2000  # lines that may wait
BATCH = 100  # lines that are written at once, if they fit into a packet
SHORT = 200  # characters of somebody else's text; a line then fits into a packet however they are escaped
COLLECT_FOR = 0.02
RETRY_AFTER = 1.0


class Audit:
    """``keeper`` comes later than the first acts may."""

    def __init__(self, loop: Loop, log: Log, config: Config) -> None:
        self.config = config
        self.lost = 0
        self._loop = loop
        self._log = log
        self._keeper: Optional[PortKeeper] = None
        self._lines: list[str] = []
        self._sent = 0  # how many of them the keeper has
        self._number = 0
        self._timer_set = False
        self._failing = False

    @property
    def settled(self) -> bool:
        """Whether nothing waits but for a disk in trouble."""
        return not self._lines or self._failing

    def begin(self, keeper: PortKeeper) -> None:
        """Let this keeper write from now on, and whoever takes its place."""
        self._keeper = keeper
        keeper.others["audited"] = self._audited
        keeper.began = self._again
        self._again()

    def did(self, what: str, who: Who, console: Optional[Console] = None, **facts: Fact) -> None:
        """Somebody has done this."""
        self.wrote(what, who, console, "ok", facts)

    def refused(self, what: str, who: Who, console: Optional[Console], reason: str) -> None:
        """Somebody wanted to do this and may not, or could not."""
        self.wrote(what, who, console, "refused", {"reason": reason})

    def wrote(
        self, what: str, who: Who, console: Optional[Console], outcome: str, facts: dict[str, Fact]
    ) -> None:
        """One line."""
        if self.config.audit.file is None:
            return
        if len(self._lines) >= LIMIT:
            self.lost += 1
            return
        if self.lost:
            lost, self.lost = self.lost, 0
            self._lines.append(_line({"what": "lost", "lines": lost}))
        self._lines.append(
            _line({"what": what, "outcome": outcome, **_where(console), **_whose(who), **_shortened(facts)})
        )
        self._later(COLLECT_FOR)

    def _later(self, seconds: float) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._loop.call_later(seconds, self.flush)

    def flush(self) -> None:
        """Give the keeper what waits. One batch at a time is on its way."""
        self._timer_set = False
        if self._keeper is None or self._sent or not self._lines:
            return
        path = self.config.audit.file
        if path is None:
            self._lines.clear()
            return
        self._number += 1
        batch = next(packed(self._lines[:BATCH]))
        message: Message = {"type": "audit", "number": self._number, "file": str(path), "lines": batch}
        self._sent = len(batch) if self._keeper.tell(message) else 0

    def finish(self) -> None:
        """Give the keeper all that is left, as the last thing."""
        while self._lines and not self._failing:
            del self._lines[: self._sent]  # it has these already
            self._sent = 0
            self.flush()
            if not self._sent:
                return

    def _again(self) -> None:
        """There is another keeper: what the one before has not acknowledged is written again."""
        self._sent = 0
        self.flush()

    def _audited(self, message: Message) -> None:
        if message["number"] != self._number:
            return
        sent, self._sent = self._sent, 0
        if message["reason"] is None:
            del self._lines[:sent]
            if self._failing:
                self._failing = False
                self._log.info("audit-works-again")
            self.flush()
            return
        if not self._failing:
            self._failing = True
            self._log.error("audit-not-written", file=str(self.config.audit.file), reason=message["reason"])
        self._later(RETRY_AFTER)


def _line(facts: dict[str, Any]) -> str:
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
    return json.dumps({"time": stamp, **facts}, separators=(",", ":"))


def _where(console: Optional[Console]) -> dict[str, Fact]:
    return {} if console is None else {"console": console.id, "name": _short(console.name)}


def _whose(who: Who) -> dict[str, Fact]:
    if who.uid is not None:
        return {"user": who.user, "uid": who.uid, "pid": who.pid}
    return {"from": who.address, **({"certificate": _short(who.certificate)} if who.certificate else {})}


def _shortened(facts: dict[str, Fact]) -> dict[str, Fact]:
    return {key: _short(value) if isinstance(value, str) else value for key, value in facts.items()}


def _short(text: Optional[str]) -> Optional[str]:
    return text if text is None else text[:SHORT]
