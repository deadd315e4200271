"""What happens on consoles, for the hooks of the configuration.

Does: makes a job of each event that a hook waits for, and gives it to the process that runs them.
Owns: the jobs that are not done, a bounded number, and the count of those that there was no room for.
Never: runs a command, waits, or touches a disk: an event that nobody waits for costs a comparison.

The process that runs hooks may die at any time. What it had not finished is told to its successor, with the process
group of what it had begun, so that nothing is begun twice and nothing runs for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

from vspcd.aide import Aide
from vspcd.config_schema import Config
from vspcd.core.automation import CONNECTED, RENAMED, Action, actions_for
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.spawn import Nursery
from vspcd.table import Console
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

TELL_LOST_AFTER = 5.0
NAMED_WITHIN = 2.0
LIVES = 3
"""Processes that a job may see die before it is given up: it may be the reason."""

SHORT = 500  # characters of somebody else's text


@dataclass
class Job:
    """One action on one event; ``began`` is what is known of what runs."""

    message: Message
    began: Optional[dict[str, Any]] = None
    lives: int = 0


class Events:
    """The master calls ``happened``, and that is all that it has to do with hooks."""

    def __init__(self, loop: Loop, log: Log, nursery: Nursery, config: Config) -> None:
        self.config = config
        self.jobs: dict[int, Job] = {}
        self.lost = 0
        self._loop = loop
        self._log = log
        self._number = 0
        self.named: Callable[[Console], None] = lambda _console: None  # it has a name, perhaps a new one
        self._nameless: dict[str, Console] = {}
        self.aide = Aide(
            loop, log, control.HOOKS, lambda: nursery.hooks(self.config), self._said, self._tell_all
        )

    def start(self) -> None:
        """Events have their hooks from now on."""
        self.aide.want(self._wanted)

    @property
    def _wanted(self) -> bool:
        return bool(self.config.hooks.rules) or any(each.action for each in self.config.triggers)

    def apply(self, config: Config) -> None:
        """The configuration was read again. What waits is done as it was meant when it happened."""
        self.config = config
        self.aide.tell({"type": "settings", "settings": settings(config)})
        if self._wanted:
            self.aide.want(True)

    def stop(self) -> None:
        """Let it end, soon."""
        self.aide.want(False)

    def happened(self, event: str, console: Console, **facts: Any) -> None:
        """Something has happened on a console."""
        if event in (CONNECTED, RENAMED):
            self.named(console)
        if not self.config.hooks.rules:
            return
        if event == CONNECTED and not console.name:
            self._hold(console)
            return
        self._release(console.id)
        if event != RENAMED or facts["old"]:
            self._act(event, console, facts)

    def _act(self, event: str, console: Console, facts: dict[str, Any]) -> None:
        for action in actions_for(self.config.hooks.rules, event, console):
            self.do(action, event, {**facts_of(console), **facts})

    def _hold(self, console: Console) -> None:
        """A new VM tells its name right after it has connected; hooks want to know whose event it is."""
        self._nameless[console.id] = console
        self._loop.call_later(NAMED_WITHIN, lambda: self._release(console.id))

    def _release(self, console: str) -> None:
        held = self._nameless.pop(console, None)
        if held is not None:
            self._act(CONNECTED, held, {})

    def do(self, action: Action, event: str, facts: dict[str, Any]) -> None:
        """Have this done, unless too much waits."""
        if len(self.jobs) >= self.config.hooks.queue:
            self._lose()
            return
        self._number += 1
        told = {key: _short(value) for key, value in facts.items()}
        message: Message = {"type": "job", "number": self._number, "began": None}
        message.update(action.told(self.config.hooks.timeout))
        message["facts"] = {"event": event, "time": round(time.time(), 3), **told}
        job = self.jobs[self._number] = Job(message)
        self.aide.tell(job.message)

    def _lose(self) -> None:
        """One line tells of many."""
        self.lost += 1
        if self.lost == 1:
            self._log.error("hooks-behind", waiting=len(self.jobs), limit=self.config.hooks.queue)
            self._loop.call_later(TELL_LOST_AFTER, self._tell_lost)

    def _tell_lost(self) -> None:
        lost, self.lost = self.lost, 0
        self._log.error("hook-events-dropped", count=lost, limit=self.config.hooks.queue)

    def _tell_all(self) -> None:
        """Another process is there: it learns what is not done."""
        first = next((number for number, job in self.jobs.items() if job.began is None), None)
        if first is not None:
            self._suspect(first)
        for job in self.jobs.values():
            self.aide.tell({**job.message, "began": job.began})

    def _suspect(self, number: int) -> None:
        """The first job that was not begun would be the reason, if one is."""
        job = self.jobs[number]
        job.lives += 1
        if job.lives > LIVES:
            del self.jobs[number]
            self._log.error("hook-given-up", on=str(job.message["facts"]["event"]), deaths=LIVES)

    def _said(self, kind: str, message: Message) -> None:
        if kind == "ended":
            self.jobs.pop(message["number"], None)
        elif message["number"] in self.jobs:
            self.jobs[message["number"]].began = message["began"]


def settings(config: Config) -> dict[str, Any]:
    """What the process that runs hooks needs to know, as plain data."""
    return {"log_level": config.log_level, "concurrency": config.hooks.concurrency}


def facts_of(console: Console) -> dict[str, Any]:
    """Which console it is, and where its VM is."""
    return {
        "console": console.id,
        "name": console.name,
        "label": console.label or None,
        "port": console.port or None,
        "peer": None if console.leg is None else console.leg.peer,
    }


def _short(value: Any) -> Any:
    return value[:SHORT] if isinstance(value, str) else value
