"""An aide: a process of ours that does what the master must not, such as hooks, and that nothing else depends on.

Does: starts it while it is wanted, replaces it when it has died, passes messages on.
Owns: its life and its channel.
Never: waits for it; knows what it does.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Callable, Optional

from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

RESTART_AFTER = 1.0


class Aide:
    """``kind`` is its name in the log and, in ``vspcd.proto.control``, what it may say. ``spawn`` gives its pid and our
    end of its channel, or raises OSError. ``began``: there is a new one, which knows nothing."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        kind: str,
        spawn: Callable[[], tuple[int, socket.socket]],
        said: Callable[[str, Message], None],
        began: Callable[[], None],
    ) -> None:
        self.kind = kind
        self.pid = 0
        self.pinged = 0.0  # when it was asked for a sign of life; 0 when it owes none
        self.channel: Optional[Channel] = None
        self._loop = loop
        self._log = log
        self._spawn = spawn
        self._said = said
        self._began = began
        self._wanted = False
        self._timer_set = False

    def want(self, wanted: bool) -> None:
        """Whether there is to be one from now on."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if wanted:
            self._start()
        else:
            self.tell({"type": "quit", "reason": "nothing is left to do"})
            self._let_go()
            self.pid = 0  # it ends by itself, when it has done what it was told

    def _start(self) -> None:
        self._timer_set = False
        if not self._wanted or self.pid:
            return
        try:
            self.pid, sock = self._spawn()
        except OSError as error:
            self._log.error(f"no-{self.kind}-process", reason=str(error), again_in=RESTART_AFTER)
            self._later()
            return
        self.pinged = 0.0
        self.channel = Channel(sock)
        self.channel.serve(self._loop, self._received, self._closed)
        self._began()

    def _later(self) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._loop.call_later(RESTART_AFTER, self._start)

    def tell(self, message: dict[str, Any]) -> bool:
        """Whether it has been told, or will be as soon as it listens."""
        if self.channel is None:
            return False
        try:
            self.channel.send(message)
        except ChannelClosed:
            return False  # its end is noticed, or it has hung and is ended
        return True

    @property
    def settled(self) -> bool:
        """Whether it has been told all that it was to be told."""
        return not self._wanted or (self.channel is not None and not self.channel.backlog)

    def _received(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        kind = control.check(message, self.kind, control.OWNER, len(fds))
        if kind == "pong":
            self.pinged = 0.0
        else:
            self._said(kind, message)

    def _closed(self) -> None:
        """It has died or broken the rules; either way its life is over."""
        self._let_go()
        if self.pid:
            process.kill(self.pid)

    def _let_go(self) -> None:
        channel, self.channel = self.channel, None
        if channel is not None:
            self._last_words(channel)
            channel.close()

    def _last_words(self, channel: Channel) -> None:
        """What it has said before its end counts."""
        try:
            channel.flush()
            for message, fds in channel.packets():
                self._received(message, fds)
        except (ChannelClosed, PeerError):
            pass

    def reaped(self, pid: int, how: str) -> bool:
        """A child has died; False when it was another one."""
        if not self.pid or pid != self.pid:
            return False
        self._let_go()
        self.pid = 0
        if self._wanted:
            self._log.error(f"{self.kind}-process-died", pid=pid, how=how)
            self._later()
        return True
