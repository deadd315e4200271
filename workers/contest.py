"""A contest: a second connection claims a console whose VM is connected.

Does: asks the old connection for a sign of life with IAC NOP and waits for its host to acknowledge it.
Owns: the newcomer's descriptor until the verdict.
Never: disturbs the console; the VM sees a NOP, its clients see nothing.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, NamedTuple

from vspcd.core.identity import PROBE_SECONDS
from vspcd.proto import telnet
from vspcd.proto.control import Message
from vspcd.unix import tcpinfo
from vspcd.unix.loop import Loop
from workers.leg import Leg, LegGone

LOOK_EVERY = 0.05
HELPER_MARGIN = 1.0
MARGIN = 0.01  # the kernel counts in milliseconds of its own clock


class Newcomer(NamedTuple):
    """A leg that claims the console: what the master said of it, and its descriptor."""

    number: int
    peer: str
    session: dict[str, Any]
    secured: bool
    fd: int

    def leg(self) -> Leg:
        """Its connection, ours from now on."""
        return Leg(self.number, socket.socket(fileno=self.fd), self.peer, self.secured)


def newcomer_of(message: Message, fd: int) -> Newcomer:
    """What the master says of a connection that it offers."""
    return Newcomer(message["leg"], message["peer"], message["session"], message["secured"], fd)


class Contest:
    """Calls ``verdict(newcomer, alive)`` once, within two seconds and never before it was constructed.

    ``asking()`` is called before the old connection is asked for a sign of life.
    """

    def __init__(
        self,
        loop: Loop,
        old: Leg,
        newcomer: Newcomer,
        verdict: Callable[[Newcomer, bool], None],
        asking: Callable[[], None] = lambda: None,
    ) -> None:
        self.newcomer = newcomer
        self._loop = loop
        self._old = old
        self._verdict = verdict
        self._begun = time.monotonic()
        self._over = False
        try:
            old.out += telnet.command(telnet.NOP)
            asking()
            old.flush()
        except LegGone:
            self._loop.call_later(0, lambda: self.decide(alive=False))
            return
        if old.secured:
            # The helper's kernel acknowledges everything; the helper itself knows of the VM's host.
            self._loop.call_later(PROBE_SECONDS + HELPER_MARGIN, lambda: self.decide(alive=False))
        else:
            self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        if self._over:
            return
        elapsed = time.monotonic() - self._begun
        if answered(self._old.sock, elapsed):
            self.decide(alive=True)
        elif elapsed >= PROBE_SECONDS:
            self.decide(alive=False)
        else:
            self._loop.call_later(LOOK_EVERY, self._look)

    def give_up(self) -> None:
        """There will be no verdict."""
        self._over = True

    def decide(self, alive: bool) -> None:
        """End the contest, also from outside: when the old connection ends, it is not alive."""
        if not self._over:
            self._over = True
            self._verdict(self.newcomer, alive)


def answered(sock: socket.socket, elapsed: float) -> bool:
    """Whether the other host has acknowledged anything since the probe was sent, ``elapsed`` seconds ago.

    All is acknowledged, or, when the VM does not read and the probe waits behind other bytes, an acknowledgement of
    the kernel's own probes has come since.
    """
    try:
        return tcpinfo.unacknowledged(sock) == 0 or tcpinfo.last_acknowledged(sock) < elapsed - MARGIN
    except OSError:
        return False  # the connection is gone
