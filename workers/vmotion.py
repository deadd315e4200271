"""A console's vMotions: carries out what the table in ``vspcd.core.vmotion`` says.

Does: times the steps, makes the secrets, holds typing, puts the source's last bytes before the target's first.
Owns: the target's connection until the VM runs there, and the record of the move.
Never: decides which target belongs to which console; the master matches the pairs.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

from vspcd.core import vmotion
from vspcd.core.journal import Buffer
from vspcd.core.vmotion import MOVED, OUTCOMES, MoveRecord
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware import Session
from vspcd.proto.vmware_codes import (
    VMOTION_PEER,
    BadIdentity,
    Event,
    Identity,
    VmotionBegin,
    VmotionComplete,
    VmotionPeer,
)
from vspcd.unix import tcpinfo
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import Timer
from vspcd.unix.page import LEG
from workers.connection import Connection
from workers.contest import Newcomer
from workers.leg import Leg, LegGone
from workers.resumption import NOWHERE, Resumed, described, newcomers

if TYPE_CHECKING:
    from workers.vmware import VmwareWorker

SECRET = 16
LOOK_EVERY = 0.01
ANSWER_MARGIN = 1.0
"""Seconds before the host's limit at which NOTNOW is sent instead of GOAHEAD."""

NEAR_LIMIT = 0.5
"""A GOAHEAD that took more than this share of the limit is worth a warning."""

FLUSH_WITHIN = 1.0
EARLY_LIMIT = 8192
"""The target's console bytes before COMPLETE; they are told to the master with all else, up to its limit."""


