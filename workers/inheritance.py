"""Inheritance: what a dead worker leaves to the one that goes on for it.

Does: takes the VM's connections, the clients and the move from the master, one message each, and goes on when the last
one has come.
Owns: nothing beyond that moment.
Never: serves a connection before everything is here; says or types a byte twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from vspcd.core import vmotion
from vspcd.proto.control import Message
from vspcd.unix.failpoint import reached
from vspcd.unix.page import LEG, SENT_UP_TO, TYPIST
from workers.contest import Newcomer, newcomer_of
from workers.leg import LegGone, shut_down
from workers.quarantine import KILLS, places, put_aside
from workers.resumption import NOWHERE, Resumed, resume
from workers.shell import socket_of
from workers.vmotion import Target

if TYPE_CHECKING:
    from workers.vmware import VmwareWorker

FEEDS, TARGET, NEWCOMER, POISON = "feeds", "target", "newcomer", "poison"


class Inheritance:
    """The heir is ``worker``, whose console is open already."""

    def __init__(self, worker: VmwareWorker) -> None:
        self._worker = worker
        self.incomplete = False  # something of what a dead worker has left is to come
        self._typed: Optional[int] = None  # bytes of the batch on its way that are with the VM
        self._early = b""
        self._target: Optional[Resumed] = None
        self._newcomer: Optional[Newcomer] = None
        self._poisonous: list[Newcomer] = []
        self._lost: Optional[str] = None  # how the VM's connection has ended since

    def leg(self, message: Message, fds: list[int]) -> None:
        """A connection of the VM; its role says what for."""
        reached("resume.leg")
        worker = self._worker
        if message["role"] in (NEWCOMER, POISON):
            waiting = newcomer_of(message, fds[0])
            if message["role"] == POISON:
                self._poisonous.append(waiting)
            else:
                self._newcomer = waiting
            return
        handlers = Target(worker.moves) if message["role"] == TARGET else worker
        try:
            resumed = resume(
                message, fds[0], worker.shell.page, worker.services, worker.room_for_reading, handlers
            )
        except (OSError, LegGone) as error:
            if message["role"] == FEEDS:
                self._lost = str(error)
            else:
                worker.shell.tell("closed", leg=message["leg"])
            return
        self._typed = self._progress() + resumed.typed
        if message["role"] == TARGET:
            self._target = resumed
        else:
            worker.connection = resumed.connection
            self._early = resumed.early
            if resumed.head != NOWHERE:
                worker.console_of_ours.fanout.say_again(resumed.head)
        reached("resume.booked")

    def _progress(self) -> int:
        """What is known so far of the batch on its way."""
        if self._typed is None:
            return self._worker.shell.page.get(SENT_UP_TO)[2]
        return self._typed

    def client(self, message: Message, fds: list[int]) -> None:
        """Somebody on the console."""
        typist = self._worker.shell.page.words[TYPIST]
        self._worker.console_of_ours.resume_client(message, fds[0], typist, self._progress())

    def complete(self, message: Message, _fds: list[int]) -> None:
        """Everything is here: go on."""
        reached("resume.begin")
        self.incomplete = False
        worker, console = self._worker, self._worker.console_of_ours
        worker.memory.restore(message["known"])
        connection = worker.connection
        if connection is not None:
            worker.shell.page.words[LEG] = connection.leg.number
            if self._early:
                console.fanout.said(self._early)
            connection.leg.note_reading(worker.shell.page)
            if not self._types_to_target(message["move"]):
                console.type_to(connection.leg)
            connection.serve(worker.shell.loop)
        else:
            console.fanout.nothing_comes_again()
        if message["move"] is not None:
            worker.moves.resume(message["move"], self._target)
        elif self._target is not None:
            self._target.connection.end()
        if self._lost is not None:
            self._without_the_vm(self._lost)
        for poisonous in self._poisonous:
            self._put_aside(poisonous)
        console.go_on()
        if self._newcomer is not None:
            worker.takeover.take(self._newcomer)
        worker.pump()
        if worker.connection is not None and not worker.connection.closed:
            worker.facts.resume(console, worker.connection.session)
        worker.idle_if_alone()
        reached("resume.done")

    def _types_to_target(self, move: Optional[dict[str, Any]]) -> bool:
        """Whether the target of the move is typed to by now. What is noted of that must not be forgotten."""
        return move is not None and move["completed"] and self._target is not None

    def _without_the_vm(self, reason: str) -> None:
        moves = self._worker.moves
        if moves.machine.under_way:
            moves.happened(vmotion.SOURCE_GONE)
        else:
            self._worker.lost(reason)

    def _put_aside(self, poisonous: Newcomer) -> None:
        """What this connection says has killed one worker after the other; nobody looks at it again."""
        worker, console = self._worker, self._worker.console_of_ours
        leg = socket_of(poisonous.fd)
        kept = put_aside(places(worker.shell.settings["log"]), console.id, leg)
        facts = {"file": kept.file, "bytes": kept.size}
        console.fanout.said(f"\r\n[vspcd: {kept.size} bytes put aside in {kept.file}: {KILLS}]\r\n".encode())
        console.journal.event("quarantined", facts)
        worker.shell.tell("quarantined", leg=poisonous.number, **facts)
        shut_down(leg)
        worker.shell.page.words[LEG] = poisonous.number
        worker.lost(KILLS)
