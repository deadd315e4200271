"""One socket of a TLS leg: what waits to be sent to it, and which of its directions are over.

Does: receives and sends without blocking; asks the loop for just those events that can be served.
Owns: its socket and the bytes that wait for room on it; its user bounds them.
Never: knows TLS.

A socket with nothing to be served is not watched at all: a hang-up is reported whether it was asked for or
not, and one that cannot be dealt with yet would wake the loop again and again.
"""

from __future__ import annotations

import socket
from typing import Callable, Optional

from vspcd.unix.loop import READ, WRITE, Loop

SEND = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT


class Side:
    """``ended``: nothing more comes from it. ``shut``: nothing more goes to it. ``gone``: an error was the reason."""

    def __init__(self, loop: Loop, sock: socket.socket, ready: Callable[[], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.waiting = bytearray()
        self.ended = self.shut = self.gone = False
        self._loop = loop
        self._ready = ready

    def receive(self, size: int) -> Optional[bytes]:
        """What has come; empty at the end; None when there is nothing just now."""
        try:
            data = self.sock.recv(size, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self._lost()
            data = b""
        self.ended = not data
        return data

    def send(self, data: bytes) -> None:
        """Send now or as soon as there is room. Once it is shut, data goes nowhere."""
        if not self.shut:
            self.waiting += data
            self.flush()

    def flush(self) -> bool:
        """Send what waits and fits; whether anything did."""
        size = len(self.waiting)
        try:
            while self.waiting:
                del self.waiting[: self.sock.send(self.waiting, SEND)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lost()
        return len(self.waiting) < size

    def _lost(self) -> None:
        """Nothing can be sent any more; what arrived before the error can still be received."""
        self.gone = self.shut = True
        self.waiting.clear()

    def finish(self) -> None:
        """Tell it that nothing more comes, once all that waits is sent."""
        if self.waiting or self.shut:
            return
        self.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost()

    def watch(self, reading: bool) -> None:
        """Be called when there is something to read, if that is wanted, or room for what waits."""
        fd = self.sock.fileno()
        events = (READ if reading and not self.ended else 0) | (WRITE if self.waiting else 0)
        if not events:
            self._loop.forget(fd)
        elif self._loop.watches(fd):
            self._loop.change(fd, events)
        else:
            self._loop.watch(fd, events, self._woken)

    def _woken(self, _events: int) -> None:
        self._ready()

    def close(self) -> None:
        """End both directions; a duplicate in another process does not keep them alive."""
        self._loop.forget(self.sock.fileno())
        self._ready = _nobody  # a helper has no garbage collector that would undo a circle
        self.ended = True
        self._lost()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster
        self.sock.close()


def _nobody() -> None:
    """Whom a closed side calls."""