class Vmotion:
    """The moves of one worker's console."""

    def __init__(self, worker: VmwareWorker) -> None:
        self.machine = vmotion.Vmotion()
        self.target: Optional[Connection] = None
        self.early = bytearray()
        self._worker = worker
        self._shell = worker.shell
        self._record = MoveRecord("", 0.0)
        self._recorded = True
        self._sequence = b""
        self._pair = b""
        self._begun = 0.0
        self._timer: Optional[Timer] = None
        self._event = ""
        self._expires = 0.0
        self._completed = False  # the target has said that the VM runs there

    @property
    def source_may_leave(self) -> bool:
        """Whether the end of the VM's connection is part of a move."""
        return self.machine.under_way

    @property
    def source_peer(self) -> str:
        """Where the VM was when the move began."""
        return self._record.source

    def happened(self, event: str) -> None:
        """Take an event and do what follows from it."""
        self._event = event
        for action in self.machine.step(event):
            reached("move.action")
            ACTIONS[action](self)
            reached("move.acted")

    # For another worker that may have to go on.

    def state(self) -> Optional[dict[str, Any]]:
        """How the move stands, None without one. Times are those of the monotonic clock."""
        return self._described() if self.machine.under_way else None

    def unrecorded(self) -> Optional[dict[str, Any]]:
        """The move that has just ended on its target and has no record yet, None without one."""
        return None if self._recorded or "done" not in self._record.steps else self._described()

    def _described(self) -> dict[str, Any]:
        return {
            "state": self.machine.state,
            "sequence": self._sequence.hex(),
            "pair": self._pair.hex(),
            "begun": self._begun,
            "expires": self._expires,
            "completed": self._completed,
            "target": 0 if self.target is None else self.target.leg.number,
            "record": vars(self._record),
        }

    def resume(self, state: dict[str, Any], target: Optional[Resumed]) -> None:
        """Go on with a move whose worker is dead. What it had begun and not told is done again."""
        self.machine.state = state["state"]
        self._sequence, self._pair = bytes.fromhex(state["sequence"]), bytes.fromhex(state["pair"])
        self._begun, self._expires = state["begun"], state["expires"]
        self._completed = state["completed"]
        self._record = MoveRecord(**state["record"])
        self._recorded = False
        if self.machine.state == vmotion.IDLE:
            self._write_record()
            return
        if target is not None:
            self.target = target.connection
            self.early[:] = target.early
        if self.machine.state == vmotion.DELIVERING:
            self._worker.console_of_ours.keyboard.finish()
            self._look()
            return
        self._worker.console_of_ours.keyboard.hold()
        left = max(0.0, self._expires - time.monotonic())
        self._after(left, lambda: self.happened(vmotion.EXPIRED))
        if self.machine.state != vmotion.MOVING:
            self._resume_target()

    def _resume_target(self) -> None:
        self.machine.state = vmotion.JOINED
        if self.target is None:
            self.happened(vmotion.TARGET_GONE)
            return
        self.target.serve(self._shell.loop)
        if self._completed:
            self.happened(vmotion.COMPLETE)
        else:
            self._attempt(self.target.send_replies, self.target)

    # What the source says.

    def source_event(self, event: Event) -> None:
        """BEGIN or ABORT of the VM's connection; a COMPLETE or PEER from there means nothing."""
        if isinstance(event, VmotionBegin):
            if self.machine.state == vmotion.FLUSHING:
                self._say(lambda session: session.notnow(event.sequence))
                return
            self._sequence = event.sequence
            self.happened(vmotion.BEGIN)
        else:
            self.happened(vmotion.ABORT)

    def _start(self) -> None:
        connection = self._source()
        self._completed = False
        self._begun = time.monotonic()
        self._record = MoveRecord(connection.peer, time.time())
        self._recorded = False
        self._worker.console_of_ours.keyboard.finish()
        # Behind this turn: the secret is told before it is out.
        self._after(0, self._look)

    def _look(self) -> None:
        """Whether all that was typed before has arrived at the source's host."""
        if self.machine.state != vmotion.DELIVERING:
            return
        connection = self._source()
        keyboard = self._worker.console_of_ours.keyboard
        delivered = not keyboard.typing and not connection.leg.out and arrived(connection.leg)
        if delivered and self._shell.is_heard():  # else the secret would be out and nobody would know it
            self.happened(vmotion.DELIVERED)
        elif self._elapsed() >= self._shell.settings["vmotion"]["limit"] - ANSWER_MARGIN:
            self.happened(vmotion.TOO_SLOW)
        else:
            self._after(LOOK_EVERY, self._look)

    def _goahead(self) -> None:
        timeout = self._shell.settings["vmotion"]["timeout"]
        secret = os.urandom(SECRET)
        self._pair = self._sequence + secret
        self._expires = time.monotonic() + timeout
        self._worker.console_of_ours.keyboard.hold()
        self._shell.tell("moving", pair=self._pair.hex(), seconds=timeout)
        self._say(lambda session: session.goahead(self._sequence, secret))
        self._note("goahead")
        self._after(timeout, lambda: self.happened(vmotion.EXPIRED))

    def _notnow(self) -> None:
        self._say(lambda session: session.notnow(self._sequence))

    def _revoke(self) -> None:
        self._shell.tell("revoke", pair=self._pair.hex())

    def _release(self) -> None:
        self._cancel()
        console = self._worker.console_of_ours
        console.keyboard.release()
        self._worker.pump()

    def _give_up(self) -> None:
        if self._worker.connection is None or self._worker.connection.closed:
            self._worker.console_of_ours.keyboard.release()
            self._worker.lost(self._record.outcome)
        else:
            self._release()

    def _source_left(self) -> None:
        connection = self._worker.connection
        if connection is not None:
            connection.end()
        self._worker.console_of_ours.type_to(None)
        self._shell.tell("closed", leg=self._shell.page.words[LEG])

    def _disconnect(self) -> None:
        self._worker.console_of_ours.keyboard.release()
        self._worker.lost(OUTCOMES.get(self._event, self._event))

    # The target.

    def joins(self, newcomer: Newcomer, pair: bytes) -> Optional[str]:
        """The target of the move has shown its pair; why it is not taken, None when it is."""
        if self.machine.state != vmotion.MOVING or pair != self._pair:
            return "the move that this pair belongs to is over"
        self.early[:] = bytes.fromhex(newcomer.session["early"])
        self.target = newcomers(
            newcomer.session,
            newcomer.leg(),
            self._worker.services,
            self._worker.room_for_reading,
            Target(self),
        )
        self._record.target = newcomer.peer
        self.happened(vmotion.PEER)
        return None

    def _peer_ok(self) -> None:
        target = self.target
        assert target is not None
        self._note("peer")
        target.session.peer_ok(self._sequence)
        self._attempt(target.queue_replies, target)
        self._shell.tell("took", leg=target.leg.number, session=self.told_of_target(), move=self.state())
        reached("move.joined")
        target.serve(self._shell.loop)
        self._attempt(target.send_replies, target)

    def told_of_target(self, size: int = 0) -> dict[str, Any]:
        """The target's connection for whoever may have to go on with it."""
        assert self.target is not None
        return described(self.target, NOWHERE, size, bytes(self.early))

    def completes(self, sequence: bytes) -> None:
        """The target says that the VM runs there."""
        if sequence == self._sequence and self.machine.state == vmotion.JOINED:
            self._completed = True
            if self.target is not None:
                self.target.pause()
        else:
            self._shell.log.warning("vmotion-stray-complete", console=self._worker.console_of_ours.id)

    def _type_to_target(self) -> None:
        assert self.target is not None
        if "complete" not in self._record.steps:
            self._note("complete")
        self.target.pause()
        console = self._worker.console_of_ours
        self._record.held = console.held_bytes()
        console.type_to(self.target.leg)
        console.keyboard.release()
        self._attempt(console.keyboard.pump, self.target)
        source = self._worker.connection
        if source is None or source.closed:
            self.happened(vmotion.FLUSHED)
            return
        # Its host answers our end with its own, behind the last byte that the VM said there.
        source.leg.say_no_more()
        self._after(FLUSH_WITHIN, lambda: self.happened(vmotion.FLUSHED))

    def _switch(self) -> None:
        """The source has said its last byte: the target's bytes from now on."""
        self._cancel()
        target, self.target = self.target, None
        assert target is not None
        self._note("done")
        early = bytes(self.early)
        self.early.clear()
        self._worker.switch(target, early)

    def _drop_target(self) -> None:
        target, self.target = self.target, None
        self.early.clear()
        if target is not None:
            target.end()
            self._shell.tell("closed", leg=target.leg.number)

    def target_ended(self, reason: str) -> None:
        """The target's connection is over before the VM runs there."""
        self._shell.log.warning(
            "vmotion-target-lost",
            console=self._worker.console_of_ours.id,
            peer=self._record.target,
            reason=reason,
        )
        if self.machine.state == vmotion.JOINED:
            self._drop_target()
        self.happened(vmotion.TARGET_GONE)

    # The record.

    def _write_record(self) -> None:
        self._cancel()
        self._record.outcome = OUTCOMES.get(self._event, MOVED) if "done" not in self._record.steps else MOVED
        facts = self._record.as_dict()
        console = self._worker.console_of_ours
        console.journal.event("vmotion", facts)
        console.notice(describe(self._record))
        limit = self._shell.settings["vmotion"]["limit"]
        slow = self._record.steps.get("goahead", 0.0) > limit * NEAR_LIMIT
        self._worker.memory.moved(facts)
        self._shell.tell("moved", record=facts, slow=slow)
        self._recorded = True

    def _note(self, step: str) -> None:
        self._record.steps[step] = self._elapsed()

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    # Small things.

    def _source(self) -> Connection:
        connection = self._worker.connection
        assert connection is not None
        return connection

    def _say(self, words: Callable[[Session], None]) -> None:
        connection = self._source()
        words(connection.session)
        if not connection.in_turn:  # else the turn says it, and tells the master
            self._attempt(connection.queue_replies, connection)
            self._worker.changed(connection)
            reached("move.told")
            self._attempt(connection.send_replies, connection)

    def _attempt(self, act: Callable[[], None], connection: Connection) -> None:
        """The connection's end is dealt with when this turn is over."""
        try:
            act()
        except (LegGone, PeerError) as error:
            reason = str(error)
            self._shell.loop.call_later(0, lambda: self._ended(connection, reason))

    def _ended(self, connection: Connection, reason: str) -> None:
        if connection is self.target:
            self.target_ended(reason)
        else:
            self._worker.ended_since(connection, reason)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._cancel()
        self._timer = self._shell.loop.call_later(seconds, call)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


