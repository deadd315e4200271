"""Those who come for a console that is served already: a VM that dials again, an impostor, the target of a move.

Does: has them judged by ``vspcd.core.identity``, compares two that claim one console, takes over from one to the other.
Owns: the contest that is under way, and when connections that were alive were replaced.
Never: decides by a newcomer's word alone that the VM which is there has gone.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Optional

from vspcd.core import identity, vmotion
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix.failpoint import reached
from workers.connection import Connection
from workers.contest import Contest, Newcomer, newcomer_of
from workers.resumption import newcomers
from workers.shell import socket_of
from workers.vetting import objection

if TYPE_CHECKING:
    from workers.vmware import VmwareWorker

BEING_COMPARED = "another connection is being compared with the one that is there"


class Takeover:
    """The newcomers of ``worker``'s console."""

    def __init__(self, worker: VmwareWorker) -> None:
        self._worker = worker
        self._contest: Optional[Contest] = None
        self._replaced: list[float] = []

    # The master's messages.

    def leg(self, message: Message, fds: list[int]) -> None:
        """Another connection says that it is our VM's."""
        newcomer = newcomer_of(message, fds[0])
        old, fault = self._worker.connection, objection(newcomer.session, asked=True)
        if fault is not None:
            self._reject(newcomer, fault)
        elif old is None or self._verdict(old, newcomer) == identity.TAKE:
            if self._contest is not None:
                self._contest.decide(alive=True)
            self.take(newcomer)
        elif self._contest is not None:
            self._reject(newcomer, BEING_COMPARED)
        else:
            shell, worker = self._worker.shell, self._worker
            self._contest = Contest(shell.loop, old.leg, newcomer, self._judged, lambda: worker.changed(old))
            if old.leg.secured:
                shell.tell("probe", leg=old.leg.number)

    def target(self, message: Message, fds: list[int]) -> None:
        """The target of a vMotion has shown the right pair."""
        reached("move.joins")
        newcomer = newcomer_of(message, fds[0])
        fault = (
            objection(newcomer.session, asked=False)
            or self._objection_to_target(newcomer)
            or self._worker.moves.joins(newcomer, bytes.fromhex(message["pair"]))
        )
        if fault is not None:
            self._reject(newcomer, fault)

    def probed(self, message: Message, _fds: list[int]) -> None:
        """A TLS helper has asked the old connection's host for a sign of life."""
        if self._contest is not None:
            self._contest.decide(message["alive"])

    # The judgement.

    def _verdict(self, old: Connection, newcomer: Newcomer) -> str:
        now = time.monotonic()
        self._replaced = [when for when in self._replaced if now - when < identity.WITHIN]
        return identity.verdict(old.peer, newcomer.peer, len(self._replaced))

    def _objection_to_target(self, newcomer: Newcomer) -> Optional[str]:
        telnet: Any = newcomer.session["telnet"]
        try:
            if telnet["uuid"] is not None:
                self._worker.check_identity(telnet["uuid"])
        except PeerError as fault:
            return str(fault)
        return None

    def _judged(self, newcomer: Newcomer, alive: bool) -> None:
        self._contest = None
        old = self._worker.connection
        if old is not None and alive:
            reason = identity.refusal(old.peer, newcomer.peer)
            console = self._worker.console_of_ours
            console.journal.event("refused", {"peer": newcomer.peer, "reason": reason})
            console.notice(reason)
            self._reject(newcomer, reason)
        else:
            self.take(newcomer)

    def _reject(self, newcomer: Newcomer, reason: str) -> None:
        socket_of(newcomer.fd).close()
        self._worker.shell.tell("rejected", leg=newcomer.number, reason=reason)

    def withdraw(self) -> Optional[Contest]:
        """The contest that was under way; from now on there is none."""
        contest, self._contest = self._contest, None
        return contest

    def give_up(self) -> None:
        """The newcomer's own worker claims again; whose verdict was asked for is dead."""
        contest = self.withdraw()
        if contest is not None:
            contest.give_up()
            os.close(contest.newcomer.fd)

    # Taking over.

    def take(self, newcomer: Newcomer) -> None:
        """The newcomer is our VM: the old connection's last bytes, then the new one's first."""
        reached("take.begin")
        worker = self._worker
        if worker.connection is not None:
            worker.connection.drain()
        if worker.moves.machine.under_way:
            worker.moves.happened(vmotion.SOURCE_GONE)
            worker.moves.happened(vmotion.EXPIRED)
        if worker.connection is not None:
            self._replaced.append(time.monotonic())
            worker.disconnect(f"replaced by a new connection from {newcomer.peer}")
        reached("take.replaced")
        told: dict[str, Any] = newcomer.session
        connection = newcomers(told, newcomer.leg(), worker.services, worker.room_for_reading, worker)
        connection.session.accept_proxy()
        connection.serve(worker.shell.loop)
        worker.shell.tell("took", leg=newcomer.number, session=None, move=None)
        reached("take.told")
        worker.connect(connection, bytes.fromhex(told["early"]))
