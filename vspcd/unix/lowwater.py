"""The low-water mark of a TCP socket: how many bytes must be there before the loop hears of them.

Does: keeps a process asleep while half a message waits, and keeps the other side sending.
Owns: nothing but the knowledge of the mark that is set.
Never: reads.

A byte that is left in the kernel pins the whole buffer that it came in. If that fills the receive buffer, the window
stays shut: the other half can never arrive. Asking for a high mark once makes the kernel enlarge the receive buffer and
open the window (tcp_set_rcvlowat); no single pinned buffer is that large.
"""

from __future__ import annotations

import socket

ENLARGE = 1 << 19


class LowWater:
    """The mark of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._mark = 0
        self._enlarged = False

    def set(self, mark: int) -> None:
        """Wake nobody before ``mark`` bytes are there."""
        if mark == self._mark:
            return
        if mark > 1 and not self._enlarged:
            self._enlarged = True
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, ENLARGE)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
        self._mark = mark
