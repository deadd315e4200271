"""The common shell of worker processes: what each of them has around its own duty.

Does: takes over what the fork handed on, runs the loop, checks and dispatches the master's messages.
Owns: the loop, the channel to the master, the worker's page, the log directory's descriptor.
Never: knows a kind of console.

A worker keeps no other descriptor than these and those the master sends it. A peer's fault closes the peer; a
bug ends the worker with a traceback on stderr, and the master replaces it.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Callable, NamedTuple

from vspcd.core.names import visible
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.page import Page, map_page


class Start(NamedTuple):
    """What a worker is born with. Descriptors are numbers, -1 for none; ``settings`` is plain data."""

    channel: socket.socket
    arena: int
    page: int
    log_directory: int
    sync: int
    settings: dict[str, Any]
    leg: int = -1
    leg_number: int = 0
    balancer: bool = False
    peer: str = ""

    def descriptors(self) -> set[int]:
        """What the child must keep open."""
        fds = {self.channel.fileno(), self.arena, self.log_directory, self.sync, self.leg}
        return fds - {-1}


Answer = Callable[[Message, list[int]], None]


class Shell:
    """The surroundings of one worker."""

    def __init__(self, start: Start) -> None:
        self.settings = start.settings
        self.loop = Loop()
        self.log = Log(start.settings["log_level"])
        self.page: Page = map_page(start.arena, start.page)
        os.close(start.arena)
        self.log_directory = start.log_directory
        self._sync = start.sync
        self._channel = Channel(start.channel)
        self._answers: dict[str, Answer] = {}
        self._orphaned: Callable[[], None] = self.loop.stop

    def serve(self, answers: dict[str, Answer], orphaned: Callable[[], None]) -> None:
        """Answer the master's messages from this table; ``orphaned`` is called when the master is gone."""
        self._answers = answers
        self._orphaned = orphaned
        self._channel.serve(self.loop, self._received, self._master_gone)

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        self._answers[kind](message, fds)

    def _master_gone(self) -> None:
        self._channel.close()
        self._orphaned()

    def tell(self, message: str, **fields: object) -> None:
        """Send the master a message. Without a master it goes nowhere."""
        try:
            self._channel.send({"type": message, **fields})
        except ChannelClosed as error:
            self.log.warning("not-told", message=message, reason=str(error))

    def changed(self) -> None:
        """There are new bytes in a log: somebody should bring them to the disk."""
        if self._sync >= 0:
            try:
                os.write(self._sync, (1).to_bytes(8, "little"))
            except BlockingIOError:
                pass  # the counter is full: the other side has been told often enough

    def name(self, title: str) -> None:
        """What ``ps`` shows: which console this process is."""
        process.name(f"vspcd: {visible(title)}")

    def run(self) -> None:
        """Serve until the duty ends."""
        self.loop.run()

    def leave(self) -> None:
        """End after the messages that wait, or at once when nobody takes them."""
        try:
            self._channel.flush()
        except (ChannelClosed, PeerError):
            pass
        self.loop.stop()


def socket_of(fd: int) -> socket.socket:
    """A received descriptor as a socket."""
    return socket.socket(fileno=fd)
