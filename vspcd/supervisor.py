"""The supervisor: the master's dealings with its workers.

Does: gives every VM connection a worker, decides which console it is, hands legs and clients to the worker
that serves the console, notices deaths.
Owns: the workers' lives and the console table.
Never: reads a console byte, parses telnet, waits for a worker.

A worker that speaks out of turn (``vspcd.proto.control.TABLE``) is killed.
"""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

from vspcd.admission import Admission
from vspcd.config_schema import Config
from vspcd.console_listeners import ConsoleListeners, monotonic_of
from vspcd.moves import Moves
from vspcd.portkeeper import PortKeeper
from vspcd.proto import control
from vspcd.proto.control import CLAIMING, LEAVING, NEGOTIATING, OWNER, Message
from vspcd.proto.errors import PeerError
from vspcd.spawn import Nursery, is_balancer, settings
from vspcd.table import ClientRecord, Console, LegRecord, Table, Worker
from vspcd.tlshelpers import TlsHelpers
from vspcd.unix import process
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.channel import ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop, Timer
from vspcd.unix.page import BYTES_IN, BYTES_OUT, MAX_CLIENTS

QUIT_WITHIN = 5.0
JUDGED_WITHIN = 5.0
MOVES_KEPT = 10
LAST_WORDS = 100
UNKNOWN_PORT_AFTER = 1.0
"""How long a new console waits for its port to be durable before it opens all the same."""

_HEX = re.compile(r"[0-9a-f]{32}")
_LABEL = re.compile(r"[A-Za-z0-9_-]{0,32}")


@dataclass
class Claim:
    """A VM connection that waits for the console's worker to judge it. ``claimant``: its own, while that lives."""

    leg: LegRecord
    console: Console
    message: Message
    claimant: Optional[Worker]


