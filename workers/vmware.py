"""The worker of a VMware VM: negotiates with it, then serves its console.

Does: ties a VM's connection to a console; answers the master; sends newcomers, moves and heirs to their places.
Owns: the connection, and the console once the master has granted it.
Never: decides by itself whose console it is; the master does, and the rules in ``vspcd.core.identity``.
"""

from __future__ import annotations

from typing import Any, Optional

from vspcd.core import vmotion
from vspcd.core.journal import Buffer
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware import Session
from vspcd.proto.vmware_codes import (
    VMOTION_PEER,
    BadIdentity,
    Event,
    VmotionAbort,
    VmotionBegin,
    VmotionPeer,
    format_uuid,
)
from vspcd.unix.failpoint import reached
from vspcd.unix.page import HEAD, LEG
from workers.adoption import Survivor
from workers.arrival import Arrival
from workers.connection import CLOSED, TLS_ENDED, Connection, Room
from workers.console import Console
from workers.facts import Facts
from workers.inheritance import Inheritance
from workers.leg import LegGone
from workers.memory import Memory
from workers.negotiation import Negotiation
from workers.resumption import described
from workers.shell import Shell, Start
from workers.takeover import Takeover
from workers.vmotion import Vmotion


class VmwareWorker:
    """One worker process. Its duties in order: a negotiation, then a console; or a console from the start.

    The master makes one before it forks, for all that do not know yet whose they are; each child begins with its own
    copy. It has opened nothing: what it holds are its objects, and the number of the log directory's descriptor.
    """

    tells_all = False
    room_for_reading: Room

    def __init__(self, settings: dict[str, Any], log_directory: int) -> None:
        self.shell = Shell(settings, log_directory)
        self.session = Session()  # of a connection that has said nothing yet
        self.negotiation: Optional[Negotiation] = None
        self.console: Optional[Console] = None  # once it is ours
        self._console = Console(self.shell, self._leg_broke, self.idle_if_alone, self._broke)
        self.connection: Optional[Connection] = None
        self.memory = Memory()
        self.moves = Vmotion(self)
        self.facts = Facts(self.shell)
        self.arrival = Arrival(self)
        self.takeover = Takeover(self)
        self.inheritance = Inheritance(self)
        self.shell.answer(
            {
                "own": self._own,
                "refuse": self._refuse,
                "handed": self._handed,
                "leg": self.takeover.leg,
                "resume-leg": self.inheritance.leg,
                "resume-client": self.inheritance.client,
                "resumed": self.inheritance.complete,
                "retire": self._retire,
                "target": self.takeover.target,
                "plaintext": self.arrival.plaintext,
                "probed": self.takeover.probed,
                "stranger": self._stranger,
                "client": self._client,
                "detach": self._detach,
                "mode": self._mode,
                "settings": self._settings,
                "reopen": self._reopen,
                "in-doubt": self._in_doubt,
                "quit": self._quit,
            },
            self._orphaned,
            Survivor(self),
        )

    def live(self, start: Start) -> None:
        """The life of a worker process."""
        self.begin(start)
        self.shell.run()

    def begin(self, start: Start) -> None:
        """The life of a child begins."""
        self.room_for_reading = Room(self.shell)
        self.memory.vm_changed()
        self.shell.begin(start)
        if start.leg >= 0:
            self.arrival.begin(start)

    @property
    def console_of_ours(self) -> Console:
        """The console, which a worker with a served connection has."""
        assert self.console is not None
        return self.console

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self.shell.settings["services"])

    # The master's messages.

    def _own(self, message: Message, _fds: list[int]) -> None:
        """The console is ours."""
        reached("resume.own" if message["resume"] else "own.begin")
        self.console = self._console
        self.console.begin(message["console"], message["resume"])
        if message["resume"]:
            self.inheritance.incomplete = True
            reached("resume.opened")
        if self.negotiation is not None and self.connection is not None:
            self.negotiation.stop()
            early = bytes(self.negotiation.early)
            self.negotiation = None
            self.connection.leg.hold = 0
            self.connection.serve(self.shell.loop)
            self.connection.session.accept_proxy()
            self.connect(self.connection, early)

    def _refuse(self, message: Message, _fds: list[int]) -> None:
        if self.negotiation is not None and self.connection is not None:
            self.connection.session.refuse_proxy()
            self.negotiation.fail(message["reason"])
        else:
            self.arrival.refuse(message["reason"])

    def _handed(self, _message: Message, _fds: list[int]) -> None:
        """The console's owner has our connection now."""
        if self.negotiation is not None:
            self.negotiation.stop()
        if self.connection is not None:
            self.connection.let_go()
        self.shell.leave()

    def check_identity(self, uuid: str) -> None:
        """PeerError when a connection that shall feed this console says that it is another VM."""
        ours = self.console_of_ours.uuid
        if uuid != ours:
            raise PeerError(f"the VM is {format_uuid(ours)}, and this one says {format_uuid(uuid)}")

    def _stranger(self, _message: Message, _fds: list[int]) -> None:
        """Nobody waits for the pair that our VM has shown."""
        if self.negotiation is not None:
            self.negotiation.stranger()

    def _client(self, message: Message, fds: list[int]) -> None:
        assert self.console is not None
        self.memory.client_came(message["client"])
        self.console.attach(message, fds[0])
        self.idle_if_alone()

    def _detach(self, message: Message, _fds: list[int]) -> None:
        if self.console is not None:
            client = self.console.clients.get(message["client"])
            if client is not None:
                self.console.keyboard.revoke(client)
                self.console.dismiss(client, message["reason"])

    def _mode(self, message: Message, _fds: list[int]) -> None:
        if self.console is not None:
            self.console.change_mode(message)

    def _settings(self, message: Message, _fds: list[int]) -> None:
        self.shell.settings = message["settings"]
        self.shell.log.level = self.shell.settings["log_level"]
        if self.console is not None:
            self.console.apply_settings()

    def _in_doubt(self, _message: Message, _fds: list[int]) -> None:
        if self.console is not None:
            self.console.journal.look_for_doubts()

    def _reopen(self, _message: Message, _fds: list[int]) -> None:
        if self.console is not None:
            self.console.reopen()

    def _quit(self, message: Message, _fds: list[int]) -> None:
        if self.console is not None and self.connection is not None:
            # What has arrived is ours: the VM's host has forgotten it.
            self.connection.drain()
        if self.console is not None:
            self.console.close(message["reason"])
        if self.connection is not None and not self.connection.closed:
            self.connection.end()
        self.shell.leave()

    def _orphaned(self) -> None:
        self._quit({"reason": "vspcd has ended"}, [])

    def _retire(self, _message: Message, _fds: list[int]) -> None:
        """Another worker goes on from here: end between two turns, and leave all connections as they are."""
        if self.console is not None and self.connection is not None:
            self.facts.settle(self.console, self.connection.session)
        self.shell.retire()

    # The console's VM.

    def connect(self, connection: Connection, early: bytes = b"") -> None:
        """This connection of our VM feeds the console from now on, and is typed to."""
        reached("connect.begin")
        console = self.console_of_ours
        console.journal.event("connected", {"peer": connection.peer})
        self.feed(connection, early)
        if connection.session.name is not None:
            console.rename(connection.session.name)
        console.notice(f"connected from {connection.peer}")
        console.type_to(connection.leg)
        reached("connect.booked")
        try:
            connection.release()
            connection.resume()
            connection.send_replies()
        except (LegGone, PeerError) as error:
            self.ended(connection, str(error))
        self.pump()
        self.facts.note(console, connection.session)
        reached("connect.done")

    def feed(self, connection: Connection, early: bytes) -> None:
        """What this connection says is the console's from now on; ``early``: what it has said before."""
        console, page = self.console_of_ours, self.shell.page
        self.connection = connection
        connection.handlers = self
        page.words[LEG] = connection.leg.number
        # The answers that wait are told before they are sent: whoever goes on sends them once.
        connection.queue_replies()
        self.memory.vm_changed()
        told = described(connection, page.words[HEAD], early=early)
        self.shell.tell("connected", leg=connection.leg.number, session=told, move=self.moves.unrecorded())
        reached("connect.told")
        if early:
            console.fanout.said(early)
        connection.leg.note_reading(page)

    def disconnect(self, reason: str) -> None:
        """The console has no VM any more."""
        number = self.shell.page.words[LEG]
        connection, self.connection = self.connection, None
        if self.console is None or not number:
            return
        reached("disconnect.begin")
        peer = self.moves.source_peer
        if connection is not None:
            peer = connection.peer
            self.facts.settle(self.console, connection.session)
            connection.end()
        self.shell.page.words[LEG] = 0
        self.console.type_to(None)
        self.console.journal.event("disconnected", {"peer": peer, "reason": reason})
        self.console.notice("disconnected" if reason in (CLOSED, TLS_ENDED) else f"disconnected: {reason}")
        self.memory.vm_changed()
        self.shell.tell("disconnected", leg=number, reason=reason)
        reached("disconnect.told")

    def switch(self, target: Connection, early: bytes) -> None:
        """The VM has moved: what the source said last, then what the target says."""
        source = self.connection
        # From here on the source's end, or what its host still says, is nobody's business but the log's.
        self.connection = target
        target.handlers = self
        if source is not None and not source.closed:
            source.drain()
            source.end()
            self.shell.tell("closed", leg=source.leg.number)
        reached("move.drained")
        self.feed(target, early)
        reached("move.switched")
        if not target.closed:
            target.resume()
        self.facts.note(self.console_of_ours, target.session)

    def lost(self, reason: str) -> None:
        """The VM is gone, after a move that failed."""
        if self.connection is not None and not self.connection.closed:
            self.ended(self.connection, reason)
            return
        self.disconnect(reason)
        self.idle_if_alone()

    def pump(self) -> None:
        """Let typing go on."""
        try:
            self.console_of_ours.keyboard.pump()
        except LegGone as gone:
            self._leg_broke(str(gone))

    def _leg_broke(self, reason: str) -> None:
        connection = self.connection
        if connection is not None and connection.in_turn:
            # What this turn has dealt with must be consumed before the rest is looked at.
            self.shell.loop.call_later(0, lambda: self.ended_since(connection, reason))
        elif connection is not None:
            self.ended(connection, reason)

    def ended_since(self, connection: Connection, reason: str) -> None:
        """A connection was found to be over; by now that may be known."""
        if connection is self.connection and not connection.closed:
            self.ended(connection, reason)

    def _broke(self) -> None:
        """The VM was sent a break in telnet's words. If it wants to be told in those of COM-PORT, it is, once this
        turn is over: replies must not come between what is typed."""
        if self.connection is not None and self.connection.session.wants_breaks:
            self.shell.loop.call_later(0, self._tell_of_break)

    def _tell_of_break(self) -> None:
        connection = self.connection
        if connection is None:
            return
        connection.session.notify_break()
        try:
            connection.queue_replies()
            self.changed(connection)  # before it is sent: whoever goes on must not send it again
            connection.send_replies()
        except (LegGone, PeerError) as error:
            self.ended(connection, str(error))

    def idle_if_alone(self) -> None:
        """Nobody needs this worker when its console has neither a VM nor a client, and all that was said is logged."""
        alone = self.connection is None and not self.moves.machine.under_way
        if self.console is not None and alone and not self.console.clients and not self.console.journal.waits:
            self.shell.tell("idle")

    # What the connection brings.

    def data(self, connection: Connection, data: Buffer) -> None:
        """The serial port said this."""
        assert self.console is not None
        self.console.fanout.said(data)

    def event(self, connection: Connection, event: Event) -> None:
        """The VM's host said this."""
        assert self.console is not None
        if connection is not self.connection:
            return
        if isinstance(event, BadIdentity):
            raise PeerError(event.reason)
        if isinstance(event, (VmotionBegin, VmotionAbort)):
            self.moves.source_event(event)
        elif isinstance(event, VmotionPeer):
            connection.session.unknown(VMOTION_PEER)
        self.facts.heard(event, self.console_of_ours, connection.session)

    def changed(self, connection: Connection, size: int = 0) -> None:
        """Let the master know how things stand: it is what another worker would go on from."""
        if not connection.in_turn:
            told = described(connection, self.shell.page.words[HEAD], size)
            self.shell.tell("session", leg=connection.leg.number, session=told, move=self.moves.state())

    def turn_over(self, connection: Connection) -> None:
        """Everything has been dealt with as it came."""

    def room(self, connection: Connection) -> None:
        """The VM takes bytes again."""
        assert self.console is not None
        self.console.keyboard.pump()

    def ended(self, connection: Connection, reason: str) -> None:
        """The VM's connection is over; its console is not. What it has said before is its console's."""
        if connection is self.connection:
            connection.last_words()
        contest = self.takeover.withdraw()
        if self.moves.source_may_leave and connection is self.connection:
            self.moves.happened(vmotion.SOURCE_GONE)
        elif connection is self.connection:
            self.disconnect(reason)
        if contest is not None:
            contest.decide(alive=False)
        self.idle_if_alone()
