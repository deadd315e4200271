"""The consoles: which there are, what is known of them, and when they are forgotten.

Does: makes a console known, keeps what its worker says of it, opens its port and socket, forgets it.
Owns: the console table's records.
Never: talks to a VM or a client.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from vspcd import moves
from vspcd.console_listeners import ConsoleListeners
from vspcd.core import automation
from vspcd.portkeeper import PortKeeper
from vspcd.portmap.base import Entry
from vspcd.proto.control import Message, size_of
from vspcd.proto.errors import PeerError
from vspcd.supervisor import Supervisor
from vspcd.table import Console, Worker, close, console_of
from vspcd.unix import spool
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.page import BYTES_IN, BYTES_OUT

MOVES_KEPT = 10
MOVE_FACTS = (
    "when", "from", "to", "goahead_ms", "peer_ms", "complete_ms", "done_ms", "held", "outcome"
)  # fmt: skip
MOVE_LIMIT = 600  # bytes of JSON, as one that is told has
UNKNOWN_PORT_AFTER = 1.0
"""How long a new console waits for its port to be durable before it opens all the same."""


class Consoles:
    """``keeper`` is set before the first VM comes."""

    keeper: PortKeeper

    def __init__(self, loop: Loop, log: Log, supervisor: Supervisor, listeners: ConsoleListeners) -> None:
        self.table = supervisor.table
        self.happened: Callable[..., None] = lambda _event, _console, **_facts: None
        self._loop = loop
        self._log = log
        self._supervisor = supervisor
        self._listeners = listeners
        listeners.changed = self._open_when_kept
        supervisor.handle(
            {
                "connected": self._connected,
                "closed": self._closed,
                "disconnected": self._disconnected,
                "session": self._session,
                "facts": self._facts,
                "moved": self._moved,
            }
        )

    def known(self, message: Message) -> Console:
        """The console of a claim, which may be a new one."""
        console = Console(message["uuid"], message["label"], message["name"])
        known = self.table.consoles.get(console.id)
        if known is not None:
            return known
        self._log.info("console-new", console=console.id, name=console.name)
        self.table.add(console)
        console.last_seen = time.time()
        self._listeners.assign(console)
        self._open_when_kept(console)
        return console

    def remember(self, entry: Entry) -> Optional[Console]:
        """A console that another concentrator has known, with its port if that is free; None when we know it."""
        if entry.console in self.table.consoles:
            return None
        self._log.info("console-new", console=entry.console, name=entry.name, port=entry.port)
        console = self.table.add(console_of(entry))
        self._listeners.remember(console)
        console.last_seen = time.time()
        self._listeners.assign(console)
        self._open_when_kept(console)
        return console

    def _open_when_kept(self, console: Console) -> None:
        """Open its port and socket as soon as the map has it, so that nobody learns a port that can be lost."""
        opened = False

        def open_now() -> None:
            nonlocal opened
            if not opened and self._listeners.is_known(console):
                opened = True
                self._listeners.open(console)

        def late() -> None:
            if not opened and self._listeners.is_known(console):
                self._log.error("port-map-slow", console=console.id, port=console.port)
                open_now()

        self.keeper.put(console.entry(), open_now)
        self._loop.call_later(UNKNOWN_PORT_AFTER, late)

    def inherit(self, console: Console) -> None:
        """A console of the version before: its port and socket are open, or about to be."""
        self._listeners.inherit(console)
        if console.unix is None:
            console.last_seen = time.time()
            self._listeners.assign(console)
            self._open_when_kept(console)

    def compare(self, entries: Sequence[Entry]) -> None:
        """The map has been loaded while we serve: put right what it did not learn from the version before."""
        kept = {entry.console: entry for entry in entries}
        for console in self.table.consoles.values():
            if kept.pop(console.id, None) != console.entry():
                self.keeper.put(console.entry())
        for forgotten in kept:
            self.keeper.forget(forgotten)

    def in_doubt(self, page: int) -> None:
        """The disk works again; this worker's page says what of the log it may have lost before."""
        worker = self.table.writer(page)
        if worker is not None and worker.console is not None and not worker.quitting:
            self._supervisor.tell(worker, {"type": "in-doubt"})

    def own(self, worker: Worker, console: Console, resume: bool = False) -> None:
        """The console is this worker's."""
        worker.console, console.worker = console, worker
        facts = {"uuid": console.uuid, "label": console.label, "name": console.name}
        self._supervisor.tell(worker, {"type": "own", "console": facts, "resume": resume})

    def _connected(self, worker: Worker, message: Message) -> None:
        console, leg = worker.console, worker.legs.get(message["leg"])
        if console is None or leg is None:
            raise PeerError("it is connected to a leg that it does not have")
        console.leg, console.move = leg, moves.check(message["move"])
        leg.session = message["session"]
        console.since = console.last_seen = leg.since = time.time()
        self._log.info("vm-connected", console=console.id, name=console.name, peer=leg.peer)
        self.keeper.put(console.entry())
        self.happened(automation.CONNECTED, console)

    def _session(self, worker: Worker, message: Message) -> None:
        """The state of a VM's connection, for whoever may have to go on with it."""
        leg, move = worker.legs.get(message["leg"]), moves.check(message["move"])
        if leg is not None:
            leg.session = message["session"]
        if worker.console is not None:
            worker.console.move = move

    def _closed(self, worker: Worker, message: Message) -> None:
        """A connection is over, the console's VM is not: it moves."""
        leg = worker.legs.pop(message["leg"], None)
        if leg is not None:
            close(leg.parked)

    def _disconnected(self, worker: Worker, message: Message) -> None:
        self._closed(worker, message)
        console = worker.console
        if console is None or console.leg is None or console.leg.number != message["leg"]:
            return  # another one has taken its place
        peer = console.leg.peer
        self.gone(console, message["reason"])
        self._log.info(
            "vm-disconnected", console=console.id, name=console.name, peer=peer, reason=message["reason"]
        )

    def gone(self, console: Console, reason: str = "its worker has died") -> None:
        """The console has no VM any more."""
        if console.leg is not None:
            self.happened(automation.DISCONNECTED, console, reason=reason)
            console.leg = None
            console.since = console.last_seen = time.time()
            self.seen(console)

    def seen(self, console: Console) -> None:
        """It is no longer in use, from now on."""
        self._listeners.ports.seen(console.id, time.monotonic())
        self.keeper.put(console.entry())

    def _facts(self, worker: Worker, message: Message) -> None:
        console = worker.console
        if console is None:
            return
        before = console.entry()
        if message["name"] is not None:
            self.called(console, message["name"])
        console.bios_uuid = message["bios_uuid"] or console.bios_uuid
        console.location_uuid = message["location_uuid"] or console.location_uuid
        console.line = message["line"] or console.line
        if console.entry() != before:
            self.keeper.put(console.entry())

    def called(self, console: Console, name: str) -> None:
        """That is its VM's name now."""
        if name == console.name:
            return
        self._log.info("vm-renamed", console=console.id, old=console.name, name=name)
        old, console.name = console.name, name
        self.happened(automation.RENAMED, console, old=old)

    def _moved(self, worker: Worker, message: Message) -> None:
        console, record = worker.console, message["record"]
        if console is None:
            return
        console.move = None
        record = facts_of_move(record)
        console.moves = [*console.moves, record][-MOVES_KEPT:]
        write = self._log.warning if message["slow"] else self._log.info
        write("vm-moved", console=console.id, name=console.name, **record)
        self.happened(automation.MOVED, console, slow=message["slow"], **record)

    def forget(self, console: Console, event: str = automation.FORGOTTEN) -> None:
        """The console is unknown from now on. Only for one that is not in use."""
        self._listeners.close(console)
        self._listeners.ports.forget(console.id)
        self.table.consoles.pop(console.id, None)
        self.keeper.forget(console.id)
        self.happened(event, console)
        self._log.info("console-forgotten", console=console.id, name=console.name, port=console.port)
        never_logged = spool.forget(str(self._listeners.config.dirs.run / spool.FOLDER), console.id)
        if never_logged:
            self._log.error("spool-forgotten", console=console.id, bytes=never_logged)

    def without(self, console: Console, worker: Worker) -> None:
        """The console has no worker any more; what it counted stays."""
        words = worker.page.words
        console.earlier_in += words[BYTES_IN]
        console.earlier_out += words[BYTES_OUT]
        console.worker = None


def facts_of_move(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of a move is kept of."""
    return {key: record[key] for key in MOVE_FACTS if key in record}


def recall(console: Console, known: Mapping[str, Any]) -> None:
    """What a worker remembers of its console, from before we were its master. Raises PeerError."""
    now = time.time()
    try:
        since = _since(known["since"], now)
        records = [facts_of_move(dict(move)) for move in known["moves"]]
        clients = {int(number): _since(when, now) for number, when in known["clients"]}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PeerError("it remembers what cannot be") from None
    if any(size_of(record) > MOVE_LIMIT for record in records):
        raise PeerError(f"it remembers a move of more than {MOVE_LIMIT} bytes")
    console.since = since
    console.moves = records[-MOVES_KEPT:]
    for client in console.clients.values():
        client.since = clients.get(client.number, now)


def _since(when: Any, now: float) -> float:
    """A time in the past. Raises TypeError, ValueError and OverflowError."""
    return max(0.0, min(now, float(when)))  # of what is no number, the first: now
