"""Claims: which console a VM connection belongs to.

Does: gives each VM connection a worker, grants it a console or has the console's worker judge it, matches the targets
of vMotions, remembers why others were refused.
Owns: the claims that wait for a verdict, the pairs of moves under way.
Never: reads a VM connection; judges who is the true VM (``vspcd.core.identity``, in the worker).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Optional

from vspcd import moves
from vspcd.admission import Admission
from vspcd.consoles import Consoles
from vspcd.core.address import host_of
from vspcd.moves import Moves
from vspcd.proto.control import CLAIMING, NEGOTIATING, OWNER, Message
from vspcd.proto.errors import PeerError
from vspcd.renegotiation import Renegotiation
from vspcd.spawn import is_balancer
from vspcd.supervisor import Supervisor
from vspcd.table import Console, LegRecord, Worker, close
from vspcd.tlshelpers import TlsHelpers
from vspcd.unix import listen
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop, Timer

JUDGED_WITHIN = 5.0
PARKED = (
    "what it said has killed its workers again and again (see 'vspcctl status NAME', 'vspcctl unpark NAME')"
)

_HEX = re.compile(r"[0-9a-f]{32}")
_LABEL = re.compile(r"[A-Za-z0-9_-]{0,32}")


@dataclass
class Claim:
    """A VM connection that waits for the console's worker to judge it. ``claimant``: its own, while that lives.

    ``offer``: how it is offered, as a VM or as a move's target.
    """

    leg: LegRecord
    console: Console
    message: Message
    claimant: Optional[Worker]
    offer: dict[str, Any]


class Claims:
    """``tls`` is set before the first VM comes."""

    tls: TlsHelpers

    def __init__(self, loop: Loop, log: Log, supervisor: Supervisor, consoles: Consoles) -> None:
        self.admission = Admission(log)
        self._loop = loop
        self._log = log
        self._supervisor = supervisor
        self._consoles = consoles
        self.renegotiation = Renegotiation(log, supervisor, self.admission)
        self.moves = Moves()
        self.waiting: dict[int, Claim] = {}
        self.unexplained: dict[int, str] = {}
        self._arrivals: list[LegRecord] = []
        self._due: dict[int, Timer] = {}  # for the verdicts, by leg
        supervisor.handle(
            {
                "source": self._source,
                "tls": self._tls,
                "probe": self._probe,
                "failed": self._failed,
                "claim": self._claim,
                "took": self._took,
                "rejected": self._rejected,
                "peer": self._peer,
                "moving": self._moving,
                "revoke": self._revoke,
            }
        )

    def vm_connected(self, sock: socket.socket, peer: str) -> None:
        """A connection on the VM port. Raises NoRoom when there can be no worker for it."""
        balancer = is_balancer(self._supervisor.config, peer)
        objection = self.admission.objection(self._supervisor.config.proxy, peer, balancer)
        if objection is not None:
            self.admission.refused(peer, objection)
            sock.close()
            return
        if listen.has_left(sock):  # it is not worth a process; there may be thousands of them in the queue
            self._log.debug("vm-left-at-once", peer=peer)
            sock.close()
            return
        number = next(self._supervisor.table.numbers)
        self._arrivals.append(LegRecord(number, peer, sock, time.time(), balancer=balancer))
        self.admission.begins(peer)

    @property
    def arriving(self) -> int:
        """How many have come in this turn."""
        return len(self._arrivals)

    def vms_connected(self) -> None:
        """Those who have come in this turn get their workers, all together. Raises NoRoom when some did not."""
        legs, self._arrivals = self._arrivals, []
        served, error = self._supervisor.spawn_all(NEGOTIATING, legs)
        for leg in legs[:served]:
            self._log.debug("vm-dialled", peer=leg.peer)
        for leg in legs[served:]:
            self._not_admitted(leg.peer, str(error))
            leg.parked.close()
        if error is not None:
            raise error

    def _not_admitted(self, peer: str, reason: str) -> None:
        self.admission.ends(peer)
        self.admission.refused(peer, reason)

    def _source(self, worker: Worker, message: Message) -> None:
        """A balancer has said where a connection comes from: the rules apply to that host."""
        leg = worker.only_leg
        if leg is None or not (leg.balancer or is_balancer(self._supervisor.config, leg.peer)):
            raise PeerError("a source of a connection that is not a balancer's")
        _check_endpoint(message["peer"])
        if leg.peer == message["peer"]:
            return  # a dead worker had told it already
        self.admission.ends(leg.peer)
        leg.peer = message["peer"]
        objection = self.admission.objection(self._supervisor.config.proxy, leg.peer)
        self.admission.begins(leg.peer)
        if objection is not None:
            self._not_admitted(leg.peer, objection)
            self._supervisor.tell(worker, {"type": "refuse", "reason": objection})
            self._supervisor.dismiss(worker)

    def _tls(self, worker: Worker, _message: Message) -> None:
        """The connection is encrypted: a helper takes it, the worker gets what comes out."""
        leg = worker.only_leg
        if leg is None or leg.secured:
            raise PeerError("TLS without a connection")
        try:
            leg.parked = self.tls.secure(leg.number, leg.peer, leg.parked)
        except OSError as error:
            self._not_admitted(leg.peer, str(error))
            self._supervisor.tell(worker, {"type": "quit", "reason": str(error)})
            self._supervisor.dismiss(worker)
            return
        leg.secured = True
        self._supervisor.tell(worker, {"type": "plaintext"}, leg.parked)

    def tls_failed(self, number: int, reason: str) -> None:
        """A handshake has failed; the helper's word for it is better than its worker's, who only sees an end."""
        for worker in self._supervisor.table.workers.values():
            if worker.state == NEGOTIATING and number in worker.legs:
                self._not_admitted(worker.legs[number].peer, reason)
                self._supervisor.tell(worker, {"type": "quit", "reason": reason})
                self._supervisor.dismiss(worker)
                return
        if number in self.unexplained:
            self._not_admitted(self.unexplained.pop(number), reason)

    def tls_secured(self, number: int) -> None:
        """A handshake is over after its worker had given up."""
        if number in self.unexplained:
            self._not_admitted(self.unexplained.pop(number), "it closed during the TLS handshake")

    def _probe(self, worker: Worker, message: Message) -> None:
        self.tls.probe(message["leg"])

    def tls_probed(self, number: int, alive: bool) -> None:
        """A helper has found out whether the far end of an encrypted connection is there."""
        for console in self._supervisor.table.consoles.values():
            if console.leg is not None and console.leg.number == number and console.worker is not None:
                self._supervisor.tell(console.worker, {"type": "probed", "leg": number, "alive": alive})

    def _failed(self, worker: Worker, message: Message) -> None:
        leg = worker.only_leg
        if worker.state == NEGOTIATING and leg is not None:
            if leg.number in self.tls.securing:
                self.unexplained[leg.number] = leg.peer  # the helper is about to tell why
            elif message["reason"]:
                self._not_admitted(leg.peer, message["reason"])
            else:
                self.admission.ends(leg.peer)  # a balancer's health check
        self._withdraw(worker)
        self._supervisor.dismiss(worker)

    def _withdraw(self, worker: Worker) -> None:
        """The claimant is gone; whoever judges its connection will find it closed."""
        for claim in self.waiting.values():
            if claim.claimant is worker:
                claim.claimant = None

    def worker_died(self, worker: Worker, how: str) -> None:
        """A worker that negotiated or waited for a verdict is dead."""
        if worker.state == NEGOTIATING and worker.legs:
            self.renegotiation.goes_on(worker, how)
        self._withdraw(worker)

    def _claim(self, worker: Worker, message: Message) -> None:
        if not identified(message["uuid"], message["label"]):
            raise PeerError("a claim with an impossible identity")
        if worker.only_leg is None:
            raise PeerError("a claim without a connection")
        self.admission.ends(worker.only_leg.peer)
        worker.state = CLAIMING
        console = self._consoles.known(message)
        if console.parked_for:
            name = console.name or console.id
            self._not_now(worker, f"{name}: parked: {PARKED}")  # not for how long: one reason, however often
            return
        self._grant_or_offer(worker, console, message)

    def _not_now(self, worker: Worker, reason: str) -> None:
        leg = worker.only_leg
        self.admission.refused("" if leg is None else leg.peer, reason)
        self._supervisor.tell(worker, {"type": "refuse", "reason": reason})
        self._supervisor.dismiss(worker)

    def _grant_or_offer(self, worker: Worker, console: Console, message: Message) -> None:
        """The console is the worker's if nobody serves it; else whoever does is offered its connection."""
        if console.worker is None:
            self._grant(worker, console, message)
            return
        self._offer(worker, console, message, {"type": "leg"})

    def _offer(self, worker: Worker, console: Console, message: Message, offer: dict[str, Any]) -> None:
        """Let the console's worker judge the claimant's connection."""
        _, leg = worker.legs.popitem()
        leg.session = message["session"]
        self.waiting[leg.number] = Claim(leg, console, message, worker, offer)
        self._offer_again(self.waiting[leg.number])

    def _offer_again(self, claim: Claim) -> None:
        leg, owner = claim.leg, claim.console.worker
        offer = {**claim.offer, "leg": leg.number, "peer": leg.peer, "session": leg.session}
        offer["secured"] = leg.secured
        if owner is None or not self._supervisor.tell(owner, offer, leg.parked):
            self._refuse(self.waiting.pop(leg.number), "the system is out of descriptors")
            return
        self._judge_soon(leg.number)

    def _judge_soon(self, number: int) -> None:
        """Whoever is asked now has all the time, whatever another one has spent before."""
        before, self._due[number] = (
            self._due.get(number),
            self._loop.call_later(JUDGED_WITHIN, lambda: self._not_judged(number)),
        )
        if before is not None:
            before.cancel()

    def _not_judged(self, number: int) -> None:
        """The console's worker does not answer: it is replaced, and the VM that waits has the console."""
        del self._due[number]
        claim = self.waiting.get(number)
        if claim is not None and claim.console.worker is not None:
            claim.console.worker.hung = True
            self._supervisor.kill(claim.console.worker, f"no answer within {JUDGED_WITHIN:g} s")

    def _grant(self, worker: Worker, console: Console, message: Message) -> None:
        """The console is this worker's."""
        worker.state = OWNER
        if message["name"] is not None:
            self._consoles.called(console, message["name"])
        for leg in worker.legs.values():
            leg.session = message["session"]
        self._consoles.own(worker, console)

    def _took(self, worker: Worker, message: Message) -> None:
        """The console's worker goes on with the claimant's connection; the claimant has nothing left to do."""
        move = moves.check(message["move"])
        claim = self.waiting.pop(message["leg"], None)
        if claim is None and worker.console is not None and message["leg"] in worker.legs:
            return  # a dead worker had taken it, and its heir does so again
        if claim is None or worker.console is not claim.console:
            raise PeerError("it took a leg that it was not offered")
        worker.legs[claim.leg.number] = claim.leg
        if message["session"] is not None:
            claim.leg.session, claim.console.move = message["session"], move
        if claim.claimant is not None:
            self._supervisor.tell(claim.claimant, {"type": "handed"})
            self._supervisor.dismiss(claim.claimant)

    def _rejected(self, worker: Worker, message: Message) -> None:
        claim = self.waiting.pop(message["leg"], None)
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
        self._supervisor.tell(claim.claimant, {"type": "refuse", "reason": reason})
        self._supervisor.dismiss(claim.claimant)

    def _moving(self, worker: Worker, message: Message) -> None:
        """A VM is about to move: whoever shows this pair is where it goes."""
        if worker.console is not None:
            pair = _pair(message)
            self.moves.expect(pair, worker.console, message["seconds"])

    def _revoke(self, _worker: Worker, message: Message) -> None:
        self.moves.take(_pair(message))

    def _peer(self, worker: Worker, message: Message) -> None:
        """A VM has shown a pair: it is the target of a move, or a stranger."""
        worker.state = CLAIMING
        console = self.moves.take(_pair(message))
        leg = worker.only_leg
        if console is None or console.worker is None or leg is None:
            worker.state = NEGOTIATING
            self._supervisor.tell(worker, {"type": "stranger"})
            return
        self.admission.ends(leg.peer)
        worker.console = console
        self._offer(worker, console, message, {"type": "target", "pair": message["pair"]})

    def reclaim(self, console: Console) -> None:
        """The worker that judged is dead: its successor judges those that wait, or the first has the console."""
        for claim in [claim for claim in self.waiting.values() if claim.console is console]:
            if console.worker is not None:
                self._offer_again(claim)
                continue
            del self.waiting[claim.leg.number]
            if claim.claimant is None or claim.offer["type"] == "target":
                self._refuse(claim, "the console's worker has died")
            else:
                claim.claimant.legs[claim.leg.number] = claim.leg
                self._grant(claim.claimant, console, claim.message)

    def wait(self, claim: Claim) -> None:
        """A claim that has been offered already, by the version before."""
        self.waiting[claim.leg.number] = claim
        self._judge_soon(claim.leg.number)

    def waiting_for(self, console: Console) -> bool:
        """Whether a VM waits for this console's worker to judge it."""
        return any(claim.console is console for claim in self.waiting.values())


def identified(uuid: object, label: object) -> bool:
    """Whether these can name a console."""
    texts = isinstance(uuid, str) and isinstance(label, str)
    return texts and bool(_HEX.fullmatch(str(uuid)) and _LABEL.fullmatch(str(label)))


def _check_endpoint(peer: str) -> None:
    try:
        ipaddress.ip_address(host_of(peer))
    except ValueError:
        raise PeerError("a source that is no address") from None


def _pair(message: Message) -> bytes:
    try:
        return bytes.fromhex(message["pair"])
    except ValueError:
        raise PeerError("a pair that is not hexadecimal") from None
