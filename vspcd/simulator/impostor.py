"""Somebody who plays a VM that he is not, to be typed to: what an attacker plugs into the network.

Does: claims the VM's console again and again, in turn as the VM that was just switched on and as the target of
a vMotion with a guessed ticket; shows a login prompt to whoever believes it.
Owns: nothing.
Never: gets any further with a concentrator that does its part.
"""

from __future__ import annotations

import os

from vspcd.simulator import vm
from vspcd.simulator.connection import Connection
from vspcd.simulator.guests import Guest
from vspcd.simulator.host import SHOWN_LIMIT, SerialPort

SEQUENCE_SIZE, SECRET_SIZE = 4, 8


class Login(Guest):
    """Asks who is there, and tells what was typed."""

    PROMPT = b"\r\nlogin: "

    async def run(self) -> None:
        self.output.append(self.PROMPT)
        while True:
            await self.input.ready()
            typed = self.input.peek()
            self.input.consume(len(typed))
            self.report(f"somebody typed {len(typed)} bytes: {ascii(typed[:SHOWN_LIMIT])[2:-1]}")


class ImpostorPort(SerialPort):
    """The port of a VM that is somebody else's."""

    _as_target = False

    async def dial(self) -> Connection:
        """Try the other way in than the last time. Raises OSError."""
        ticket = guessed_ticket() if self._as_target else None
        self._as_target = not self._as_target
        return await self.open_connection(self.source, ticket, identity_first=True)

    def on_event(self, connection: Connection, event: vm.Event) -> None:
        """Go on with a ticket that was taken; give up one that was not."""
        if isinstance(event, vm.PeerOk):
            connection.machine.complete()
            self.accepted += 1
            self.report("accepted: a guessed vMotion ticket")
        elif isinstance(event, vm.PeerUnknown):
            self.refused += 1
            self.report("refused: a guessed vMotion ticket")
            connection.shut()
        super().on_event(connection, event)


def guessed_ticket() -> vm.Ticket:
    """A ticket of the right form."""
    sequence = os.urandom(SEQUENCE_SIZE)
    return vm.Ticket(sequence, sequence + os.urandom(SECRET_SIZE))
