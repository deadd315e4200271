"""A connected pair of TCP sockets over the loopback interface.

Does: makes the pair and makes sure that its two ends are each other's.
Owns: nothing; both ends are the caller's.
Never: leaves a listener behind; waits longer than ``DEADLINE``.

A TLS helper gives its plaintext to a worker over such a pair, since TCP counts what was received and
acknowledged (TCP_INFO) and a Unix socketpair does not. Any local process can connect to a port that listens on
127.0.0.1, so an end is only taken when its far end has the port of the other one.
"""

from __future__ import annotations

import select
import socket
import time

LOOPBACK = "127.0.0.1"
DEADLINE = 1.0
"""Seconds; a pair takes 0.1 ms unless somebody floods the port."""


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Two non-blocking sockets, each the far end of the other. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        near = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            near.connect_ex(listener.getsockname())  # what became of it, accepting tells
            far = _accept_from(listener, near)
        except OSError:
            near.close()
            raise
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _accept_from(listener: socket.socket, near: socket.socket) -> socket.socket:
    """The other end of ``near``; strangers who got in before it are turned away."""
    end = time.monotonic() + DEADLINE
    while (left := end - time.monotonic()) > 0:
        try:
            far, address = listener.accept()
        except BlockingIOError:
            _wait(listener, left)
            continue
        if address == near.getsockname():
            far.setblocking(False)
            return far
        far.close()
    raise TimeoutError("no loopback connection could be made: somebody else floods its port")


def _wait(listener: socket.socket, seconds: float) -> None:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.poll(seconds * 1000)
