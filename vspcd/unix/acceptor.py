"""An acceptor: takes connections from a listening socket as long as there is room for them.

Does: hands each connection on, and rests for a moment when the system has no room; leaves descriptors to others.
Owns: the listening socket.
Never: spins on a queue that it cannot empty; the connections wait there, those that exist go on.
"""

from __future__ import annotations

import os
import socket
from typing import Callable, Optional

from vspcd.unix import listen
from vspcd.unix.logline import Log
from vspcd.unix.loop import READ, Loop, Timer

REST = 0.5


class NoRoom(Exception):
    """There is no process, descriptor or memory for another connection just now."""


def nothing() -> int:
    """What an acceptor leaves to others that may use the last descriptor."""
    return 0


def done() -> None:
    """For those who deal with each connection at once."""


class Acceptor:
    """Calls ``take(socket, peer)`` for each connection, then ``taken()``; both may raise NoRoom. ``name``: for the log.

    It takes nothing while fewer than ``spare()`` descriptors are free: who needs them comes through other doors.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        name: str,
        listener: socket.socket,
        take: Callable[[socket.socket, str], None],
        spare: Callable[[], int] = nothing,
        taken: Callable[[], None] = done,
    ) -> None:
        self.listener = listener
        self._loop = loop
        self._log = log
        self._name = name
        self._take = take
        self._spare = spare
        self._taken = taken
        self._resting: Optional[Timer] = None
        self._rests = 0
        self._watch()

    def _watch(self) -> None:
        self._resting = None
        self._loop.watch(self.listener.fileno(), READ, self._ready, last=True)

    def _ready(self, _events: int) -> None:
        try:
            try:
                self._take_all()
            finally:
                self._taken()
        except NoRoom as error:
            self._rest(str(error))
        except OSError as error:
            self._rest(os.strerror(error.errno or 0))
        else:
            self._rested()

    def _take_all(self) -> None:
        for sock, peer in listen.accept(self.listener, self._spare):
            self._take(sock, peer)
            if self.listener.fileno() < 0:
                return

    def _rest(self, reason: str) -> None:
        self._rests += 1
        if self._rests & (self._rests - 1) == 0:
            # The 1st, 2nd, 4th, 8th … time: a shortage may last for hours.
            self._log.error(
                "accept-paused", listener=self._name, seconds=REST, reason=reason, count=self._rests
            )
        if self.listener.fileno() >= 0:
            self._loop.forget(self.listener.fileno())
            self._resting = self._loop.call_later(REST, self._watch)

    def _rested(self) -> None:
        if self._rests:
            self._log.warning("accept-resumed", listener=self._name, pauses=self._rests)
            self._rests = 0

    def close(self) -> None:
        """Listen no longer."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.forget(self.listener.fileno())
        self.listener.close()
