"""One connection of a TLS helper: the peer's socket, the plaintext's socket, and the session between them.

Does: pumps both ways; lets neither side run ahead of the other; passes each direction's end on once everything
before it was delivered; ends a handshake that takes too long.
Owns: both sockets, and the bytes on their way between them: at most ``RECEIVE`` and a record towards the
worker, ``RECEIVE`` and ``REPLIES`` towards the peer.
Never: looks into the plaintext; disturbs another leg.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from typing import Callable, NamedTuple

from vspcd.unix.loop import Loop
from workers.tls_session import Secured, Session
from workers.tls_side import Side

RECEIVE = 32768
REPLIES = 65536
"""Bytes that may wait for a peer that is still read: past it, it asks for answers and does not read them."""

LINGER = 60.0
"""Seconds without a byte after which a leg that one side has left ends; the kernel grants orphans as much."""

LAST_WORDS = 2.0
"""Seconds that a peer has to read why its session failed."""


class Reports(NamedTuple):
    """Whom a leg tells. ``failed`` is about the handshake; ``ended`` comes last, and always."""

    secured: Callable[[TlsLeg, Secured], None]
    failed: Callable[[TlsLeg, str], None]
    ended: Callable[[TlsLeg], None]


class TlsLeg:
    """``number`` is the master's name for it, ``address`` the far end as ``host:port``."""

    def __init__(self, number: int, address: str, session: Session, reports: Reports) -> None:
        self.number = number
        self.address = address
        self.session = session
        self.over = False
        self._reports = reports
        self._told = False  # what became of the handshake
        self._sealed = False  # nothing more can be encrypted
        self._moved = False

    def start(self, loop: Loop, peer: socket.socket, worker: socket.socket, handshake_timeout: float) -> None:
        """Begin with the handshake."""
        self._loop = loop
        self.peer = Side(loop, peer, self._peer_ready)
        self.worker = Side(loop, worker, self._worker_ready)
        late = f"it did not finish the TLS handshake within {handshake_timeout:g} s"
        self._deadline = loop.call_later(handshake_timeout, lambda: self._too_late(late))
        self._settle()

    # The handshake.

    def _too_late(self, reason: str) -> None:
        self._told = True
        self.session.failure = reason
        self._reports.failed(self, reason)
        self.end()

    def _tell_of_handshake(self) -> None:
        if self._told:
            return
        if self.session.secured is not None:
            self._reports.secured(self, self.session.secured)
        elif self.session.failure is not None:
            self._reports.failed(self, self.session.failure)
        else:
            return
        self._told = True
        self._deadline.cancel()

    # The pump. Neither side is read while something that came from it waits for the other one.

    def _peer_ready(self) -> None:
        self._moved |= self.peer.flush()
        if self._reads_peer():
            data = self.peer.receive(RECEIVE)
            if data is not None and not self.session.peer_ended:
                self._from_peer(data)
        self._settle()

    def _from_peer(self, data: bytes) -> None:
        if data:
            plain = self.session.receive(data)
            self._moved |= bool(plain)
            self.worker.send(plain)
        else:
            self.session.receive_end()
        self._give_peer()

    def _worker_ready(self) -> None:
        self._moved |= self.worker.flush()
        if self._reads_worker():
            data = self.worker.receive(RECEIVE)
            if data is not None and not self._sealed:
                self._from_worker(data)
        self._settle()

    def _from_worker(self, data: bytes) -> None:
        if data:
            self._moved = True
            self.session.send(data)
        else:
            self._sealed = True
            self.session.close()
        self._give_peer()

    def _give_peer(self) -> None:
        self._sealed |= self.session.failure is not None
        self.peer.send(self.session.take_output())
        self._tell_of_handshake()

    def _reads_peer(self) -> bool:
        return not self.peer.ended and not self.worker.waiting and len(self.peer.waiting) <= REPLIES

    def _reads_worker(self) -> bool:
        return self._told and not self.worker.ended and not self.peer.waiting

    # The end.

    def _settle(self) -> None:
        """Pass ends on, and wait for whatever can come now."""
        if self.session.peer_ended:
            self.worker.finish()
        if self._sealed:
            self.peer.finish()
        if self._is_over():
            self.end()
            return
        self.peer.watch(self._reads_peer())
        self.worker.watch(self._reads_worker())
        if self._lonely() and self._deadline.call is None:
            self._await_the_other()

    def _is_over(self) -> bool:
        passed_on = self.session.peer_ended and self.worker.shut and self.worker.ended and self.peer.shut
        return passed_on and (self.peer.ended or self.session.failure is None)

    def _lonely(self) -> bool:
        """Whether one side has left for good. Both directions of a dead connection are dead."""
        return self._told and (self.worker.ended or self.peer.shut or self.worker.gone)

    def _await_the_other(self) -> None:
        self._moved = False
        patience = LINGER if self.session.failure is None else LAST_WORDS
        self._deadline = self._loop.call_later(patience, self._still_there)

    def _still_there(self) -> None:
        """Bytes for the worker are never given up: it is ours, and when it dies its socket says so."""
        if self._moved or self.worker.waiting:
            self._await_the_other()
        else:
            self.end()

    def end(self) -> None:
        """End both connections at once."""
        if not self.over:
            self.over = True
            self._deadline.cancel()
            self.peer.close()
            self.worker.close()
            self._reports.ended(self)

    # For a probe.

    def holds_back(self) -> bool:
        """Whether something from the worker is not with the peer's socket yet."""
        return bool(self.peer.waiting) or self._unread() > 0

    def _unread(self) -> int:
        try:
            raw = fcntl.ioctl(self.worker.sock.fileno(), termios.FIONREAD, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(raw, sys.byteorder)
