"""Arrival: from a bare connection on the VM port to a negotiation.

Does: waits for what may come before telnet, begins to negotiate, or goes on where a dead worker did; puts aside what
has killed one worker after the other.
Owns: the leg until there is a connection.
Never: reads a byte of telnet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix.failpoint import reached
from workers.connection import Connection
from workers.leg import Leg, LegGone, shut_down
from workers.negotiation import Negotiation
from workers.preamble import Preamble, needed
from workers.quarantine import KILLS, places, put_aside
from workers.resumption import restarted, resume
from workers.shell import Start, socket_of

if TYPE_CHECKING:
    from workers.vmware import VmwareWorker

UNIDENTIFIED = "unidentified"


class Arrival:
    """A VM that ``worker`` has to negotiate with."""

    def __init__(self, worker: VmwareWorker) -> None:
        self._worker = worker
        self.leg: Optional[Leg] = None
        self.preamble: Optional[Preamble] = None

    def begin(self, start: Start) -> None:
        """There is a connection, which may have been another worker's before."""
        self._worker.shell.name(f"negotiating [{start.peer}]")
        reached("negotiate.begin")
        if start.poisoned:
            self._worker.shell.loop.call_later(0, lambda: self._put_aside(start))
        elif start.session is not None:
            self._go_on(start, start.session)
        else:
            leg = Leg(start.leg_number, socket_of(start.leg), start.peer, start.secured)
            begun = restarted(leg, self._worker.shell.page)
            reached("negotiate.counted")
            # Less than nothing is consumed of one that was reset.
            self._await_telnet(leg, start.balancer and leg.taken <= 0, begun or start.secured)

    def _await_telnet(self, leg: Leg, balancer: bool, begun: bool) -> None:
        self.leg = leg
        if begun or not needed(self._worker.shell.settings, balancer):
            self._begin_telnet(leg)
        else:
            self._await_preamble(leg, balancer)

    def _await_preamble(self, leg: Leg, balancer: bool) -> None:
        self.preamble = Preamble(
            self._worker.shell,
            leg,
            balancer,
            lambda: self._begin_telnet(leg),
            lambda reason: self._fail(leg, reason),
        )
        self.preamble.begin()

    def _begin_telnet(self, leg: Leg) -> None:
        worker = self._worker
        worker.session.services = worker.services
        connection = Connection(leg, worker.session, worker.room_for_reading, worker)
        self._negotiate(connection).begin()

    def _negotiate(self, connection: Connection, early: bytes = b"") -> Negotiation:
        worker = self._worker
        worker.shell.name(f"negotiating [{connection.peer}]")
        self.leg = connection.leg
        negotiation = Negotiation(worker.shell, connection, worker.shell.leave, early)
        connection.handlers = negotiation
        connection.serve(worker.shell.loop)
        worker.connection, worker.negotiation = connection, negotiation
        return negotiation

    def _go_on(self, start: Start, told: Message) -> None:
        """A dead worker has told how far it was."""
        worker = self._worker
        message = {"leg": start.leg_number, "peer": start.peer, "secured": start.secured, "session": told}
        try:
            resumed = resume(
                message, start.leg, worker.shell.page, worker.services, worker.room_for_reading, worker
            )
        except (OSError, LegGone) as error:
            self._give_up(str(error))
            return
        reached("negotiate.counted")
        self._negotiate(resumed.connection, resumed.early).resume(told["negotiation"])

    def plaintext(self, _message: Message, fds: list[int]) -> None:
        """A TLS helper has our connection; this is what comes out of it."""
        encrypted = self.leg
        if encrypted is None:
            raise PeerError("plaintext for no connection")
        encrypted.close()
        self._begin_telnet(Leg(encrypted.number, socket_of(fds[0]), encrypted.peer, secured=True))

    def refuse(self, reason: str) -> None:
        """The VM is not let in, before it has said anything."""
        if self.preamble is not None:
            self.preamble.fail(reason)

    def _fail(self, leg: Leg, reason: str) -> None:
        leg.end()
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        self._worker.shell.tell("failed", reason=reason)
        self._worker.shell.loop.call_later(0, self._worker.shell.leave)

    def _put_aside(self, start: Start) -> None:
        """What this connection says has killed one worker after the other; nobody looks at it again."""
        shell, told = self._worker.shell, start.session or {"early": ""}
        leg = socket_of(start.leg)
        kept = put_aside(
            places(shell.settings["log"]), UNIDENTIFIED, leg, before=bytes.fromhex(told["early"])
        )
        reached("negotiate.aside")
        self._give_up(f"{KILLS}; {kept.size} bytes are put aside in {kept.file}")
        shut_down(leg)
