"""The connection to a console's worker: frames both ways through a bounded buffer.

Does: sends what is typed a packet at a time, gives what has come frame by frame, knows which console bytes are new.
Owns: the socket, what waits to be sent, and the journal position up to which the console's bytes have come.
Never: blocks, but in ``hand_over``, for a bounded time; shows anything.
"""

from __future__ import annotations

import array
import select
import socket
import termios
import time
from fcntl import ioctl
from typing import Optional

from vspcd.proto import attach

PACKET = 1 << 18  # more than the longest packet of frames
INPUT_LIMIT = 1 << 20
"""Bytes that may wait for the worker."""
HAND_OVER_DEADLINE = 2.0
"""Seconds for what was typed before the end to reach the worker."""


class Link:
    """One attachment. ``read`` raises what ``attach.frames`` does."""

    def __init__(self, worker: int) -> None:
        """Takes ownership of the descriptor ``worker``."""
        self._socket = socket.socket(fileno=worker)
        self._socket.setblocking(False)
        self._received = bytearray()
        self._waiting = bytearray()
        self._position: Optional[int] = None  # the journal position up to which it has come
        self.sent = 0
        """Bytes that were typed."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def waiting(self) -> int:
        """Bytes that the worker has not taken yet."""
        return len(self._waiting)

    @property
    def untaken(self) -> int:
        """What the kernel holds of all that was sent; 0: the worker has dealt with it. Until then it only peeks."""
        held = array.array("i", [0])
        ioctl(self._socket.fileno(), termios.TIOCOUTQ, held, True)
        return held[0]

    def has_room(self, size: int) -> bool:
        return len(self._waiting) + size <= INPUT_LIMIT

    def type(self, data: bytes) -> None:
        """Send this to the VM, as soon as the worker takes it."""
        self._waiting += attach.frame(attach.INPUT, data, self.sent)
        self.sent += len(data)

    def send_break(self) -> None:
        self._waiting += attach.frame(attach.BREAK, offset=self.sent)
        self.sent += 1

    def write(self) -> bool:
        """Send one frame; whether the worker took it."""
        try:
            # A frame is a packet: it arrives whole or not at all, whatever becomes of the console's process.
            _, end = attach.frames(self._waiting[:PACKET])[0]
            sent = self._socket.send(self._waiting[:end], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self._waiting.clear()  # What it has said before its end is still to be read.
            return False
        del self._waiting[:sent]
        return True

    def read(self) -> Optional[list[attach.Frame]]:
        """The frames that have come; None: the worker has gone. Raises PeerError."""
        try:
            data = self._socket.recv(PACKET)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self._received += data
        found = attach.frames(self._received)
        if found:
            del self._received[: found[-1][1]]
        return [frame for frame, _ in found]

    def new(self, frame: attach.Frame) -> bytes:
        """What of a DATA frame has not come before: a process that went on for a dead one may repeat its last frame."""
        known = 0 if self._position is None else max(0, self._position - frame.offset)
        self._position = max(self._position or 0, frame.offset + len(frame.payload))
        return frame.payload[known:]

    def hand_over(self) -> None:
        """Send what was typed before the end, as far as the worker takes it."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLOUT)
        deadline = time.monotonic() + HAND_OVER_DEADLINE
        while self._waiting and poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            self.write()

    def close(self) -> None:
        self._socket.close()
