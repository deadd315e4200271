"""Adoption: workers and TLS helpers whose master has died come to this one.

Does: finds out who is alive, lets each of them describe what it serves, and takes them all over at once when the last
one has; those that do not come in time are ended.
Owns: the door that they knock at, and whoever stands in it.
Never: lets anybody in who is not on the roster; believes a description that does not fit, which ends its process alone.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

from vspcd import moves
from vspcd.claims import identified
from vspcd.consoles import recall
from vspcd.core.access import Lock
from vspcd.core.vmotion import MOVING
from vspcd.locks import restore
from vspcd.proto import control
from vspcd.proto.control import NEGOTIATING, ORPHAN, OWNER, Message
from vspcd.proto.errors import PeerError
from vspcd.spawn import settings
from vspcd.table import ClientRecord, Console, LegRecord, Worker
from vspcd.tlshelpers import TlsHelper
from vspcd.unix import listen, process, roster
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import READ
from vspcd.unix.page import LAYOUT, MAX_CLIENTS
from workers.orphan import DOOR

if TYPE_CHECKING:
    from vspcd.master import Master

WITHIN = 5.0
NUMBERS = 1 << 48  # legs and clients have smaller ones, and those to come have room above
MAX_LEGS = 8  # of one worker: the VM's, and those that are to take its place
SO_COOKIE = 57  # linux/socket.h: one number for each socket, whoever holds a duplicate

WORKER_KIND, TLS_KIND = "worker", "tls"


@dataclass
class Orphan:
    """Somebody who stands in the door, and what he has said so far."""

    pid: int
    pidfd: int
    channel: Channel
    kind: str = ""
    page: int = -1
    itself: Optional[Message] = None
    legs: list[tuple[LegRecord, bool]] = field(default_factory=list)
    clients: list[ClientRecord] = field(default_factory=list)
    lock: Optional[Lock] = None
    complete: bool = False
    later: list[Message] = field(default_factory=list)


def opened(directory: int) -> socket.socket:
    """The door, in the open run directory. Raises OSError."""
    return listen.unix(directory, DOOR, 0o600, None, socket.SOCK_SEQPACKET)


class Adoption:
    """``done`` is called once, when everybody who lives has come and is known; None: they are known already."""

    def __init__(self, master: Master, door: socket.socket, done: Optional[Callable[[], None]]) -> None:
        self._master = master
        self._loop = master.loop
        self._log = master.log
        self._done: Optional[Callable[[], None]] = done
        self._expected: dict[int, int] = {}  # pidfd by pid, until they are complete or dead
        self._orphans: dict[int, Orphan] = {}
        self._refused: dict[int, Orphan] = {}  # those who were told to end, and have not yet
        self._begun = False
        self.door = door
        self._acceptor = Acceptor(master.loop, master.log, "adoption", door, self._came)

    def close(self) -> None:
        """Nobody can come any more, and who is on his way has to end."""
        for pid, pidfd in self._expected.items():
            process.kill(pid, pidfd=pidfd)
        self._acceptor.close()
        listen.remove(self._master.directory.fd, DOOR)

    def begin(self) -> None:
        """Wait for those who live, if there are any. Some may have come already."""
        self._begun = True
        for pid in roster.entered(self._master.nursery.roster):
            self._expect(pid)
        if self._expected:
            self._log.warning("adopting", processes=len(self._expected))
            self._master.notices.waiting(len(self._expected))
        self._loop.call_later(WITHIN, self._too_late)
        self._look()

    def _expect(self, pid: int) -> Optional[int]:
        """A descriptor of a process that is on the roster; None when it is not, or has gone."""
        if pid in self._expected:
            return self._expected[pid]
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        if not roster.is_entered(self._master.nursery.roster, pid):
            os.close(pidfd)
            return None
        self._expected[pid] = pidfd
        self._loop.watch(pidfd, READ, lambda _events: self._died(pid))
        return pidfd

    def _died(self, pid: int) -> None:
        pidfd = self._expected.pop(pid)
        self._loop.forget(pidfd)
        os.close(pidfd)
        orphan = self._orphans.pop(pid, None) or self._refused.pop(pid, None)
        if orphan is not None:
            self._forget(orphan)
            if orphan.page >= 0:  # nobody writes to it any more
                self._master.nursery.give_back(orphan.page)
        self._look()

    def _forget(self, orphan: Orphan) -> None:
        """It is not to be taken over; what it has shown us is its own."""
        orphan.channel.close()
        for leg, _ in orphan.legs:
            leg.parked.close()
        for client in orphan.clients:
            client.parked.close()

    def _too_late(self) -> None:
        if self._done is None:
            return
        for pid, pidfd in self._expected.items():
            orphan = self._orphans.get(pid)
            if orphan is None or not orphan.complete:
                self._log.error("worker-killed", pid=pid, reason=f"it did not come within {WITHIN:g} s")
                process.kill(pid, pidfd=pidfd)  # its death lets us go on

    # Who comes, and what he says.

    def _came(self, sock: socket.socket, _peer: str) -> None:
        who = listen.credentials(sock)
        pidfd = self._expect(who.pid) if who.uid == os.geteuid() and self._done is not None else None
        if pidfd is None or who.pid in self._orphans or who.pid in self._refused:
            self._turned_away(sock, who.pid)
            return
        orphan = Orphan(who.pid, pidfd, Channel(sock))
        self._orphans[who.pid] = orphan
        orphan.channel.serve(
            self._loop,
            lambda message, fds: self._received(orphan, message, fds),
            lambda: self._unfit(orphan, "it has hung up"),
        )

    def _turned_away(self, sock: socket.socket, pid: int) -> None:
        self._log.error("adoption-refused", pid=pid)
        channel = Channel(sock)
        try:
            channel.send({"type": "quit", "reason": "vspcd goes on without this worker"})
        except ChannelClosed:
            pass
        channel.close()

    def _received(self, orphan: Orphan, message: Message, fds: list[int]) -> None:
        if orphan.complete:
            for fd in fds:
                os.close(fd)
            orphan.later.append(message)  # it goes on, and tells us as if we knew it already
            return
        try:
            kind = control.check(message, ORPHAN, control.OWNER, len(fds))
            TAKES[kind](self, orphan, message, fds)
        except (PeerError, OSError, MemoryError) as fault:
            for fd in fds:
                os.close(fd)
            self._unfit(orphan, str(fault))

    def _unfit(self, orphan: Orphan, reason: str) -> None:
        """What it says cannot be used: it has to end, and whom it serves comes again."""
        if self._orphans.pop(orphan.pid, None) is None:
            return
        self._log.error("adoption-refused", pid=orphan.pid, reason=reason)
        try:
            orphan.channel.send({"type": "quit", "reason": "vspcd goes on without this worker"})
        except ChannelClosed:
            pass
        self._forget(orphan)
        self._refused[orphan.pid] = orphan

    def _here(self, orphan: Orphan, message: Message, _fds: list[int]) -> None:
        if orphan.kind or message["kind"] not in (WORKER_KIND, TLS_KIND):
            raise PeerError("it does not say what it is")
        if message["layout"] != LAYOUT:
            raise PeerError(
                f"it is of another version, whose pages have layout {message['layout']} and ours {LAYOUT};"
                " its VMs dial again"
            )
        orphan.kind = message["kind"]
        if orphan.kind == WORKER_KIND:
            nursery = self._master.nursery
            orphan.page = nursery.take_page()
            welcome = {"type": "welcome", "page": orphan.page, "settings": settings(self._master.config)}
            try:
                orphan.channel.send(welcome, [nursery.lasting.arena, nursery.lasting.sync[1]])
            except ChannelClosed as closed:
                raise PeerError(str(closed)) from None

    def _itself(self, orphan: Orphan, message: Message, _fds: list[int]) -> None:
        if message["type"] != {WORKER_KIND: "worker", TLS_KIND: "helper"}.get(orphan.kind):
            raise PeerError(f"a {orphan.kind} says that it is another thing")
        if orphan.itself is not None:
            raise PeerError("it describes itself twice")
        if orphan.kind == WORKER_KIND:
            check_worker(message)
        elif not all(type(leg) is int for leg in (*message["legs"], *message["securing"])):
            raise PeerError("a leg that is no number")
        orphan.itself = message

    def _leg(self, orphan: Orphan, message: Message, fds: list[int]) -> None:
        if len(orphan.legs) >= MAX_LEGS or not 0 < message["leg"] < NUMBERS:
            raise PeerError("a connection too many, or one with an impossible number")
        record = LegRecord(
            message["leg"], message["peer"], socket.socket(fileno=fds[0]), time.time(), message["secured"]
        )
        record.session = message["session"]
        fds.clear()
        orphan.legs.append((record, message["feeds"]))

    def _client(self, orphan: Orphan, message: Message, fds: list[int]) -> None:
        if len(orphan.clients) >= MAX_CLIENTS or not 0 < message["client"] < NUMBERS:
            raise PeerError("a client too many, or one with an impossible number")
        sock = socket.socket(fileno=fds[0])
        fds.clear()
        kind, origin, mode = message["kind"], message["from"], message["mode"]
        record = ClientRecord(message["client"], kind, origin, mode, sock, time.time(), message["terminal"])
        orphan.clients.append(record)
        orphan.lock = restore(record, message["facts"]) or orphan.lock

    def _complete(self, orphan: Orphan, _message: Message, _fds: list[int]) -> None:
        if orphan.itself is None:
            raise PeerError("it has not described itself")
        orphan.complete = True
        reached("adopt.complete")
        self._look()

    # When all are there.

    def _look(self) -> None:
        waiting = [
            pid for pid in self._expected if pid not in self._orphans or not self._orphans[pid].complete
        ]
        if waiting or not self._begun or self._done is None:
            return
        done, self._done = self._done, None
        for pid in self._expected:
            self._loop.forget(self._expected[pid])
        self._expected.clear()
        orphans, self._orphans = list(self._orphans.values()), {}
        self._take_over(orphans)
        served = self._served()
        reached("adopt.known")
        done()
        for orphan in orphans:
            self._tell_and_listen(orphan, served)

    def _take_over(self, orphans: list[Orphan]) -> None:
        numbers = [0]
        owners = [each for each in orphans if each.itself and each.itself.get("state") == OWNER]
        for orphan in sorted(orphans, key=lambda each: each not in owners):
            self._loop.forget(orphan.channel.fileno())
            numbers += [leg.number for leg, _ in orphan.legs] + [each.number for each in orphan.clients]
            if orphan.kind == TLS_KIND:
                numbers += self._take_helper(orphan)
            else:
                self._take_worker(orphan)
        self._master.table.number_from(max(numbers) + 1)
        if orphans:
            self._log.info("adopted", processes=len(orphans))

    def _take_helper(self, orphan: Orphan) -> list[int]:
        assert orphan.itself is not None
        tls, legs = self._master.tls, orphan.itself["legs"]
        tls.helpers[orphan.pid] = TlsHelper(
            orphan.pid, orphan.channel, orphan.itself["clients"], set(legs), pidfd=orphan.pidfd
        )
        tls.securing.update(orphan.itself["securing"])
        tls.certificate = tls.certificate or orphan.itself["certificate"]
        return list(legs)

    def _take_worker(self, orphan: Orphan) -> None:
        assert orphan.itself is not None
        worker = self._master.nursery.adopt(orphan.pid, orphan.channel, orphan.page, orphan.pidfd)
        worker.state = orphan.itself["state"]
        worker.legs = {leg.number: leg for leg, _ in orphan.legs}
        self._master.table.enter(worker)
        if worker.state == OWNER:
            self._take_owner(worker, orphan)
        elif worker.only_leg is not None:
            self._master.claims.admission.begins(worker.only_leg.peer)

    def _take_owner(self, worker: Worker, orphan: Orphan) -> None:
        assert orphan.itself is not None
        master, facts, move = self._master, orphan.itself["console"], orphan.itself["move"]
        named = Console(facts["uuid"], facts["label"], facts["name"])
        console = master.table.consoles.get(named.id)
        if console is None:
            console = master.table.add(named)
            console.last_seen = time.time()
        if console.worker is not None:
            self._log.error(
                "adoption-refused", pid=worker.pid, reason=f"{console.id} is served by another one"
            )
            worker.quitting = True
            return
        worker.console, console.worker = console, worker
        console.name = facts["name"] or console.name
        console.leg = next((leg for leg, feeds in orphan.legs if feeds), None)
        if console.leg is not None:
            console.since = console.last_seen = time.time()
        console.clients = {client.number: client for client in orphan.clients}
        console.lock = orphan.lock
        if orphan.itself["known"] is not None:
            recall(console, orphan.itself["known"])
        console.move = move
        if move is not None and move["state"] == MOVING:
            left = move["expires"] - time.monotonic()
            master.claims.moves.expect(bytes.fromhex(move["pair"]), console, left)

    def _tell_and_listen(self, orphan: Orphan, served: set[bytes]) -> None:
        """It is known, and so is everybody whom it may ask for: it can go on where the other master has stopped."""
        master = self._master
        if orphan.kind == TLS_KIND:
            helper = master.tls.helpers[orphan.pid]
            _say(orphan, "adopted")
            master.tls.inherit(helper)
            return
        worker = master.table.workers[orphan.pid]
        master.supervisor.serve(worker)
        if worker.quitting:
            master.supervisor.quit(worker, "vspcd goes on without this worker")
        elif (
            worker.state == NEGOTIATING
            and worker.only_leg is not None
            and cookie(worker.only_leg.parked) in served
        ):
            # The owner of a console has it already.
            master.claims.admission.ends(worker.only_leg.peer)
            worker.only_leg.parked.close()  # this duplicate alone: the connection is the owner's
            worker.legs.clear()
            master.supervisor.tell(worker, {"type": "handed"})
            master.supervisor.dismiss(worker)
        else:
            master.supervisor.tell(worker, {"type": "adopted"})
            for message in orphan.later:
                master.supervisor.heard(worker, message)

    def _served(self) -> set[bytes]:
        """The connections that the owners of consoles have."""
        workers = self._master.table.workers.values()
        owners = (worker for worker in workers if worker.state == OWNER)
        return {cookie(leg.parked) for owner in owners for leg in owner.legs.values()}


def _say(orphan: Orphan, kind: str) -> None:
    try:
        orphan.channel.send({"type": kind})
    except (ChannelClosed, OSError):
        pass  # its end is noticed


def cookie(sock: socket.socket) -> bytes:
    """What all duplicates of a socket have in common."""
    return sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)


def check_worker(message: Message) -> None:
    """Whether a worker can be what it says. Raises PeerError."""
    state, console = message["state"], message["console"]
    if state not in (OWNER, NEGOTIATING) or (console is not None) != (state == OWNER):
        raise PeerError(f"a worker that is {str(state)[: control.QUOTED]!r}")
    if console is not None:
        facts: dict[str, Any] = {key: console.get(key) for key in ("uuid", "label", "name")}
        if not identified(facts["uuid"], facts["label"]) or not isinstance(facts["name"], (str, type(None))):
            raise PeerError("a console with an impossible identity")
    if message["known"] is not None:
        recall(Console("", ""), message["known"])
    moves.check(message["move"])


Take = Callable[[Adoption, Orphan, Message, list[int]], None]
TAKES: dict[str, Take] = {
    "here": Adoption._here,
    "worker": Adoption._itself,
    "helper": Adoption._itself,
    "leg": Adoption._leg,
    "client": Adoption._client,
    "complete": Adoption._complete,
}
