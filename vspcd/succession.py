"""Succession: another worker goes on where one has died.

Does: starts the heir and hands it the VM's connections, the clients and the move; has what kills workers again and
again put into quarantine, and parks a VM that does not stop saying it.
Owns: the count of deaths.
Never: reads a byte; loses a connection that a worker could go on with.
"""

from __future__ import annotations

import time
from typing import Any

from vspcd.claims import Claims
from vspcd.consoles import Consoles
from vspcd.core import automation
from vspcd.locks import facts
from vspcd.mortality import KILLED, weight
from vspcd.proto.control import OWNER, Message, size_of
from vspcd.supervisor import Supervisor
from vspcd.table import Console, LegRecord, Worker, close
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.logline import Log
from vspcd.unix.page import READ_UP_TO, SENT_UP_TO

SOON = 60.0
"""Seconds after which a death has nothing to do with the one before."""

QUARANTINES = 3
WITHIN = 600.0
"""So many quarantines in so many seconds, and the VM is parked."""

PARKED_FOR = 3600.0
AGAIN_AFTER = 0.5
REMEMBERED = 10
REMEMBERED_SIZE = 10000  # bytes of JSON: a console's status fits into a packet
FEEDS, TARGET, NEWCOMER, POISON = "feeds", "target", "newcomer", "poison"


class Succession:
    """Who goes on for whom."""

    def __init__(self, log: Log, supervisor: Supervisor, consoles: Consoles, claims: Claims) -> None:
        self._log = log
        self._supervisor = supervisor
        self._consoles = consoles
        self._claims = claims
        supervisor.handle({"quarantined": self._quarantined})

    def goes_on(self, console: Console, dead: Worker, how: str) -> bool:
        """Let another worker go on where this one died, with its VM and its clients; whether that can be."""
        if not dead.retiring:
            self._count(console, dead, how)
        if console.poisoned:
            console.poisoned, console.deaths = False, 0
            self._log.error("worker-given-up", console=console.id, name=console.name, how=how)
            return False
        dead.replaced = True  # its page waits for the heir
        self._replace(console, dead, how)
        return True

    def _replace(self, console: Console, dead: Worker, how: str, again: bool = False) -> None:
        """Start the heir; with no room for it, everybody waits until there is some."""
        if console.worker is not dead:
            return
        try:
            heir = self._supervisor.spawn(OWNER, instead_of=dead)
        except NoRoom as error:
            if not again:
                self._log.error(
                    "worker-not-replaced", console=console.id, name=console.name, reason=str(error)
                )
            self._supervisor.later(AGAIN_AFTER, lambda: self._replace(console, dead, how, again=True))
            return
        self._hand_over(console, dead, heir)
        write, what = (self._log.info, "renewed") if dead.retiring else (self._log.error, "replaced")
        write(f"worker-{what}", console=console.id, name=console.name, pid=dead.pid, how=how, by=heir.pid)
        self._claims.reclaim(console)

    def _hand_over(self, console: Console, dead: Worker, heir: Worker) -> None:
        """The heir gets all that the dead one had."""
        console.poisoned = console.deaths >= KILLED
        if console.poisoned:
            console.move = None
        self._consoles.own(heir, console, resume=True)
        self._hand_legs(console, dead, heir)
        for client in console.clients.values():
            message = {"type": "resume-client", "client": client.number, "kind": client.kind}
            message.update({"from": client.origin, "mode": client.mode, "terminal": client.terminal})
            message.update({"facts": facts(console, client), **client.came})
            self._supervisor.tell(heir, message, client.parked)
        self._supervisor.tell(heir, {"type": "resumed", "move": console.move, "known": console.known})
        for client in console.clients.values():
            if client.leaving is not None:
                self._supervisor.tell(
                    heir, {"type": "detach", "client": client.number, "reason": client.leaving}
                )

    def _count(self, console: Console, dead: Worker, how: str) -> None:
        """Count the deaths in a row without a byte of progress; one of a bug or a hang counts for many."""
        now = time.monotonic()
        at = dead.page.get(READ_UP_TO)[1], dead.page.get(SENT_UP_TO)[1]
        if at != console.died_at or now - console.died_when > SOON:
            console.deaths, console.poisoned = 0, False
        console.died_at, console.died_when = at, now
        console.deaths += weight(how, dead.hung)

    def _hand_legs(self, console: Console, dead: Worker, heir: Worker) -> None:
        legs, dead.legs = dead.legs, {}
        for record in legs.values():
            if record.session is None:
                close(record.parked)
                continue
            heir.legs[record.number] = record
            message: Message = {"type": "resume-leg", "leg": record.number, "peer": record.peer}
            message.update({"session": record.session, "secured": record.secured})
            message["role"] = POISON if console.poisoned else _role(console, record)
            self._supervisor.tell(heir, message, record.parked)
        if console.leg is not None and console.leg.number not in heir.legs and console.move is None:
            self._consoles.gone(console)

    def _quarantined(self, worker: Worker, message: Message) -> None:
        """What has killed one worker after the other is out of the way, and the connection that brought it too."""
        console = worker.console
        if console is None:
            return
        now = time.monotonic()
        facts = {"file": message["file"], "bytes": message["bytes"]}
        console.quarantined = _latest([*console.quarantined, {"when": time.time(), **facts}])
        console.poisoned, console.deaths = False, 0
        self._log.error("vm-quarantined", console=console.id, name=console.name, **facts)
        self._consoles.happened(automation.QUARANTINED, console, **facts)
        recent = [when for when in console.quarantines if now - when < WITHIN]
        console.quarantines = [*recent, now]
        if len(console.quarantines) >= QUARANTINES:
            console.parked = now + PARKED_FOR
            console.quarantines = []
            self._log.error("vm-parked", console=console.id, name=console.name, seconds=PARKED_FOR)
            self._consoles.happened(automation.PARKED, console, seconds=PARKED_FOR)


def _latest(quarantined: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the latest as are worth remembering, and at least one."""
    latest = quarantined[-REMEMBERED:]
    while len(latest) > 1 and size_of(latest) > REMEMBERED_SIZE:
        del latest[0]
    return latest


def _role(console: Console, leg: LegRecord) -> str:
    if leg is console.leg:
        return FEEDS
    if console.move is not None and console.move["target"] == leg.number:
        return TARGET
    return NEWCOMER
