"""Triggers: what the watcher has found in the logs becomes an event, for hooks and for the trigger's own action.

Does: keeps a watcher while there are triggers, tells it what the consoles are called, logs what it has found.
Owns: the watcher's life.
Never: reads a log or matches a pattern; believes the watcher more than that a trigger of ours has matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vspcd.aide import Aide
from vspcd.config_schema import Config
from vspcd.core.automation import TRIGGERED, Trigger
from vspcd.events import Events, facts_of
from vspcd.proto import control
from vspcd.proto.control import Message, packed
from vspcd.spawn import Nursery
from vspcd.table import Console, Table
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

LINE_LIMIT = 300
NAMES = 20


class Triggers:
    """``events`` gets what has matched."""

    def __init__(
        self, loop: Loop, log: Log, nursery: Nursery, config: Config, table: Table, events: Events
    ) -> None:
        self.config = config
        self._log = log
        self._table = table
        self._events = events
        self._first = True
        self.aide = Aide(
            loop, log, control.WATCHER, lambda: nursery.watcher(self._settings), self._said, self._began
        )
        events.named = self._named

    @property
    def _settings(self) -> dict[str, Any]:
        return {**settings(self.config), "resume": not self._first}

    def start(self, resume: bool) -> None:
        """Triggers are watched from now on; ``resume``: from where another watcher was, if one was."""
        self._first = not resume
        self.aide.want(bool(self.config.triggers))

    def apply(self, config: Config) -> None:
        """The configuration was read again."""
        self.config = config
        if not config.triggers:
            self.aide.want(False)
            self._first = True
            return
        self.aide.tell({"type": "settings", "settings": settings(config)})
        self.aide.want(True)

    def stop(self) -> None:
        """Let it end."""
        self.aide.want(False)

    def _began(self) -> None:
        self._first = False
        known = ([console.id, console.name] for console in self._table.consoles.values())
        for names in packed(known):
            self.aide.tell({"type": "names", "names": names})

    def _named(self, console: Console) -> None:
        if self.config.triggers:
            self.aide.tell({"type": "names", "names": [[console.id, console.name]]})

    def _said(self, _kind: str, message: Message) -> None:
        trigger = next((each for each in self.config.triggers if each.name == message["trigger"]), None)
        known = [(self._console(match), match) for match in message["matches"]]
        found = [(console, match) for console, match in known if console is not None]
        if trigger is None or not found:
            return  # it is not ours any more
        self._tell(trigger, found, max(message["consoles"], len(found)))

    def _console(self, match: object) -> Any:
        console = match.get("console") if isinstance(match, Mapping) else None
        return self._table.consoles.get(console) if isinstance(console, str) else None

    def _tell(self, trigger: Trigger, found: list[tuple[Console, Mapping[str, Any]]], number: int) -> None:
        console, match = found[0]
        line = str(match.get("line"))[:LINE_LIMIT]
        self._log.warning(
            "triggered",
            trigger=trigger.name,
            console=console.id,
            name=console.name,
            consoles=number,
            line=line,
        )
        matches = [_match(each, one) for each, one in found[:NAMES]]
        facts = {"trigger": trigger.name, "line": line, "consoles": number, "matches": matches}
        if trigger.action is not None:
            self._events.do(trigger.action, TRIGGERED, {**facts_of(console), **facts})
        self._events.happened(TRIGGERED, console, **facts)


def _match(console: Console, match: Mapping[str, Any]) -> dict[str, Any]:
    line = str(match.get("line"))[:LINE_LIMIT]
    return {"console": console.id, "name": console.name, "line": line, "lines": match.get("lines")}


def settings(config: Config) -> dict[str, Any]:
    """What the watcher needs to know, as plain data."""
    return {
        "log_level": config.log_level,
        "log_dir": str(config.log.dir),
        "places": str(config.dirs.run / "triggers.places"),
        "triggers": [list(trigger[:5]) for trigger in config.triggers],
    }