class Supervisor:
    """``keeper`` and ``tls`` are set before the first VM comes."""

    keeper: PortKeeper
    tls: TlsHelpers

    def __init__(
        self,
        loop: Loop,
        log: Log,
        config: Config,
        nursery: Nursery,
        table: Table,
        listeners: ConsoleListeners,
    ) -> None:
        self.config = config
        self.table = table
        self.admission = Admission(log)
        self._loop = loop
        self._log = log
        self._nursery = nursery
        self._listeners = listeners
        self.moves = Moves()
        self._claims: dict[int, Claim] = {}
        self._unexplained: dict[int, str] = {}
        self._farewells: dict[int, Timer] = {}
        self._when_empty: Optional[Callable[[], None]] = None
        self._messages: dict[str, Callable[[Worker, Message], None]] = {
            "source": self._source,
            "tls": self._tls,
            "probe": self._probe,
            "claim": self._claim,
            "failed": self._failed,
            "took": self._took,
            "rejected": self._rejected,
            "connected": self._connected,
            "closed": self._closed,
            "disconnected": self._disconnected,
            "peer": self._peer,
            "moving": self._moving,
            "revoke": self._revoke,
            "moved": self._moved,
            "facts": self._facts,
            "client-kind": self._client_kind,
            "detached": self._detached,
            "idle": self._idle,
        }

    # Workers.

    def _spawn(self, state: str, leg: Optional[LegRecord] = None) -> Worker:
        try:
            worker = self._nursery.worker(self.config, state, leg)
        except (OSError, MemoryError) as error:
            raise NoRoom(f"no worker could be started: {error}") from None
        self.table.workers[worker.pid] = worker
        worker.channel.serve(
            self._loop,
            lambda message, fds: self._received(worker, message, fds),
            lambda: self._channel_closed(worker),
        )
        return worker

    def _received(self, worker: Worker, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        try:
            kind = control.check(message, control.WORKER, worker.state, len(fds))
            self._messages[kind](worker, message)
        except PeerError as fault:
            self._kill(worker, f"out of turn: {fault}")

    def _tell(self, worker: Worker, message: dict[str, Any], *socks: socket.socket) -> bool:
        """Whether it will get the message. A worker that cannot be reached is killed, and replaced when it is dead."""
        try:
            worker.channel.send(message, [sock.fileno() for sock in socks])
        except ChannelClosed as error:
            self._kill(worker, f"unreachable: {error}")
        except OSError as error:
            self._log.error("not-told", pid=worker.pid, message=message["type"], reason=str(error))
        else:
            return True
        return False

    def _kill(self, worker: Worker, reason: str) -> None:
        if worker.pid in self.table.workers:
            self._log.error("worker-killed", pid=worker.pid, reason=reason)
            process.kill(worker.pid)

    def _channel_closed(self, worker: Worker) -> None:
        """It is about to die, or must: the reaper tells how it ended."""
        self._loop.forget(worker.channel.fileno())
        self._farewell(worker)

    def _farewell(self, worker: Worker) -> None:
        if worker.pid not in self._farewells:
            self._farewells[worker.pid] = self._loop.call_later(
                QUIT_WITHIN, lambda: self._kill(worker, f"it did not end within {QUIT_WITHIN:g} s")
            )

    def quit(self, worker: Worker, reason: str) -> None:
        """Let a worker end; one that does not is killed."""
        worker.quitting = True
        self._tell(worker, {"type": "quit", "reason": reason})
        worker.state = LEAVING
        self._farewell(worker)

    def quit_all(self, reason: str, when_empty: Callable[[], None]) -> None:
        """Let all workers end, then call back."""
        self._when_empty = when_empty
        for worker in tuple(self.table.workers.values()):
            self.quit(worker, reason)
        if not self.table.workers:
            when_empty()

    def reaped(self, pid: int, how: str) -> bool:
        """A child has died; False when it was no worker."""
        worker = self.table.workers.pop(pid, None)
        if worker is None:
            return False
        self._last_words(worker)
        timer = self._farewells.pop(pid, None)
        if timer is not None:
            timer.cancel()
        if worker.state == NEGOTIATING and worker.only_leg is not None:
            self._not_admitted(worker.only_leg.peer, f"its worker {how} while negotiating")
        self._bury(worker, how)
        if not self.table.workers and self._when_empty is not None:
            self._when_empty()
        return True

    def _last_words(self, worker: Worker) -> None:
        """What it said before it died is still in the channel."""
        try:
            for _ in range(LAST_WORDS):
                for message, fds in worker.channel.packets():
                    self._received(worker, message, fds)
        except (ChannelClosed, PeerError):
            pass
        worker.channel.close()

    def _bury(self, worker: Worker, how: str) -> None:
        for claim in self._claims.values():
            if claim.claimant is worker:
                claim.claimant = None
        console = worker.console
        if console is not None and console.worker is worker:
            self._console_lost_worker(console, worker, how)
        for leg in worker.legs.values():
            close(leg.parked)
        self._nursery.buried(worker)

    def _console_lost_worker(self, console: Console, worker: Worker, how: str) -> None:
        words = worker.page.words
        console.earlier_in += words[BYTES_IN]
        console.earlier_out += words[BYTES_OUT]
        console.worker = None
        if not worker.quitting:
            self._log.error("worker-died", console=console.id, name=console.name, pid=worker.pid, how=how)
        self._gone(console)
        for client in tuple(console.clients.values()):
            self._drop_client(console, client.number)
        self._reclaim(console)

    def _reclaim(self, console: Console) -> None:
        """VMs that waited for this console's worker to judge them have it to themselves now."""
        waiting = [claim for claim in self._claims.values() if claim.console is console]
        for claim in waiting:
            del self._claims[claim.leg.number]
            if claim.claimant is None:
                close(claim.leg.parked)
            else:
                claim.claimant.legs[claim.leg.number] = claim.leg
                self._grant_or_offer(claim.claimant, console, claim.message)

    # VM connections.

    def vm_connected(self, sock: socket.socket, peer: str) -> None:
        """A connection on the VM port. Raises NoRoom when there can be no worker for it."""
        objection = self.admission.objection(self.config.proxy, peer, is_balancer(self.config, peer))
        if objection is not None:
            self.admission.refused(peer, objection)
            sock.close()
            return
        leg = LegRecord(next(self.table.numbers), peer, sock, time.time())  # a balancer's, if it is from one
        try:
            self._spawn(NEGOTIATING, leg)
        except NoRoom as error:
            self.admission.refused(peer, str(error))
            sock.close()
            raise
        self.admission.begins(peer)
        self._log.debug("vm-dialled", peer=peer)

    def _not_admitted(self, peer: str, reason: str) -> None:
        self.admission.ends(peer)
        self.admission.refused(peer, reason)

    def _source(self, worker: Worker, message: Message) -> None:
        """A balancer has said where a connection comes from: the rules apply to that host."""
        leg = worker.only_leg
        if leg is None or not is_balancer(self.config, leg.peer):
            raise PeerError("a source of a connection that is not a balancer's")
        self.admission.ends(leg.peer)
        leg.peer = message["peer"]
        objection = self.admission.objection(self.config.proxy, leg.peer)
        self.admission.begins(leg.peer)
        if objection is not None:
            self._not_admitted(leg.peer, objection)
            self._tell(worker, {"type": "refuse", "reason": objection})
            self._dismiss(worker)

    def _tls(self, worker: Worker, _message: Message) -> None:
        """The connection is encrypted: a helper takes it, the worker gets what comes out."""
        leg = worker.only_leg
        if leg is None or leg.secured:
            raise PeerError("TLS without a connection")
        try:
            leg.parked = self.tls.secure(leg.number, leg.peer, leg.parked)
        except OSError as error:
            self._not_admitted(leg.peer, str(error))
            self._tell(worker, {"type": "quit", "reason": str(error)})
            self._dismiss(worker)
            return
        leg.secured = True
        self._tell(worker, {"type": "plaintext"}, leg.parked)

    def tls_failed(self, number: int, reason: str) -> None:
        """A handshake has failed; the helper's word for it is better than its worker's, who only sees an end."""
        for worker in self.table.workers.values():
            if worker.state == NEGOTIATING and number in worker.legs:
                self._not_admitted(worker.legs[number].peer, reason)
                self._tell(worker, {"type": "quit", "reason": reason})
                self._dismiss(worker)
                return
        if number in self._unexplained:
            self._not_admitted(self._unexplained.pop(number), reason)
        else:
            self._log.warning("tls-client-refused", client=number, reason=reason)

    def _probe(self, worker: Worker, message: Message) -> None:
        self.tls.probe(message["leg"])

    def tls_probed(self, number: int, alive: bool) -> None:
        """A helper has found out whether the far end of an encrypted connection is there."""
        for console in self.table.consoles.values():
            if console.leg is not None and console.leg.number == number and console.worker is not None:
                self._tell(console.worker, {"type": "probed", "leg": number, "alive": alive})

    def _failed(self, worker: Worker, message: Message) -> None:
        leg = worker.only_leg
        if worker.state == NEGOTIATING and leg is not None:
            if leg.number in self.tls.securing:
                self._unexplained[leg.number] = leg.peer  # the helper is about to tell why
            elif message["reason"]:
                self._not_admitted(leg.peer, message["reason"])
            else:
                self.admission.ends(leg.peer)  # a balancer's health check
        for claim in self._claims.values():
            if claim.claimant is worker:
                claim.claimant = None  # whoever judges the connection will find it closed
        self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        worker.state = LEAVING
        worker.quitting = True
        worker.console = None
        self._farewell(worker)

    def _claim(self, worker: Worker, message: Message) -> None:
        if not _HEX.fullmatch(message["uuid"]) or not _LABEL.fullmatch(message["label"]):
            raise PeerError("a claim with an impossible identity")
        if worker.only_leg is None:
            raise PeerError("a claim without a connection")
        self.admission.ends(worker.only_leg.peer)
        worker.state = CLAIMING
        self._grant_or_offer(worker, self._console(message), message)

    def _grant_or_offer(self, worker: Worker, console: Console, message: Message) -> None:
        """The console is the worker's if nobody serves it; else whoever does is offered its connection."""
        if console.worker is None:
            self._grant(worker, console, message)
            return
        self._offer(worker, console, message, {"type": "leg"})

    def _offer(self, worker: Worker, console: Console, message: Message, offer: dict[str, Any]) -> None:
        """Let the console's worker judge the claimant's connection."""
        owner = console.worker
        _, leg = worker.legs.popitem()
        self._claims[leg.number] = Claim(leg, console, message, worker)
        offer = {**offer, "leg": leg.number, "peer": leg.peer, "session": message["session"]}
        offer["secured"] = leg.secured
        if owner is None or not self._tell(owner, offer, leg.parked):
            if owner is None or owner.pid in self.table.workers:
                self._refuse(self._claims.pop(leg.number), "the system is out of descriptors")
            return
        self._loop.call_later(JUDGED_WITHIN, lambda: self._not_judged(leg.number))

    def _not_judged(self, number: int) -> None:
        """The console's worker does not answer: it is replaced, and the VM that waits has the console."""
        claim = self._claims.get(number)
        if claim is not None and claim.console.worker is not None:
            self._kill(claim.console.worker, f"no answer within {JUDGED_WITHIN:g} s")

    def _console(self, message: Message) -> Console:
        console = Console(message["uuid"], message["label"], message["name"])
        known = self.table.consoles.get(console.id)
        if known is not None:
            return known
        self._log.info("console-new", console=console.id, name=console.name)
        self.table.add(console)
        self._listeners.assign(console)
        self._open_when_kept(console)
        return console

    def _open_when_kept(self, console: Console) -> None:
        """Open its port and socket as soon as the map has it, so that nobody learns a port that can be lost."""
        console.last_seen = time.time()

        def open_now() -> None:
            if self.table.consoles.get(console.id) is console:
                self._listeners.open(console)

        def late() -> None:
            if console.unix is None and self.table.consoles.get(console.id) is console:
                self._log.error("port-map-slow", console=console.id, port=console.port)
                open_now()

        self.keeper.put(console.entry(), open_now)
        self._loop.call_later(UNKNOWN_PORT_AFTER, late)

    def _grant(self, worker: Worker, console: Console, message: Message) -> None:
        """The console is this worker's."""
        worker.state = OWNER
        worker.console = console
        console.worker = worker
        if message["name"] is not None:
            console.name = message["name"]
        self._own(worker, console)

    def _own(self, worker: Worker, console: Console) -> None:
        facts = {"uuid": console.uuid, "label": console.label, "name": console.name}
        self._tell(worker, {"type": "own", "console": facts})

    def _took(self, worker: Worker, message: Message) -> None:
        """The console's worker goes on with the claimant's connection; the claimant has nothing left to do."""
        claim = self._claims.pop(message["leg"], None)
        if claim is None or worker.console is not claim.console:
            raise PeerError("it took a leg that it was not offered")
        worker.legs[claim.leg.number] = claim.leg
        if claim.claimant is not None:
            self._tell(claim.claimant, {"type": "handed"})
            self._dismiss(claim.claimant)

    def _rejected(self, worker: Worker, message: Message) -> None:
        claim = self._claims.pop(message["leg"], None)
        if claim is None or worker.console is not claim.console:
            raise PeerError("it rejected a leg that it was not offered")
        self._refuse(claim, message["reason"])

    def _refuse(self, claim: Claim, reason: str) -> None:
        console = claim.console
        self.admission.refused(claim.leg.peer, f"{console.name or console.id}: {reason}")
        if claim.claimant is None:
            close(claim.leg.parked)
            return
        claim.claimant.legs[claim.leg.number] = claim.leg
        self._tell(claim.claimant, {"type": "refuse", "reason": reason})
        self._dismiss(claim.claimant)

    def _connected(self, worker: Worker, message: Message) -> None:
        console, leg = worker.console, worker.legs.get(message["leg"])
        if console is None or leg is None:
            raise PeerError("it is connected to a leg that it does not have")
        console.leg = leg
        console.since = console.last_seen = leg.since = time.time()
        self._log.info("vm-connected", console=console.id, name=console.name, peer=leg.peer)
        self.keeper.put(console.entry())

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
        self._gone(console)
        self._log.info(
            "vm-disconnected", console=console.id, name=console.name, peer=peer, reason=message["reason"]
        )

    def _gone(self, console: Console) -> None:
        """The console has no VM any more."""
        if console.leg is not None:
            console.leg = None
            console.since = console.last_seen = time.time()
            self._seen(console)

    def _seen(self, console: Console) -> None:
        self._listeners.ports.seen(console.id, monotonic_of(console.last_seen))
        self.keeper.put(console.entry())

    def _facts(self, worker: Worker, message: Message) -> None:
        console = worker.console
        if console is None:
            return
        before = console.entry()
        if message["name"] not in (None, console.name):
            self._log.info("vm-renamed", console=console.id, old=console.name, name=message["name"])
            console.name = message["name"]
        console.bios_uuid = message["bios_uuid"] or console.bios_uuid
        console.location_uuid = message["location_uuid"] or console.location_uuid
        console.line = message["line"] or console.line
        if console.entry() != before:
            self.keeper.put(console.entry())

    # vMotion.

    def _moving(self, worker: Worker, message: Message) -> None:
        """A VM is about to move: whoever shows this pair is where it goes."""
        if worker.console is not None:
            pair = bytes.fromhex(message["pair"])
            self.moves.expect(pair, worker.console, message["seconds"])

    def _revoke(self, _worker: Worker, message: Message) -> None:
        self.moves.take(bytes.fromhex(message["pair"]))

    def _peer(self, worker: Worker, message: Message) -> None:
        """A VM has shown a pair: it is the target of a move, or a stranger."""
        worker.state = CLAIMING
        console = self.moves.take(bytes.fromhex(message["pair"]))
        leg = worker.only_leg
        if console is None or console.worker is None or leg is None:
            worker.state = NEGOTIATING
            self._tell(worker, {"type": "stranger"})
            return
        self.admission.ends(leg.peer)
        worker.console = console
        self._offer(worker, console, message, {"type": "target", "pair": message["pair"]})

    def _moved(self, worker: Worker, message: Message) -> None:
        console, record = worker.console, message["record"]
        if console is None:
            return
        console.moves = [*console.moves, record][-MOVES_KEPT:]
        write = self._log.warning if message["slow"] else self._log.info
        write("vm-moved", console=console.id, name=console.name, **{key: record[key] for key in record})

    # Clients.

    def attach(
        self, console: Console, kind: str, sock: socket.socket, origin: str, mode: str, replay: int
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
        client = ClientRecord(next(self.table.numbers), kind, origin, mode, sock, time.time())
        console.clients[client.number] = client
        message = {"type": "client", "client": client.number, "kind": kind, "from": origin, "mode": mode}
        if not self._tell(console.worker, {**message, "replay": replay}, sock):
            self._drop_client(console, client.number)
            return "the console's worker cannot be reached"
        self._log.info("client-attached", console=console.id, name=console.name, client=origin, kind=kind)
        return None

    def _client_objection(self, console: Console) -> Optional[str]:
        if len(console.clients) >= min(self.config.clients.max, MAX_CLIENTS):
            return f"the console has {len(console.clients)} clients already (clients.max)"
        if console.worker is None:
            try:
                worker = self._spawn(OWNER)
            except NoRoom as error:
                return str(error)
            worker.console, console.worker = console, worker
            self._own(worker, console)
        return None

    def _client_kind(self, worker: Worker, message: Message) -> None:
        if worker.console is not None and message["client"] in worker.console.clients:
            worker.console.clients[message["client"]].kind = message["kind"]

    def _detached(self, worker: Worker, message: Message) -> None:
        if worker.console is not None:
            self._drop_client(worker.console, message["client"])

    def _drop_client(self, console: Console, number: int) -> None:
        client = console.clients.pop(number, None)
        if client is None:
            return
        close(client.parked)
        self._log.info("client-detached", console=console.id, name=console.name, client=client.origin)
        if console.leg is None and not console.clients:
            console.last_seen = time.time()
            self._seen(console)

    def _idle(self, worker: Worker, _message: Message) -> None:
        """It has neither VM nor client; unless one is on its way to it, it can go."""
        console = worker.console
        alone = console is not None and console.leg is None and not console.clients
        if console is not None and alone and not self._claimed(console):
            self.quit(worker, "the console is idle")
            self._log.debug("worker-idle", console=console.id, pid=worker.pid)
            self._console_left_alone(console, worker)

    def _claimed(self, console: Console) -> bool:
        return any(claim.console is console for claim in self._claims.values())

    def _console_left_alone(self, console: Console, worker: Worker) -> None:
        words = worker.page.words
        console.earlier_in += words[BYTES_IN]
        console.earlier_out += words[BYTES_OUT]
        console.worker = None

    # All consoles.

    def apply(self, config: Config) -> None:
        """The configuration was read again."""
        self.config = config
        message = {"type": "settings", "settings": settings(config)}
        for worker in self.table.workers.values():
            if not worker.quitting:
                self._tell(worker, message)

    def reopen_logs(self) -> None:
        """Someone has rotated logs."""
        for worker in self.table.workers.values():
            if worker.state == OWNER and not worker.quitting:
                self._tell(worker, {"type": "reopen"})

    def forget(self, console: Console) -> None:
        """The console is unknown from now on. Only for one that is not in use."""
        self._listeners.close(console)
        self._listeners.ports.forget(console.id)
        self.table.consoles.pop(console.id, None)
        self.keeper.forget(console.id)
        self._log.info("console-forgotten", console=console.id, name=console.name, port=console.port)


def say(sock: socket.socket, text: str) -> None:
    """Tell somebody something, if it can be told at once."""
    try:
        sock.send(text.encode("utf-8", "replace"), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        pass  # it does not listen


def close(sock: socket.socket) -> None:
    """End a connection for both sides, whoever else holds a duplicate."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already
    sock.close()
