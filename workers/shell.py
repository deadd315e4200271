"""The common shell of worker processes: what each of them has around its own duty.

Does: takes over what the fork handed on, runs the loop, checks and dispatches the master's messages.
Owns: the loop, the channel to the master, the worker's page, the log directory's descriptor.
Never: knows a kind of console.

A worker keeps no other descriptor than these and those the master sends it. A peer's fault closes the peer; a
bug ends the worker with a traceback on stderr, and the master replaces it. A master that dies is waited for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

from vspcd.core.names import visible
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.unix import process, roster
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.failpoint import reached
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.page import LAYOUT, Page, map_page
from workers.disksync import WORD
from workers.orphan import Orphan


@dataclass
class Start:
    """What a worker is born with. Descriptors are numbers, -1 for none; ``run`` is the run directory's path.
    ``session``: what a dead worker told of the connection; ``poisoned``: it is to be put aside.
    """

    channel: socket.socket
    arena: int
    page: int
    sync: int
    leg: int = -1
    leg_number: int = 0
    balancer: bool = False
    secured: bool = False
    poisoned: bool = False
    session: Optional[dict[str, Any]] = None
    peer: str = ""
    roster: int = -1
    run: str = ""

    def descriptors(self) -> set[int]:
        """What the child must keep open, beside the log directory."""
        fds = {self.channel.fileno(), self.arena, self.sync, self.roster, self.leg}
        return fds - {-1}


Answer = Callable[[Message, list[int]], None]


class Lasting(Protocol):
    """The part of a worker that outlives the master."""

    def lasts(self) -> bool:
        """Whether somebody would miss it."""

    def describe(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """What the next master has to know, as messages and the descriptors that go with them."""

    def adopted(self) -> None:
        """The next master knows of everybody."""


class Shell:
    """The surroundings of one worker. It is made before the fork, and owns nothing until ``begin``.

    ``settings`` is plain data; ``log_directory`` an open descriptor, -1 for none.
    """

    _page_number: int
    _sync: int
    _channel: Channel

    def __init__(self, settings: dict[str, Any], log_directory: int) -> None:
        self.settings = settings
        self.log_directory = log_directory
        self.page = Page()
        self.loop = Loop(opened=False)
        self.log = Log()
        self._answers: dict[str, Answer] = {}
        self._orphaned: Callable[[], None] = self.loop.stop
        self._survivor: Optional[Lasting] = None
        self._muted = False  # without a master, or before it has been told who we are
        self._leaving = False  # our duty is over
        self._waiting: list[Callable[[], None]] = []  # for the master to listen
        self._title = ""
        self._orphan = Orphan(self.loop, "", self._lasts, self._end, self._knocked)

    def answer(
        self, answers: dict[str, Answer], orphaned: Callable[[], None], survivor: Optional[Lasting] = None
    ) -> None:
        """Answer the master's messages from this table. When the master is gone, ``survivor`` waits for another one;
        ``orphaned`` is called when there is nothing to wait for.
        """
        ours: dict[str, Answer] = {"welcome": self._welcome, "adopted": self._adopted, "ping": self._pong}
        self._answers = {**answers, **ours}
        self._orphaned = orphaned
        self._survivor = survivor

    def begin(self, start: Start) -> None:
        """Take over what the fork handed on."""
        self.log.level = self.settings["log_level"]
        self.loop.open()
        self.page.begin(map_page(start.arena, start.page))
        os.close(start.arena)
        self._page_number = start.page
        self._sync = start.sync
        self._orphan.run = start.run
        if start.roster >= 0:
            roster.enter(start.roster)
        self._channel = Channel(start.channel)
        self._channel.serve(self.loop, self._received, self._master_gone)

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        self._answers[kind](message, fds)

    def _pong(self, _message: Message, _fds: list[int]) -> None:
        self.tell("pong")

    # When the master is dead.

    def _lasts(self) -> bool:
        return bool(self._orphan.run) and self._survivor is not None and self._survivor.lasts()

    def _end(self) -> None:
        self._orphaned()

    def _master_gone(self) -> None:
        self._channel.close()
        self._muted = True
        reached("adopt.orphaned")
        if self._leaving:
            self.loop.stop()
        elif self._lasts():
            self._orphan.wait()
            self._listened_to()
        else:
            self._orphaned()

    def _knocked(self, sock: socket.socket) -> None:
        self._channel = Channel(sock)
        self._channel.serve(self.loop, self._received, self._master_gone)
        self._say({"type": "here", "kind": "worker", "layout": LAYOUT})
        reached("adopt.here")

    def _say(self, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            self._channel.send(message, fds)
        except ChannelClosed:
            pass  # the loop reports its end

    def _welcome(self, message: Message, fds: list[int]) -> None:
        """A new master: our page is in its arena from now on, and it is told who we are."""
        arena, sync = fds
        self.page.move_to(Page(map_page(arena, message["page"])))
        self._page_number = message["page"]
        os.close(arena)
        if self._sync >= 0:
            os.close(self._sync)
        self._sync = sync
        self._answers["settings"]({"type": "settings", "settings": message["settings"]}, [])
        reached("adopt.moved")
        if self._survivor is not None:
            for word, descriptors in self._survivor.describe():
                self._say(word, descriptors)
                reached("adopt.told")
        self._say({"type": "complete"})
        self._muted = False

    def _adopted(self, _message: Message, _fds: list[int]) -> None:
        self._orphan.settled()
        if self._survivor is not None:
            self._survivor.adopted()
        reached("adopt.adopted")

    def tell(self, message: str, **fields: object) -> None:
        """Send the master a message. Without a master it goes nowhere: the next one is told how things stand then."""
        if self._muted:
            return
        try:
            self._channel.send({"type": message, **fields})
        except ChannelClosed as error:
            self.log.debug("not-told", message=message, reason=str(error))

    def is_heard(self) -> bool:
        """Whether what is told now is with the master at once, also when we die. Without a master it need not be."""
        return self._muted or self._channel.has_room()

    def when_heard(self, call: Callable[[], None]) -> None:
        """Call once when that is so."""
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._channel.when_room(self._listened_to)

    def _listened_to(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def changed(self, inode: int) -> bool:
        """There are new bytes in this log: the keeper should bring them to the disk. Whether it was told."""
        if self._sync >= 0:
            try:
                os.write(self._sync, WORD.pack(self._page_number, inode))
            except BlockingIOError:
                return False
            except BrokenPipeError:
                pass  # there is no keeper, nor a master: the next one is told
        return True

    def name(self, title: str) -> None:
        """What ``ps`` shows: which console this process is."""
        if title != self._title:
            self._title = title
            process.name(f"vspcd: {visible(title)}")

    def run(self) -> None:
        """Serve until the duty ends."""
        self.loop.run()

    def leave(self) -> None:
        """End after the messages that wait, or at once when nobody will take them."""
        self._leaving = True
        self.retire()

    def retire(self) -> None:
        """The same in the middle of our duty: it goes on until then, and longer when the master dies before."""
        try:
            flushed = self._channel.flush()
        except ChannelClosed:
            flushed = True
        if flushed:
            self.loop.stop()
        else:
            self._channel.when_room(self.retire)


def socket_of(fd: int) -> socket.socket:
    """A received descriptor as a socket."""
    return socket.socket(fileno=fd)
