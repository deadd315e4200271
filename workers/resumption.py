"""What a worker tells of a VM's connection, and going on from there when the worker is dead.

Does: describes a connection so that another process can go on with it; finds out how far the dead one was, from what it
told, what it noted in its page, and what the kernel counts.
Owns: nothing.
Never: guesses.

A description is told after each turn in which the VM's host said more than console bytes, before the turn is
consumed, and before anything is said to the host of our own accord. The page is noted at each step in between. Of the
two, the one that is further is in force.

While it is not known whose the connection is, nothing of it is consumed and nothing needs to be told: whoever goes on
negotiates from the first byte again, and leaves out what was said already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vspcd.proto.control import Message
from vspcd.proto.vmware import Session
from vspcd.unix.failpoint import reached
from vspcd.unix.page import INTENT, READ_UP_TO, SENT_UP_TO, Page
from workers.connection import Connection, Handlers, Room
from workers.leg import Leg, LegGone
from workers.shell import socket_of

NOWHERE = -1  # the position of a connection that does not feed the console


def described(connection: Connection, head: int, size: int = 0, early: bytes = b"") -> dict[str, Any]:
    """A connection for whoever goes on with it.

    ``head`` is the journal position that belongs to it. ``size`` bytes are dealt with and about to be consumed.
    ``early`` are console bytes that are consumed and not yet in the journal.
    """
    leg = connection.leg
    return {
        "telnet": connection.session.snapshot(),
        "unsent": bytes(leg.out).hex(),
        "early": early.hex(),
        "head": head,
        "taken": leg.taken + size,
        "given": leg.given,
        "replied": leg.replied,
        "again": leg.already_out,
    }


class Resumed(NamedTuple):
    """A connection, not yet served, and what its description leaves to do.

    ``head``: the journal position that belongs to the next byte from it, or NOWHERE. ``early``: what the journal lacks.
    ``typed``: bytes of the batch on its way that it was given since that was noted.
    """

    connection: Connection
    head: int
    early: bytes
    typed: int


def resume(
    message: Message, fd: int, page: Page, services: tuple[str, ...], room: Room, handlers: Handlers
) -> Resumed:
    """The VM's connection as the dead worker left it. Raises OSError or LegGone when it has ended since."""
    told = message["session"]
    leg = Leg(message["leg"], socket_of(fd), message["peer"], message["secured"])
    leg.out += bytes.fromhex(told["unsent"])
    connection = Connection(leg, Session.restore(told["telnet"], services), room, handlers)
    taken, head, early = told["taken"], told["head"], bytes.fromhex(told["early"])
    noted_leg, noted_taken, noted_head, _ = page.get(READ_UP_TO)
    if noted_leg == leg.number and (noted_taken, noted_head) >= (taken, head):
        taken, head, early = noted_taken, noted_head, b""
    _forget(leg, taken, room)
    reached("resume.discarded")
    typed = _count_sent(leg, told, page)
    leg.resume_half(page)
    return Resumed(connection, head, early, typed)


def restarted(leg: Leg, page: Page) -> bool:
    """A connection of which nothing was told: all is made again. Whether the dead worker had begun to speak."""
    begun = page.get(SENT_UP_TO)[0] == leg.number
    _count_sent(leg, {"given": leg.given, "replied": 0, "again": 0}, page)
    return begun


def _forget(leg: Leg, taken: int, room: Room) -> None:
    """The first ``taken`` bytes are dealt with, and the kernel may have some of them still. Raises LegGone."""
    leg.discard(taken - leg.taken, room.view)
    leg.taken = max(taken, leg.taken)


def _count_sent(leg: Leg, told: Message, page: Page) -> int:
    """Find out which replies are out; how many bytes of typing are, beyond those that were noted."""
    noted_leg, given, _, replied = page.get(SENT_UP_TO)
    if noted_leg != leg.number:
        given, replied = told["given"], told["replied"]
    more = leg.given - given
    of_typing = noted_leg == leg.number and page.words[INTENT] != 0
    leg.replied = replied if of_typing else replied + more
    leg.already_out = leg.replied - told["replied"] + told["again"]
    return more if of_typing else 0


def newcomers(
    told: Message, leg: Leg, services: tuple[str, ...], room: Room, handlers: Handlers
) -> Connection:
    """The connection that another worker has described as a fresh one; nobody has said anything to it since."""
    leg.out += bytes.fromhex(told["unsent"])
    leg.replied, leg.already_out = told["replied"], told["again"]
    try:
        _forget(leg, told["taken"], room)
    except LegGone:
        pass  # the loop reports its end
    return Connection(leg, Session.restore(told["telnet"], services), room, handlers)
