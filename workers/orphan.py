"""What a child does when the master is dead: it goes on, and waits for another master.

Does: knocks at the run directory's door for those that live on, now and then, until somebody opens.
Owns: the time of the next attempt.
Never: waits for anything; knocks when the child has nothing left to live for.
"""

from __future__ import annotations

import os
import socket
from typing import Callable

from vspcd.unix.loop import Loop

DOOR = "adopt.sock"
FIRST, LAST, GROWTH = 0.1, 0.5, 1.5  # seconds between attempts; a new master waits for the last one to knock
JITTER = 0.3


class Orphan:
    """``lasts()``: whether the child has something to live for; ``end()`` is called when it has not.

    ``run`` is the run directory's path. ``adopted(channel)`` is called with a connection to the new master, which may
    still turn the child away.
    """

    def __init__(
        self,
        loop: Loop,
        run: str,
        lasts: Callable[[], bool],
        end: Callable[[], None],
        adopted: Callable[[socket.socket], None],
    ) -> None:
        self._loop = loop
        self.run = run
        self._lasts = lasts
        self._end = end
        self._adopted = adopted
        self._pause = FIRST

    def wait(self) -> None:
        """Knock before long. The longer it takes, the less often."""
        # Not the random module: it would seed itself in each child, right after the fork.
        chance = os.urandom(1)[0] / 127.5 - 1
        seconds = self._pause * (1 + JITTER * chance)
        self._pause = min(LAST, self._pause * GROWTH)
        self._loop.call_later(seconds, self._knock)

    def settled(self) -> None:
        """There is a master again: the next one is looked for as soon as this one dies."""
        self._pause = FIRST

    def _knock(self) -> None:
        if not self._lasts():
            self._end()
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            connect(sock, self.run)
        except OSError:
            sock.close()
            self.wait()
        else:
            self._adopted(sock)


def connect(sock: socket.socket, run: str) -> None:
    """Through the directory's descriptor: a socket address holds 107 bytes, a path can be longer. Raises OSError."""
    directory = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{DOOR}")
    finally:
        os.close(directory)
