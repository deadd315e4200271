"""A channel: packets of control messages with file descriptors, over a non-blocking SOCK_SEQPACKET socket.

Does: sends what fits, queues the rest up to a limit, receives whole packets with their descriptors.
Owns: its socket, and duplicates of the descriptors of packets that wait to be sent.
Never: blocks; interprets a message (``vspcd.proto.control`` does); leaks a descriptor that came with a bad
packet.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Callable, Optional

from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix.loop import HANGUP, READ, WRITE, Loop

QUEUE_LIMIT = 4096
"""Packets that may wait for a peer that does not read; past it the peer counts as hung."""

FDS_LIMIT = 8
PACKETS_PER_TURN = 64
BUFFER = 1 << 20
CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)


class ChannelClosed(Exception):
    """The other side is gone, or does not read its packets."""


class Channel:
    """One end of a SOCK_SEQPACKET pair, driven by a loop once ``serve`` was called."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._loop: Optional[Loop] = None
        self._on_closed: Optional[Callable[[], None]] = None
        self._on_message: Optional[Callable[[Message, list[int]], None]] = None
        self._waiting: list[Callable[[], None]] = []
        self._roomy = False  # nothing was sent since there was room: there is still

    def fileno(self) -> int:
        """The socket's number."""
        return self.sock.fileno()

    @property
    def backlog(self) -> int:
        """Packets that wait until the other side reads."""
        return len(self._queue)

    def has_room(self) -> bool:
        """Whether some packets that are sent now leave this process at once, or never."""
        if self._queue or self._roomy or self.sock.fileno() < 0:
            return not self._queue
        poller = select.poll()
        poller.register(self.sock.fileno(), select.POLLOUT)
        self._roomy = bool(poller.poll(0))
        return self._roomy

    def when_room(self, call: Callable[[], None]) -> None:
        """Call once when there is room. Not when it is closed before."""
        self._waiting.append(call)
        self._watch_for_room()

    def serve(
        self, loop: Loop, on_message: Callable[[Message, list[int]], None], on_closed: Callable[[], None]
    ) -> None:
        """Deliver packets to ``on_message``; ``on_closed`` is called once when the other side is gone.

        ``on_message`` owns the descriptors that it is given. A packet that is not a message ends the channel.
        """
        self._loop = loop
        self._on_message = on_message
        self._on_closed = on_closed
        loop.watch(self.fileno(), self._events(), self._ready)

    def send(self, message: Message | bytes, fds: Iterable[int] = ()) -> None:
        """Send now or as soon as the other side reads. Raises ChannelClosed when that will not happen, and OSError
        when there is no descriptor left to keep a duplicate in. Bytes are a message that is encoded already.

        The descriptors stay the caller's: what cannot be sent at once is duplicated.
        """
        data = message if isinstance(message, bytes) else control.encode(message)
        fds = list(fds)
        if self.sock.fileno() < 0:
            raise ChannelClosed("the channel is closed")
        if not self._queue and self._transmit(data, fds):
            return
        if len(self._queue) >= QUEUE_LIMIT:
            raise ChannelClosed(f"{QUEUE_LIMIT} packets were not read")
        self._queue.append((data, _duplicates(fds)))
        self._watch_for_room()

    def _transmit(self, data: bytes, fds: list[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._roomy = False
        try:
            self.sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ChannelClosed(os.strerror(error.errno or 0)) from None
        return True

    def flush(self) -> bool:
        """Send what waits; whether nothing waits any more. Raises ChannelClosed."""
        while self._queue:
            data, fds = self._queue[0]
            if not self._transmit(data, fds):
                return False
            self._queue.popleft()
            for fd in fds:
                os.close(fd)
        return True

    def _watch_for_room(self) -> None:
        if self._loop is not None and self._loop.watches(self.fileno()):
            self._loop.change(self.fileno(), self._events())

    def _events(self) -> int:
        return READ | (WRITE if self._queue or self._waiting else 0)

    def _tell_of_room(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._watch_for_room()
        for call in waiting:
            call()

    def packets(self) -> Iterator[tuple[Message, list[int]]]:
        """What has arrived, a bounded number. Raises ChannelClosed at the end, PeerError on a bad packet."""
        for _ in range(PACKETS_PER_TURN):
            try:
                data, ancillary, flags, _ = self.sock.recvmsg(
                    control.PACKET_LIMIT, socket.CMSG_SPACE(FDS_LIMIT * 4), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:
                continue  # it closed without reading everything; what it said before can still be read
            except OSError as error:
                raise ChannelClosed(os.strerror(error.errno or 0)) from None
            fds = _descriptors(ancillary)
            if not data:
                for fd in fds:
                    os.close(fd)
                raise ChannelClosed("the other side has closed")
            try:
                if flags & CUT:
                    raise PeerError("a control packet that is too long")
                message = control.decode(data)
            except PeerError:
                for fd in fds:
                    os.close(fd)
                raise
            yield message, fds

    def _ready(self, events: int) -> None:
        assert self._on_message is not None
        assert self._on_closed is not None
        try:
            if events & WRITE:
                self.flush()
                self._watch_for_room()
                if self._waiting and self.has_room():
                    self._tell_of_room()
            if events & (READ | HANGUP):
                for message, fds in self.packets():
                    self._on_message(message, fds)
                    if self.sock.fileno() < 0:
                        return
        except (ChannelClosed, PeerError):
            self._on_closed()

    def close(self) -> None:
        """Close the socket and drop what waits. Harmless when closed already."""
        if self._loop is not None and self.sock.fileno() >= 0:
            self._loop.forget(self.fileno())
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        self._waiting.clear()
        self.sock.close()


def _duplicates(fds: Iterable[int]) -> list[int]:
    """Duplicates of all descriptors or, with OSError, none."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
