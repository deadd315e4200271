"""A VM's connection: a leg together with the telnet session that runs on it.

Does: reads the leg in turns, splits console data from protocol, sends the session's replies.
Owns: the leg and its session.
Never: knows whose console it is; its handlers do.

A turn is: peek, hand on, reply, consume. Whatever a handler learns from a byte has happened before the kernel
forgets the byte. What changes the session must be with the master by then: while that does not listen, protocol waits
in the kernel, and only console bytes are dealt with. While it is not known whose the connection is, the kernel keeps
what was consumed (``Leg.hold``).
"""

from __future__ import annotations

import mmap
from typing import Callable, Optional, Protocol

from vspcd.core.journal import Buffer
from vspcd.proto import telnet
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware import Session
from vspcd.proto.vmware_codes import Event
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import HANGUP, PEER_CLOSED, READ, WRITE, Loop
from workers.leg import NO_DATA, Leg, LegGone

BUFFER = 262144
DRAIN_TURNS = 256
"""More than a receive buffer holds; what still comes behind that has not arrived yet."""

MESSAGES_PER_TURN = 200
"""A flood of protocol messages must not keep the console's clients and the master waiting."""

TOKENS_AT_ONCE = 2 * MESSAGES_PER_TURN
"""What is cut up beyond a turn's messages is cut up again in the next one. Between two messages is one run of data."""

PIECE = 65536
"""Bytes that are searched at once: few enough to stay in the processor's cache when they are copied for that."""

CLOSED = "closed by the VM's host"
TLS_ENDED = "its TLS connection has ended"
NO_EXTENSION = telnet.Negotiation(telnet.WONT, telnet.VMWARE)


class Listener(Protocol):
    """Who is told how connections stand."""

    def is_heard(self) -> bool:
        """Whether what is told now is there at once."""

    def when_heard(self, call: Callable[[], None]) -> None:
        """Call once when that is so."""


class Room:
    """The memory into which a process peeks; one for all its legs. Untouched pages cost nothing."""

    def __init__(self, listener: Listener) -> None:
        self.view = memoryview(mmap.mmap(-1, BUFFER))
        self.listener = listener


class Handlers(Protocol):
    """Who deals with what a connection brings. ``tells_all``: console bytes change what others must know of it."""

    tells_all: bool

    def data(self, connection: Connection, data: Buffer) -> None:
        """The VM's serial port said this."""

    def event(self, connection: Connection, event: Event) -> None:
        """The VM's host said this."""

    def changed(self, connection: Connection, size: int = 0) -> None:
        """The session is in another state than before, and ``size`` bytes are about to be consumed."""

    def turn_over(self, connection: Connection) -> None:
        """What was seen is dealt with and consumed. May raise LegGone and PeerError."""

    def room(self, connection: Connection) -> None:
        """The connection takes bytes again. May raise LegGone."""

    def ended(self, connection: Connection, reason: str) -> None:
        """The connection is over, or the peer broke the protocol."""


