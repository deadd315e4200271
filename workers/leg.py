"""A leg: the connection towards the VM.

Does: peeks at what has arrived and consumes it once it is dealt with, sends what fits, holds protocol replies
that do not fit yet.
Owns: its socket, and replies that wait for room, up to ``OUT_LIMIT``.
Never: interprets a byte; blocks. A leg is always a plaintext descriptor, so it can be handed to another
process.

Bytes stay in the kernel until they are in the journal and out at the clients: a worker that dies in between
has lost nothing. What cannot be consumed yet, such as an escape cut in two, must not wake the loop again and
again: SO_RCVLOWAT keeps it asleep until more has come.

A leg can *hold* what is dealt with: the kernel keeps it, and whoever goes on sees the connection from its first byte.
"""

from __future__ import annotations

import os
import socket
from typing import Optional

from vspcd.proto.errors import PeerError
from vspcd.unix import tcpinfo
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import PEER_CLOSED, READ, WRITE, Handler, Loop
from vspcd.unix.lowwater import LowWater
from vspcd.unix.page import BYTES_OUT, HALF, HALF_AT, HALF_LEG, HEAD, INTENT, READ_UP_TO, SENT_UP_TO, Page

OUT_LIMIT = 8192
"""Bytes: what waits is told to the master, and a message to it has its limit."""

NO_DATA = -1
PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
DISCARD = socket.MSG_TRUNC | socket.MSG_DONTWAIT
SOMEBODY = 1
"""Stands for the number of a client that nobody remembers."""

SEND = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT


class LegGone(Exception):
    """The connection has ended; the text says how."""


