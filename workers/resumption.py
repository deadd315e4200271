"""Going on for a worker that died: what its notes and the kernel's counters say together.

Does: finds out how far the dead worker was with its VM, and makes a connection that goes on from there.
Owns: nothing.
Never: guesses. What was noted before and counted since is all there is.
"""

from __future__ import annotations

from typing import NamedTuple

from vspcd.proto.control import Message
from vspcd.proto.vmware import Session
from vspcd.unix import tcpinfo
from vspcd.unix.page import INTENT, READ_UP_TO, SENT_UP_TO, TYPIST, Page
from workers.connection import Connection, Handlers, Room
from workers.leg import Leg
from workers.shell import socket_of


class Resumed(NamedTuple):
    """A connection, not yet served; ``typed`` bytes of the batch that was on its way are with the VM.

    ``through``: all that the dead worker has logged is consumed.
    """

    connection: Connection
    typed: int
    through: bool


def resume(
    message: Message, fd: int, page: Page, services: tuple[str, ...], room: Room, handlers: Handlers
) -> Resumed:
    """The VM's connection as the dead worker left it. Raises OSError or LegGone when it has ended since."""
    leg = Leg(message["leg"], socket_of(fd), message["peer"], message["secured"])
    leg.out += bytes.fromhex(message["session"]["unsent"])
    session = Session.restore(message["session"]["telnet"], services)
    taken, _, replied_by_then = page.get(READ_UP_TO)
    told_last = message["session"]["taken"] > taken
    if told_last:
        # It died between its word to the master and its note: it was through with the turn all the same.
        taken, replied_by_then = message["session"]["taken"], message["session"]["replied"]
    leg.discard(taken - tcpinfo.consumed(leg.sock), room.view)
    given, typed, leg.replied = page.get(SENT_UP_TO)
    more = tcpinfo.given(leg.sock) - given
    if page.words[INTENT]:
        typed += more
    else:
        leg.replied += more
    leg.already_out = leg.replied - replied_by_then
    leg.typed = typed
    return Resumed(Connection(leg, session, room, handlers), typed, told_last)


def typist(page: Page) -> int:
    """The number of the client whose batch was on its way, 0 for none."""
    return page.words[TYPIST]
