"""A probe: whether the host at the far end of a TLS leg still answers.

Does: waits until the host has acknowledged what the worker wrote before it asked, an IAC NOP.
Owns: its timer.
Never: writes anything; takes longer than ``PROBE_SECONDS``.
"""

from __future__ import annotations

import socket
import time
from typing import Callable

from vspcd.core.identity import PROBE_SECONDS
from vspcd.unix.loop import Loop
from vspcd.unix.tcpinfo import last_acknowledged, unacknowledged
from workers.contest import LOOK_EVERY, MARGIN
from workers.tls_leg import TlsLeg

_CLOSED = 7  # TCP_CLOSE, in the first byte of struct tcp_info (linux/tcp.h)


class Probe:
    """Calls ``verdict(alive)`` once, from the loop."""

    def __init__(self, loop: Loop, leg: TlsLeg, verdict: Callable[[bool], None]) -> None:
        self._loop = loop
        self._leg = leg
        self._verdict = verdict
        self._begun = time.monotonic()
        loop.call_later(0, self._look)

    def _look(self) -> None:
        elapsed = time.monotonic() - self._begun
        if self._leg.over or self._leg.peer.gone or closed(self._leg.peer.sock):
            self._verdict(False)
        elif self._answered(elapsed):
            self._verdict(True)
        elif elapsed >= PROBE_SECONDS:
            self._verdict(False)
        else:
            self._loop.call_later(LOOK_EVERY, self._look)

    def _answered(self, elapsed: float) -> bool:
        """All that the worker wrote is acknowledged; or, when the peer does not read, the kernel's own probe."""
        sock = self._leg.peer.sock
        delivered = not self._leg.holds_back() and unacknowledged(sock) == 0
        return delivered or last_acknowledged(sock) < elapsed - MARGIN


def closed(sock: socket.socket) -> bool:
    """Whether the connection is gone, noticed or not."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED
    except OSError:
        return True
