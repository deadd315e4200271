"""Attachments: the clients of the consoles.

Does: lets clients onto consoles as far as rights and locks allow, gives a console without one a worker for them, lets
idle workers go.
Owns: the clients' parked descriptors.
Never: serves a client; its console's worker does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from vspcd.audit import Audit
from vspcd.claims import Claims
from vspcd.consoles import Consoles
from vspcd.core import access, automation
from vspcd.core.access import DENIED, RW, Grant
from vspcd.core.names import visible
from vspcd.core.rights import WATCH, WRITE, Who
from vspcd.locks import Locks, facts
from vspcd.proto.control import OWNER, Message
from vspcd.succession import Succession
from vspcd.supervisor import Supervisor
from vspcd.table import ClientRecord, Console, Worker, close, say
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.logline import Log
from vspcd.unix.page import MAX_CLIENTS

BUSY = "busy"


class Wish(NamedTuple):
    """How somebody wants to be on a console: ``kind`` of client, who, one of ``vspcd.core.access.MODES``, bytes to be
    shown. ``fallback``: watching is better than nothing. ``seed``: "text" or "bytes", when what is shown is to be a
    pickled string in front. ``answer`` is told the outcome before anybody else writes to the connection.
    """

    kind: str
    who: Who
    mode: str = RW
    replay: int = 0
    fallback: bool = False
    reason: Optional[str] = None
    seed: Optional[str] = None
    answer: Optional[Callable[[Grant | Objection], None]] = None


class Objection(NamedTuple):
    """Why somebody is not let in: a code for programs and a text for people."""

    code: str
    text: str


class Attachments:
    """Who is on which console."""

    def __init__(
        self,
        log: Log,
        supervisor: Supervisor,
        consoles: Consoles,
        claims: Claims,
        locks: Locks,
        audit: Audit,
    ) -> None:
        self._log = log
        self._supervisor = supervisor
        self._consoles = consoles
        self._claims = claims
        self._locks = locks
        self._audit = audit
        self._succession = Succession(log, supervisor, consoles, claims)
        supervisor.handle({"terminal": self._terminal, "break": self._break})
        supervisor.handle({"client-kind": self._client_kind, "detached": self._detached, "idle": self._idle})

    def attach(
        self, console: Console, wish: Wish, sock: socket.socket, number: int
    ) -> ClientRecord | Objection:
        """Let a client onto a console, or say why not. The socket is ours from now on."""
        right = self._locks.rights.on(wish.who, console)
        granted = self._granted(console, wish, right)
        if isinstance(granted, Objection):
            return self._refused(console, wish, sock, granted)
        objection = self._no_room(console)
        if objection is not None:
            return self._refused(console, wish, sock, Objection(BUSY, objection))
        assert console.worker is not None
        client = ClientRecord(
            number,
            wish.kind,
            wish.who.origin,
            granted.mode,
            sock,
            time.time(),
            asked=granted.asked,
            who=wish.who,
            right=right,
        )
        console.clients[client.number] = client
        if wish.answer is not None:
            wish.answer(granted)
        if not self._introduce(console, client, wish):
            self.drop(console, client.number)
            return Objection(BUSY, "the system is out of descriptors")
        self._log.info(
            "client-attached", console=console.id, name=console.name, client=client.origin, kind=wish.kind
        )
        self._audit.did(
            "attach", wish.who, console, client=number, via=wish.kind, mode=granted.lock or client.mode
        )
        self._consoles.happened(automation.ATTACHED, console, **_of_client(client))
        if granted.lock is not None:
            self._locks.give(console, client, granted.lock, wish.reason, None)
        return client

    def _granted(self, console: Console, wish: Wish, right: int) -> Grant | Objection:
        """What somebody who comes gets."""
        if right < WATCH:
            return Objection(
                DENIED, f"{visible(wish.who.name)} may not watch {visible(console.shown)} (access)"
            )
        found = access.admit(wish.mode, self._locks.held(console), right >= WRITE, wish.fallback)
        if isinstance(found, Grant):
            return found
        if found.code == DENIED:
            return Objection(
                DENIED, f"{visible(wish.who.name)} may only watch {visible(console.shown)} (access)"
            )
        return Objection(found.code, self._locks.refusal(console))

    def _refused(self, console: Console, wish: Wish, sock: socket.socket, objection: Objection) -> Objection:
        origin = wish.who.origin
        self._log.warning("client-refused", console=console.id, client=origin, reason=objection.text)
        self._audit.refused("attach", wish.who, console, objection.text)
        if wish.answer is not None:
            wish.answer(objection)
        elif wish.kind == "telnet":
            say(sock, f"vspcd: {objection.text}\r\n")
        sock.close()
        return objection

    def _introduce(self, console: Console, client: ClientRecord, wish: Wish) -> bool:
        """Hand the client to the console's worker; whether it has got it."""
        assert console.worker is not None
        message = {"type": "client", "client": client.number, "kind": client.kind, "from": client.origin}
        notice = None
        if client.mode != client.asked:
            held = console.lock is not None
            notice = self._locks.refusal(console) if held else f"you may only watch {visible(console.shown)}"
        client.came = {"replay": wish.replay, "seed": wish.seed, "notice": notice}
        message.update({"mode": client.mode, **client.came})
        message["facts"] = facts(console, client)
        return self._supervisor.tell(console.worker, message, client.parked)

    def _no_room(self, console: Console) -> Optional[str]:
        if len(console.clients) >= min(self._supervisor.config.clients.max, MAX_CLIENTS):
            return f"the console has {len(console.clients)} clients already (clients.max)"
        if console.worker is None:
            try:
                worker = self._supervisor.spawn(OWNER)
            except NoRoom as error:
                return str(error)
            self._consoles.own(worker, console)
        return None

    def send_away(self, console: Console, client: ClientRecord, reason: str) -> None:
        """A client has to leave, and is told why."""
        client.leaving = reason
        if console.worker is not None:
            message = {"type": "detach", "client": client.number, "reason": reason}
            self._supervisor.tell(console.worker, message)

    def reconsider(self) -> None:
        """The rules are others now, and hold for those who are here too."""
        for console in self._consoles.table.consoles.values():
            for client in self._locks.reconsider(console):
                reason = "you may not watch this console any more"
                self._audit.refused("attach", client.who, console, reason)
                self.send_away(console, client, reason)

    def _break(self, worker: Worker, message: Message) -> None:
        """Somebody has sent the VM a break."""
        console = worker.console
        if console is not None and message["client"] in console.clients:
            client = console.clients[message["client"]]
            self._audit.did("break", client.who, console, client=client.number, count=message["count"])

    def _client_kind(self, worker: Worker, message: Message) -> None:
        if worker.console is not None and message["client"] in worker.console.clients:
            worker.console.clients[message["client"]].kind = message["kind"]

    def _terminal(self, worker: Worker, message: Message) -> None:
        """How far a client's telnet is, for whoever may have to go on with it."""
        if worker.console is not None and message["client"] in worker.console.clients:
            worker.console.clients[message["client"]].terminal = message["state"]

    def _detached(self, worker: Worker, message: Message) -> None:
        if worker.console is not None:
            self.drop(worker.console, message["client"], message["reason"])

    def drop(self, console: Console, number: int, reason: Optional[str] = None) -> None:
        """The client is not on the console any more."""
        client = console.clients.pop(number, None)
        if client is None:
            return
        close(client.parked)
        self._log.info("client-detached", console=console.id, name=console.name, client=client.origin)
        self._audit.did("detach", client.who, console, client=number, reason=reason)
        self._consoles.happened(automation.DETACHED, console, reason=reason, **_of_client(client))
        self._locks.left(console, number)
        if console.leg is None and not console.clients:
            console.last_seen = time.time()
            self._consoles.seen(console)

    def _idle(self, worker: Worker, _message: Message) -> None:
        """It has neither VM nor client; unless one is on its way to it, it can go."""
        console = worker.console
        if console is None or console.worker is not worker:
            return  # it has said so before
        alone = console.leg is None and not console.clients
        if alone and not self._claims.waiting_for(console):
            self._supervisor.quit(worker, "the console is idle")
            self._log.debug("worker-idle", console=console.id, pid=worker.pid)
            self._consoles.without(console, worker)

    def tls_failed(self, number: int, reason: str) -> None:
        """A client of a console's TLS port did not get through its handshake."""
        for console in self._consoles.table.consoles.values():
            client = console.clients.get(number)
            if client is not None:
                self._log.warning(
                    "tls-client-refused", console=console.id, client=client.origin, reason=reason
                )
                self.send_away(console, client, reason)

    def worker_died(self, worker: Worker, how: str) -> None:
        """A worker that served a console is dead: another one goes on; if none can, everybody has to come again."""
        console = worker.console
        if console is not None and console.worker is worker:
            if not worker.quitting and self._succession.goes_on(console, worker, how):
                return
            self._consoles.without(console, worker)
            if not worker.quitting:
                self._log.error("worker-died", console=console.id, name=console.name, pid=worker.pid, how=how)
            self._consoles.gone(console)
            for number in tuple(console.clients):
                self.drop(console, number)
            self._claims.reclaim(console)
        for leg in worker.legs.values():
            close(leg.parked)


def _of_client(client: ClientRecord) -> dict[str, Any]:
    """What hooks learn of somebody."""
    who = client.who
    facts = {"client": client.number, "kind": client.kind, "from": client.origin, "mode": client.mode}
    return {**facts, "user": who.user or who.certificate or None, "uid": who.uid}
