"""What the kernel knows of a TCP connection: bytes consumed from it, bytes given to it.

Does: reads the counters that stay true whatever became of the process that used the connection.
Owns: nothing.
Never: guesses: counters of a live connection move, so they are read until two samples agree.

Offsets are those of struct tcp_info in linux/tcp.h.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

SIZE = 136
_STATE = 0
_LAST_ACK_MS = 56  # tcpi_last_ack_recv
_BYTES = struct.Struct("=QQ")  # tcpi_bytes_acked, tcpi_bytes_received
_BYTES_AT = 120
_INT = struct.Struct("=i")
_CLOSE = 7
_FIN_RECEIVED = frozenset({6, 8, 9, 11})  # TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING
TCP_INQ = 36  # linux/tcp.h; the socket module has no name for it
SAMPLES = 1000


def _info(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)
    acknowledged, received = _BYTES.unpack_from(raw, _BYTES_AT)
    return raw[_STATE], acknowledged, received


def _queued(sock: socket.socket, request: int) -> int:
    # The kernel writes here; that it cannot, with bytes, ioctl would find out by an exception.
    answer = bytearray(4)
    fcntl.ioctl(sock.fileno(), request, answer)
    queued: int = _INT.unpack(answer)[0]
    return queued


def unread(sock: socket.socket) -> int:
    """Bytes that have arrived and were not read. Raises OSError."""
    return _queued(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes given to the connection that the other host has not acknowledged, sent or not. Raises OSError."""
    return _queued(sock, termios.TIOCOUTQ)


def consumed(sock: socket.socket) -> int:
    """Bytes that were ever read from the connection. Raises OSError."""
    for _ in range(SAMPLES):
        state, _, before = _info(sock)
        waiting = unread(sock)
        later, _, after = _info(sock)
        if before == after and state == later:
            # A FIN takes a place in the sequence and is counted as a byte.
            return before - waiting - (state in _FIN_RECEIVED or _reset_behind_fin(sock, state, waiting))
    raise OSError("the connection's counters do not stand still")


def _reset_behind_fin(sock: socket.socket, state: int, waiting: int) -> bool:
    """Whether a connection that was reset had been closed before, with ``waiting`` bytes unread.

    The hint for the next read counts a FIN, FIONREAD does not.
    """
    if state != _CLOSE or not waiting:
        return False
    sock.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
    try:
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(_INT.size), flags)
    finally:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 0)
    return any(_INT.unpack(data)[0] > waiting for _, kind, data in ancillary if kind == TCP_INQ)


def given(sock: socket.socket) -> int:
    """Bytes that were ever given to the connection, apart from a constant. Raises OSError."""
    for _ in range(SAMPLES):
        _, before, _ = _info(sock)
        waiting = unacknowledged(sock)
        _, after, _ = _info(sock)
        if before == after:
            return before + waiting
    raise OSError("the connection's counters do not stand still")


def last_acknowledged(sock: socket.socket) -> float:
    """Seconds since the other host last acknowledged anything. Raises OSError."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)
    (milliseconds,) = struct.unpack_from("I", raw, _LAST_ACK_MS)
    return float(milliseconds) / 1000