class Leg:
    """One VM connection. ``number`` is the master's name for it, ``peer`` the far end as ``host:port``."""

    def __init__(self, number: int, sock: socket.socket, peer: str, secured: bool = False) -> None:
        sock.setblocking(False)
        self.number = number
        self.sock = sock
        self.peer = peer
        self.secured = secured  # the far end is a TLS helper of ours
        self.out = bytearray()
        self.taken = tcpinfo.consumed(sock)  # bytes that are dealt with
        self.held = 0  # how many of them the kernel still has
        self.hold = 0  # how many it may have to keep
        self.given = tcpinfo.given(sock)
        self.half = b""  # the other half of an escape that was cut: it goes before anything else
        self.half_of = 0  # the client that typed it
        self.typed = 0  # bytes given that belong to the batch on its way
        self.replied = 0  # bytes given that were replies, by this worker's count and its predecessors'
        self.already_out = 0  # replies that a dead worker has sent and that will be made again
        self._reading: Optional[Page] = None  # where it is noted how far the peer's bytes are dealt with
        self._sending: Optional[Page] = None  # where it is noted what was given to the peer
        self._loop: Optional[Loop] = None
        self._read = True
        self._blocked = False
        self._low_water = LowWater(sock)
        self.sleep_until(1)  # another process may have left another mark on the socket

    def note_reading(self, page: Page) -> None:
        """The console is fed from here: note from now on how far, so that another process can go on."""
        self._reading = page
        page.put(READ_UP_TO, self.number, self.taken, page.words[HEAD])

    def note_sending(self, page: Page, typed: int) -> None:
        """The console types to here: note from now on what was given. ``typed`` of the batch on its way is out."""
        self._sending = page
        self.typed = typed
        # What the intent belongs to is not noted before this: it is forgotten behind it.
        self._note_sent()
        page.words[INTENT] = 0

    # Events.

    def serve(self, loop: Loop, handler: Handler) -> None:
        """Call ``handler`` when there is something to read, or room to write that was asked for."""
        self._loop = loop
        loop.watch(self.sock.fileno(), self._events(), handler)

    def _events(self) -> int:
        reading = READ | PEER_CLOSED if self._read else 0
        return reading | (WRITE if self._blocked else 0)

    def _update(self) -> None:
        if self._loop is not None:
            self._loop.change(self.sock.fileno(), self._events())

    def pause(self) -> None:
        """Read no more; the kernel buffers, and in the end the VM's host waits."""
        self._read = False
        self._update()

    def resume(self) -> None:
        """Read again."""
        self._read = True
        self._update()

    def want_room(self, wanted: bool) -> None:
        """Whether to be called when there is room to write."""
        if self._blocked != wanted:
            self._blocked = wanted
            self._update()

    # Reading.

    def peek(self, buffer: memoryview) -> int:
        """Look at what has arrived: bytes put into ``buffer``, 0 at the end, NO_DATA. Raises LegGone.

        While something is held, the end cannot be seen.
        """
        try:
            seen = self.sock.recv_into(buffer, 0, PEEK)
        except (BlockingIOError, InterruptedError):
            return NO_DATA
        except OSError as error:
            raise LegGone(os.strerror(error.errno or 0)) from None
        if self.held:
            seen -= self.held
            buffer[:seen] = buffer[self.held : self.held + seen]
            return seen or NO_DATA
        return seen

    def hides(self, seen: int, buffer: memoryview) -> bool:
        """Whether more has come than the ``seen`` bytes that can be seen: urgent data stands in the way."""
        if tcpinfo.unread(self.sock) <= self.held + seen:
            return False
        return self.peek(buffer) == seen  # what has come just now can be seen

    def consume(self, size: int, buffer: memoryview) -> None:
        """``size`` bytes of those seen are dealt with.

        With MSG_TRUNC the kernel discards without copying: ``buffer`` only lends its length.
        """
        self.taken += size
        if self.held + size <= self.hold:
            self.held += size
            reached("leg.held")
            return
        if self._reading is not None:
            self._reading.put(READ_UP_TO, self.number, self.taken, self._reading.words[HEAD])
        reached("leg.consume")
        size, self.held = self.held + size, 0
        self.discard(size, buffer)
        reached("leg.consumed")

    def release(self, buffer: memoryview) -> None:
        """Let the kernel forget all that is held. Raises LegGone."""
        size, self.held = self.held, 0
        self.discard(size, buffer)
        self.sleep_until(1)

    def _forget(self, size: int, buffer: memoryview) -> int:
        try:
            forgotten = self.sock.recv_into(buffer, min(size, len(buffer)), DISCARD)
        except (BlockingIOError, InterruptedError):
            forgotten = 0
        except OSError as error:
            raise LegGone(os.strerror(error.errno or 0)) from None
        if not forgotten:
            raise LegGone("somebody else has read from it")
        return forgotten

    def discard(self, size: int, buffer: memoryview) -> None:
        """Let the kernel forget these bytes. Raises LegGone."""
        left = size
        while left > 0:
            left -= self._forget(left, buffer)
            reached("leg.forget")

    def sleep_until(self, low_water: int) -> None:
        """Do not wake up before this many bytes are there: the ones seen are half a message."""
        self._low_water.set(self.held + low_water)

    # Writing.

    def send(self, data: bytes | memoryview, client: int) -> int:
        """Give the VM what a client typed, in wire form: how many bytes the kernel took. Raises LegGone."""
        sent = self._send(data, client)
        self.typed += sent
        self._note_sent()
        if self._sending is not None:
            self._sending.words[BYTES_OUT] += sent
        return sent

    def _send(self, data: bytes | bytearray | memoryview, client: int) -> int:
        if self._sending is not None:
            self._sending.words[INTENT] = client
        reached("leg.send")
        try:
            sent = self.sock.send(data, SEND)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise LegGone(os.strerror(error.errno or 0)) from None
        self.given += sent
        reached("leg.sent")
        return sent

    def _note_sent(self) -> None:
        if self._sending is not None:
            self._sending.put(SENT_UP_TO, self.number, self.given, self.typed, self.replied)
            reached("leg.noted")

    def cut(self, half: bytes, client: int) -> None:
        """An escape that ``client`` typed was cut: this is its other half, which goes before anything else."""
        self.half, self.half_of = half, client
        if half and self._sending is not None:
            words = self._sending.words
            words[HALF] = 0
            words[HALF_AT] = self.given
            words[HALF] = HALF_LEG * self.number + half[0]

    def resume_half(self, page: Page) -> None:
        """A dead worker may have cut an escape, of somebody who has left since."""
        leg, half = divmod(page.words[HALF], HALF_LEG)
        if leg == self.number and page.words[HALF_AT] == self.given:
            self.half, self.half_of = bytes((half,)), SOMEBODY

    def begin_batch(self, typed: int) -> None:
        """What is sent from now on belongs to another batch, of which ``typed`` bytes are out already."""
        self.typed = typed
        self._note_sent()

    def reply(self, data: bytes) -> None:
        """Queue a protocol reply; ``flush`` sends it. PeerError when the VM asks without ever reading answers."""
        if len(self.out) + len(data) > OUT_LIMIT:
            raise PeerError("it does not read the answers to its requests")
        self.out += data

    def flush(self) -> bool:
        """Send the replies that wait; whether none waits any more. Raises LegGone."""
        if self.half:
            if not self.send(self.half, self.half_of):
                return False
            self.half = b""
        if self.already_out:
            skip = min(self.already_out, len(self.out))
            self.already_out -= skip
            del self.out[:skip]
        while self.out:
            sent = self._send(self.out, 0)
            if not sent:
                return False
            self.replied += sent
            self._note_sent()
            del self.out[:sent]
        return True

    # The end.

    def last_word(self, text: bytes) -> None:
        """Say a last thing; what the peer still sends can be read."""
        try:
            if text:
                self.sock.send(text, SEND)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it does not listen any more

    def say_no_more(self) -> None:
        """Close our side; what the other still says can be read up to its end."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is over already

    def end(self) -> None:
        """End the connection at once."""
        shut_down(self.sock)
        self.close()

    def detach(self) -> None:
        """Watch the connection no longer; somebody else will, or nobody."""
        if self._loop is not None:
            self._loop.forget(self.sock.fileno())
            self._loop = None

    def close(self) -> None:
        """Let go of the connection; a duplicate in another process keeps it alive."""
        if self._loop is not None and self.sock.fileno() >= 0:
            self._loop.forget(self.sock.fileno())
        self.sock.close()


def shut_down(sock: socket.socket) -> None:
    """End a connection for both sides, whoever else holds a duplicate."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over already