class Connection:
    """A leg and its session; ``handlers`` may be exchanged when the connection gets another duty."""

    def __init__(self, leg: Leg, session: Session, room: Room, handlers: Handlers) -> None:
        self.leg = leg
        self.session = session
        self.handlers = handlers
        self.paused = False
        self.closed = False
        self.silent = True
        self.declined = False  # it has said that it does not speak VMware's extension
        self.in_turn = False
        self.talked = False  # there was protocol in this turn
        self._more = False  # the turn ended before all that was whole had been dealt with
        self._over = False  # what it still says is handed on, and not answered
        self._waiting = False  # for the master to listen
        self._unwatched = False  # its end has been seen meanwhile
        self._last = False  # what has arrived is dealt with now or never
        self._view = room.view
        self._listener = room.listener
        self._loop: Optional[Loop] = None

    @property
    def peer(self) -> str:
        """The far end, ``host:port``."""
        return self.leg.peer

    def serve(self, loop: Loop) -> None:
        """Begin to read."""
        self._loop = loop
        self.leg.serve(loop, self._ready)

    def pause(self) -> None:
        """Read no more, not even the rest of this turn."""
        self.paused = True
        self.leg.pause()

    def resume(self) -> None:
        """Read again."""
        self.paused = False
        if not self._waiting:
            self.leg.resume()

    def _may_tell(self) -> bool:
        """Whether what changes the session can be told. If not, nothing is read until it can."""
        if self._last or self._listener.is_heard():
            return True
        if not self._waiting:
            self._waiting = True
            self.leg.pause()
            self._listener.when_heard(self._read_on)
        return False

    def _read_on(self) -> None:
        self._waiting = False
        if self.closed:
            return
        if self._unwatched and self._loop is not None:
            self._unwatched = False
            self.leg.serve(self._loop, self._ready)
        if not self.paused:
            self.leg.resume()

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self.handlers.room(self)
            if self._waiting:
                self._note_end(events)
            elif events & (READ | HANGUP | PEER_CLOSED) and not self.closed and not self.paused:
                self._read(events)
            elif events & HANGUP and not self.closed:
                self._fail("it was reset")
        except LegGone as gone:
            self._fail(str(gone))
        except PeerError as fault:
            # What was dealt with before the fault is not consumed, and must not be seen again.
            self.paused, self.in_turn = True, False
            self._fail(f"protocol error: {fault}")

    def _note_end(self, events: int) -> None:
        """An end is reported again and again: it is looked at when there is somebody to tell."""
        if events & HANGUP and not self.closed:
            self.leg.detach()
            self._unwatched = True

    def _read(self, events: int) -> None:
        if self.handlers.tells_all and not self._may_tell():
            return
        seen = self.leg.peek(self._view)
        if seen == 0 or (seen == NO_DATA and self.leg.held and events & PEER_CLOSED):
            self._fail(TLS_ENDED if self.leg.secured else CLOSED)
            return
        if seen == NO_DATA:
            if self.leg.held and events & HANGUP:
                self._fail("it was reset")
            return
        self.silent = False
        reached("leg.peeked")
        size = self._turn(seen)
        if self.closed:
            return
        if self.paused or (self._more and size < seen):
            self.leg.sleep_until(1)  # what is left may well be whole
            self.handlers.turn_over(self)
            return
        self.leg.sleep_until(seen - size + 1)
        if size == 0 and (events & PEER_CLOSED or seen == BUFFER):
            self._fail("closed by the VM's host in the middle of a message")
        elif size == 0 and self.leg.hides(seen, self._view):
            self._fail("urgent data in the middle of a message")

    def _turn(self, seen: int) -> int:
        """Deal with what is complete of what was seen: its size. Raises LegGone when all is done but the replies."""
        self.in_turn = True
        size = self._hand_on(seen)
        self.in_turn = False
        if self.closed or not size:
            return size
        reached("turn.parsed")
        unable = self._reply()
        reached("turn.replied")
        if self.talked or self.handlers.tells_all:
            self.handlers.changed(self, size)
            reached("turn.told")
        self.leg.consume(size, self._view)
        if unable is not None:
            raise unable
        return size

    def _reply(self) -> Optional[LegGone]:
        """Send the replies; what went wrong must wait until the turn is consumed."""
        if self._over:
            self.session.take_output()
            return None
        try:
            self.send_replies()
        except LegGone as gone:
            return gone
        return None

    def _has_iac(self, seen: int) -> bool:
        """Whether there is an IAC in what was seen. In bytes, memchr looks for it: an expression, which could look into
        the buffer as it is, takes fifteen times as long as the copy and the search together."""
        view, at = self._view, 0
        while at < seen:
            if telnet.IAC in bytes(view[at : min(at + PIECE, seen)]):
                return True
            at += PIECE
        return False

    def _hand_on(self, seen: int) -> int:
        """Deal with the complete part of what was seen: its size."""
        if not self._has_iac(seen):
            self._more = self.talked = False
            self.handlers.data(self, self._view[:seen])
            return seen
        seen_bytes = bytes(self._view[:seen])
        size = messages = 0
        self._more = self.talked = False
        while found := telnet.tokens(seen_bytes[size:] if size else seen_bytes, most=TOKENS_AT_ONCE):
            begin = size
            for token, end in found:
                if not isinstance(token, bytes) and not self._may_tell():
                    self._more = True
                    return size
                if isinstance(token, bytes):
                    self.handlers.data(self, token)
                else:
                    self._protocol(token)
                size = begin + end
                messages += not isinstance(token, bytes)
                if self.closed or self.paused or messages >= MESSAGES_PER_TURN:
                    self._more = True
                    return size
            # A fault is reported only when it stands first: look at what is left once more.
        return size

    def _protocol(self, token: telnet.Negotiation | telnet.Command | telnet.Subnegotiation) -> None:
        self.declined = self.declined or token == NO_EXTENSION
        self.talked = True
        for event in self.session.receive(token):
            if not self.closed:
                self.handlers.event(self, event)

    def queue_replies(self) -> None:
        """What the session wants to say waits for room from now on. Raises PeerError."""
        replies = self.session.take_output()
        if replies:
            self.leg.reply(replies)

    def send_replies(self) -> None:
        """Send what the session wants to say, as far as there is room. Raises LegGone, PeerError."""
        self.queue_replies()
        if self.leg.out:
            self.handlers.room(self)

    def release(self) -> None:
        """Let the kernel forget what is held. Raises LegGone."""
        self.leg.release(self._view)

    def drain(self) -> None:
        """Hand on all that has arrived already: the last words of a connection that is about to be replaced."""
        self._last = True  # whoever goes on finds its end, and needs to know nothing else of it
        for _ in range(DRAIN_TURNS):
            if self.closed or self.paused or not self._drained_some():
                return

    def _drained_some(self) -> bool:
        before = self.leg.taken
        try:
            self._read(PEER_CLOSED)
        except LegGone:
            pass  # it takes nothing more, and may have said more than was looked at
        except PeerError:
            self.paused, self.in_turn = True, False  # as in any turn
        return self.leg.taken != before

    def last_words(self) -> None:
        """The connection is over: hand on all that has arrived, and tell nobody of its end. Not within its turn."""
        if not self._over and not self.in_turn:
            self._over = True
            self.drain()

    def _fail(self, reason: str) -> None:
        if not self.closed and not self._over:
            self.handlers.ended(self, reason)

    def end(self) -> None:
        """End the connection for both sides."""
        self.closed = True
        self.leg.end()

    def let_go(self) -> None:
        """Another process has it now."""
        self.closed = True
        self.leg.close()
