"""Locks: who alone may type on a console.

Does: gives, ends and passes on locks; works out who may type now and tells the console's worker and the clients; ends
a lock whose holder has not typed for long.
Owns: the lock in each console's record, and the modes in the clients' records.
Never: decides who may ask for what (``vspcd.people`` and ``vspcd.attachments`` do, by ``vspcd.core``); reads what is
typed: when somebody has typed last stands in the worker's page.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional

from vspcd.audit import Audit
from vspcd.core import access
from vspcd.core.access import EXCLUSIVE, KINDS, RW, Lock
from vspcd.core.names import visible
from vspcd.core.rights import NOTHING, WRITE, Rights, Who
from vspcd.handover import Unfit, read
from vspcd.proto.errors import PeerError
from vspcd.supervisor import Supervisor
from vspcd.table import ClientRecord, Console, Table
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

REASON_LIMIT = 200
LOOK_AGAIN = 1.0  # seconds, at least, between two looks whether a lock has been idle for long enough
WORDS = {access.LOCK: "the write lock", EXCLUSIVE: "the exclusive lock"}


class Locks:
    """``rights`` are those of the configuration in force."""

    def __init__(self, loop: Loop, log: Log, supervisor: Supervisor, audit: Audit) -> None:
        self.rights = Rights()
        self._loop = loop
        self._log = log
        self._supervisor = supervisor
        self._audit = audit

    # What holds.

    def held(self, console: Console, client: int = 0) -> Optional[str]:
        """The kind of lock that somebody else has."""
        lock = console.lock
        return None if lock is None or lock.client == client else lock.kind

    def refusal(self, console: Console) -> str:
        """Why somebody cannot have what a lock keeps from him."""
        assert console.lock is not None
        return f"{visible(console.shown)} is locked by {describe(console.lock)}"

    # What changes it.

    def give(
        self, console: Console, client: ClientRecord, kind: str, reason: Optional[str], own: Optional[str]
    ) -> None:
        """The lock is this client's, whoever had it. ``own`` is what he himself is told."""
        before = console.lock
        idle = self._supervisor.config.locks.idle
        client.asked = RW
        lock = Lock(
            client.number,
            kind,
            visible(client.who.name or client.origin),
            client.kind,
            reason,
            time.time(),
            time.monotonic(),
            idle or None,
        )
        console.lock = lock
        self._log.info("locked", console=console.id, name=console.name, owner=lock.owner, kind=kind)
        if before is not None and before.client != client.number:
            text = f"{lock.owner} ({lock.via}) has taken over {WORDS[kind]}{_why(reason)}"
        else:
            text = f"{lock.owner} ({lock.via}) has {WORDS[kind]} now{_why(reason)}"
        self.tell(console, text, {client.number: own})
        self._watch(console, lock)

    def end(self, console: Console, why: str, own: Optional[str] = None) -> None:
        """Nobody has a lock any more. ``own`` is for the one who had it."""
        lock, console.lock = console.lock, None
        if lock is not None:
            self._log.info("unlocked", console=console.id, name=console.name, owner=lock.owner, reason=why)
            self.tell(console, f"{WORDS[lock.kind]} of {lock.owner} has ended: {why}", {lock.client: own})

    def left(self, console: Console, number: int) -> None:
        """Somebody is not on the console any more, and his lock with him."""
        if console.lock is not None and console.lock.client == number:
            self.end(console, "it has left")

    # Who may type.

    def effective(self, console: Console, client: ClientRecord) -> str:
        """Whether this client may type."""
        locked = self.held(console, client.number) is not None
        return access.effective(client.asked, client.right >= WRITE, locked)

    def tell(self, console: Console, notice: Optional[str], own: Mapping[int, Optional[str]]) -> None:
        """Let everybody on the console know who may type; some are told something of their own."""
        for client in tuple(console.clients.values()):
            client.mode = self.effective(console, client)
            self.tell_one(console, client, own.get(client.number, notice))

    def tell_one(self, console: Console, client: ClientRecord, notice: Optional[str]) -> None:
        """Let one client know how it may be."""
        if console.worker is not None:
            text = None if notice is None else visible(f"{console.shown}: {notice}")
            message = {"type": "mode", "client": client.number, "mode": client.mode, "notice": text}
            self._supervisor.tell(console.worker, {**message, "facts": facts(console, client)})

    # Idle locks.

    def resume(self, table: Table) -> None:
        """Locks that were there before we were."""
        for console in table.consoles.values():
            if console.lock is not None:
                self._watch(console, console.lock)

    def apply(self) -> None:
        """The time after which an idle lock ends may be another one."""
        idle = self._supervisor.config.locks.idle or None
        for console in self._supervisor.table.consoles.values():
            if console.lock is not None and console.lock.idle != idle:
                console.lock = replace(console.lock, idle=idle)
                self._watch(console, console.lock)

    def _watch(self, console: Console, lock: Lock) -> None:
        """Look again when the lock could be idle for long enough."""
        if lock.idle is not None:
            left = self._used(console, lock) + lock.idle - time.monotonic()
            self._loop.call_later(max(LOOK_AGAIN, left) if left > 0 else 0, lambda: self._look(console, lock))

    def _look(self, console: Console, lock: Lock) -> None:
        if console.lock is not lock or lock.idle is None:
            return  # another one, or none, by now
        idle = time.monotonic() - self._used(console, lock)
        if idle < lock.idle:
            self._watch(console, lock)
            return
        client = console.clients.get(lock.client)
        why = f"nothing typed for {lock.idle:g} s"
        if client is not None:
            self._audit.did("unlock", client.who, console, client=client.number, reason=why, by="locks.idle")
        self.end(console, why, f"your lock has ended: {why}")

    def _used(self, console: Console, lock: Lock) -> float:
        return max(lock.taken, typed_last(console, lock.client) or 0.0)

    # Rights that change.

    def reconsider(self, console: Console) -> list[ClientRecord]:
        """Work out again who may type, when rules are others, or locks have ended unbeknown to us. Those who may
        not even watch are returned."""
        gone = []
        for client in tuple(console.clients.values()):
            client.right = self.rights.on(client.who, console)
            if client.right == NOTHING:
                gone.append(client)
                continue
            if client.right < WRITE and console.lock is not None and console.lock.client == client.number:
                self.end(console, "its holder may not type any more")
            before, client.mode = client.mode, self.effective(console, client)
            if client.mode != before:
                told = "you may type now" if client.mode == RW else "you may only watch now"
                self.tell_one(console, client, told)
        return gone