ACTIONS: dict[str, Callable[[Vmotion], None]] = {
    vmotion.START: Vmotion._start,
    vmotion.NOTNOW: Vmotion._notnow,
    vmotion.GOAHEAD: Vmotion._goahead,
    vmotion.PEER_OK: Vmotion._peer_ok,
    vmotion.REVOKE: Vmotion._revoke,
    vmotion.RELEASE: Vmotion._release,
    vmotion.GIVE_UP: Vmotion._give_up,
    vmotion.DROP_TARGET: Vmotion._drop_target,
    vmotion.SOURCE_LEFT: Vmotion._source_left,
    vmotion.TYPE_TO_TARGET: Vmotion._type_to_target,
    vmotion.SWITCH: Vmotion._switch,
    vmotion.DISCONNECT: Vmotion._disconnect,
    vmotion.RECORD: Vmotion._write_record,
}


class Target:
    """Handlers of the target's connection until the VM runs there."""

    tells_all = True

    def __init__(self, moves: Vmotion) -> None:
        self._moves = moves

    def data(self, connection: Connection, data: Buffer) -> None:
        """Console bytes before COMPLETE: kept, a bounded number, until the source's last ones are in."""
        if len(self._moves.early) + len(data) > EARLY_LIMIT:
            raise PeerError(f"more than {EARLY_LIMIT} console bytes before VMOTION-COMPLETE")
        self._moves.early += data

    def event(self, connection: Connection, event: Event) -> None:
        """COMPLETE ends the move; who else this VM says to be must be true."""
        if isinstance(event, VmotionComplete):
            self._moves.completes(event.sequence)
        elif isinstance(event, VmotionBegin):
            connection.session.notnow(event.sequence)
        elif isinstance(event, VmotionPeer):
            connection.session.unknown(VMOTION_PEER)
        elif isinstance(event, BadIdentity):
            raise PeerError(event.reason)
        elif isinstance(event, Identity):
            self._moves._worker.check_identity(event.uuid)

    def changed(self, connection: Connection, size: int = 0) -> None:
        """What it has said so far is with the master before it is consumed."""
        moves = self._moves
        moves._shell.tell(
            "session", leg=connection.leg.number, session=moves.told_of_target(size), move=moves.state()
        )
        reached("move.told")

    def turn_over(self, connection: Connection) -> None:
        """COMPLETE takes effect when the turn in which it came is consumed."""
        if self._moves._completed:
            self._moves.happened(vmotion.COMPLETE)

    def room(self, connection: Connection) -> None:
        """It takes bytes: those that are typed when the VM runs there, replies before."""
        if self._moves.machine.state == vmotion.FLUSHING:
            self._moves._worker.pump()
        else:
            connection.leg.want_room(not connection.leg.flush())

    def ended(self, connection: Connection, reason: str) -> None:
        """The target has gone."""
        self._moves.target_ended(reason)


def arrived(leg: Leg) -> bool:
    """Whether the other host has acknowledged all that it was given."""
    try:
        return tcpinfo.unacknowledged(leg.sock) == 0
    except OSError:
        return True  # nothing can arrive any more


def describe(record: MoveRecord) -> str:
    """A move in one line for people."""
    if record.outcome == MOVED:
        return f"moved from {record.source} to {record.target}"
    return f"did not move: {record.outcome}"
