"""Attachments: the clients of the consoles.

Does: lets clients onto consoles, gives a console without one a worker for them, lets idle workers go.
Owns: the clients' parked descriptors.
Never: serves a client; its console's worker does.
"""

from __future__ import annotations

import socket
import time
from typing import Optional

from vspcd.claims import Claims
from vspcd.consoles import Consoles
from vspcd.proto.control import OWNER, Message
from vspcd.succession import Succession
from vspcd.supervisor import Supervisor
from vspcd.table import ClientRecord, Console, Worker, close, say
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.logline import Log
from vspcd.unix.page import MAX_CLIENTS


class Attachments:
    """Who is on which console."""

    def __init__(self, log: Log, supervisor: Supervisor, consoles: Consoles, claims: Claims) -> None:
        self._log = log
        self._supervisor = supervisor
        self._consoles = consoles
        self._claims = claims
        self._succession = Succession(log, supervisor, consoles, claims)
        supervisor.handle({"terminal": self._terminal})
        supervisor.handle({"client-kind": self._client_kind, "detached": self._detached, "idle": self._idle})

    def attach(
        self,
        console: Console,
        kind: str,
        sock: socket.socket,
        origin: str,
        mode: str,
        replay: int,
        number: int,
    ) -> Optional[str]:
        """Let a client onto a console, or say why not. The socket is ours from now on."""
        objection = self._client_objection(console)
        if objection is not None:
            self._log.warning("client-refused", console=console.id, client=origin, reason=objection)
            if kind == "telnet":
                say(sock, f"vspcd: {objection}\r\n")
            sock.close()
            return objection
        assert console.worker is not None
        client = ClientRecord(number, kind, origin, mode, sock, time.time())
        console.clients[client.number] = client
        message = {"type": "client", "client": client.number, "kind": kind, "from": origin, "mode": mode}
        if not self._supervisor.tell(console.worker, {**message, "replay": replay}, sock):
            self.drop(console, client.number)
            return "the console's worker cannot be reached"
        self._log.info("client-attached", console=console.id, name=console.name, client=origin, kind=kind)
        return None

    def _client_objection(self, console: Console) -> Optional[str]:
        if len(console.clients) >= min(self._supervisor.config.clients.max, MAX_CLIENTS):
            return f"the console has {len(console.clients)} clients already (clients.max)"
        if console.worker is None:
            try:
                worker = self._supervisor.spawn(OWNER)
            except NoRoom as error:
                return str(error)
            self._consoles.own(worker, console)
        return None

    def _client_kind(self, worker: Worker, message: Message) -> None:
        if worker.console is not None and message["client"] in worker.console.clients:
            worker.console.clients[message["client"]].kind = message["kind"]

    def _terminal(self, worker: Worker, message: Message) -> None:
        """How far a client's telnet is, for whoever may have to go on with it."""
        if worker.console is not None and message["client"] in worker.console.clients:
            worker.console.clients[message["client"]].terminal = message["state"]

    def _detached(self, worker: Worker, message: Message) -> None:
        if worker.console is not None:
            self.drop(worker.console, message["client"])

    def drop(self, console: Console, number: int) -> None:
        """The client is not on the console any more."""
        client = console.clients.pop(number, None)
        if client is None:
            return
        close(client.parked)
        self._log.info("client-detached", console=console.id, name=console.name, client=client.origin)
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
                if console.worker is not None:
                    message = {"type": "detach", "client": number, "reason": reason}
                    self._supervisor.tell(console.worker, message)

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