def describe(lock: Lock) -> str:
    """Who has a lock, since when and what for."""
    since = time.strftime("%H:%M", time.localtime(lock.since))
    return f"{lock.owner} ({lock.via}, since {since}){_why(lock.reason)}"


def shown(lock: Optional[Lock]) -> Optional[dict[str, Any]]:
    """A lock as tools see it."""
    if lock is None:
        return None
    return {key: getattr(lock, key) for key in ("client", "owner", "via", "reason", "since", "kind")}


def _why(reason: Optional[str]) -> str:
    return f": {visible(reason)}" if reason else ""


def facts(console: Console, client: ClientRecord) -> dict[str, Any]:
    """What the next master is told of a client, should we die."""
    lock = console.lock if console.lock is not None and console.lock.client == client.number else None
    return {
        "asked": client.asked,
        "since": client.since,
        "right": client.right,
        "who": asdict(client.who),
        "lock": None if lock is None else asdict(lock),
    }


@dataclass
class Told:
    """``facts`` as they come back: what does not fit is not believed."""

    asked: str
    since: float
    right: int
    who: Who
    lock: Optional[Lock]


def restore(client: ClientRecord, told: Optional[Mapping[str, Any]]) -> Optional[Lock]:
    """Give a client's record what a worker was told to say of it: its lock, if it has one. Raises PeerError."""
    if told is None:
        return None
    try:
        known: Told = read(Told, dict(told), "a client")
    except Unfit as unfit:
        raise PeerError(str(unfit)) from None
    lock = known.lock
    if lock is not None and (lock.client != client.number or lock.kind not in KINDS):
        raise PeerError("a lock that is another one's")
    client.asked, client.since, client.right, client.who = known.asked, known.since, known.right, known.who
    return lock


def typed_last(console: Console, number: int) -> Optional[float]:
    """When a client has typed last, on the monotonic clock; None: not yet."""
    if console.worker is None:
        return None
    page = console.worker.page
    slot = page.slot_of(number)
    return None if slot is None else page.typed_when(slot)
