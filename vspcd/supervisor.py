"""The supervisor: the workers' lives.

Does: forks workers, checks and dispatches what they say, tells them things, notices their deaths.
Owns: the worker processes and their channels.
Never: decides about consoles, VMs or clients (``claims``, ``consoles`` and ``attachments`` do); waits for a worker.

A worker that speaks out of turn (``vspcd.proto.control.TABLE``) is killed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from vspcd.config_schema import Config
from vspcd.proto import control
from vspcd.proto.control import LEAVING, OWNER, Message
from vspcd.proto.errors import LocalError, PeerError
from vspcd.spawn import Nursery, settings
from vspcd.table import LegRecord, Table, Worker
from vspcd.unix import process
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.channel import ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import READ, Loop, Timer

QUIT_WITHIN = 5.0
LAST_WORDS = 100

Handler = Callable[[Worker, Message], None]


class Supervisor:
    """``died(worker, how)`` is called when a worker's last words have been heard."""

    def __init__(self, loop: Loop, log: Log, config: Config, nursery: Nursery, table: Table) -> None:
        self.config = config
        self.table = table
        self.died: Callable[[Worker, str], None] = lambda _worker, _how: None
        self._loop = loop
        self._log = log
        self._nursery = nursery
        self._handlers: dict[str, Handler] = {}
        self._farewells: dict[int, Timer] = {}
        self._when_empty: Optional[Callable[[], None]] = None
        self.handle({"pong": self._pong})

    def handle(self, handlers: Mapping[str, Handler]) -> None:
        """Let these messages of workers be dealt with; each message has one handler."""
        self._handlers.update(handlers)

    def spawn(
        self, state: str, leg: Optional[LegRecord] = None, instead_of: Optional[Worker] = None
    ) -> Worker:
        """Fork a worker, with a new VM connection, or to go on for a dead one. Raises NoRoom."""
        page = None if instead_of is None else instead_of.page_number
        try:
            worker = self._nursery.worker(self.config, state, leg, page)
        except (OSError, MemoryError) as error:
            raise NoRoom(f"no worker could be started: {error}") from None
        if instead_of is not None:
            instead_of.replaced = True
        self.serve(worker)
        return worker

    def spawn_all(self, state: str, legs: Sequence[LegRecord]) -> tuple[int, Optional[NoRoom]]:
        """Fork a worker for each new VM connection: how many got one, and why the others did not."""
        workers, error = self._nursery.workers(self.config, state, legs)
        for worker in workers:
            self.serve(worker)
        return len(workers), None if error is None else NoRoom(f"no worker could be started: {error}")

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call then, unless everything ends."""
        self._loop.call_later(seconds, lambda: None if self._when_empty is not None else call())

    def serve(self, worker: Worker) -> None:
        """This worker is ours from now on."""
        self.table.enter(worker)
        worker.channel.serve(
            self._loop,
            lambda message, fds: self._received(worker, message, fds),
            lambda: self._channel_closed(worker),
        )
        if worker.pidfd is not None:
            self._loop.watch(worker.pidfd, READ, lambda _events: self._ended(worker))
        if worker.quitting:
            self._farewell(worker)

    def _ended(self, worker: Worker) -> None:
        """A worker that is not our child has died; how, only its parent is told."""
        if worker.pidfd is not None:
            self._loop.forget(worker.pidfd)
            os.close(worker.pidfd)
            worker.pidfd = None
        self.reaped(worker.pid, "has ended")

    def heard(self, worker: Worker, message: Message) -> None:
        """It has said this before it was ours."""
        self._received(worker, message, [])

    def _received(self, worker: Worker, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        try:
            kind = control.check(message, control.WORKER, worker.state, len(fds))
            self._handlers[kind](worker, message)
        except PeerError as fault:
            self.kill(worker, f"out of turn: {fault}")

    def tell(self, worker: Worker, message: dict[str, Any], *socks: socket.socket) -> bool:
        """Whether it was told; False when the system has no descriptor for that, or it does not fit into a packet. A
        worker that cannot be reached is killed, unless it has been told to end: who goes on for it when it is dead
        learns from the master's records.
        """
        try:
            worker.channel.send(message, [sock.fileno() for sock in socks])
        except ChannelClosed as error:
            if not worker.quitting:
                self.kill(worker, f"unreachable: {error}")
        except (OSError, LocalError) as error:
            self._log.error("not-told", pid=worker.pid, message=message["type"], reason=str(error))
            return False
        return True

    def ping(self, worker: Worker) -> None:
        """Ask it for a sign of life."""
        worker.pinged = time.monotonic()
        self.tell(worker, {"type": "ping"})

    def _pong(self, worker: Worker, _message: Message) -> None:
        worker.pinged = 0.0

    def retire(self, worker: Worker) -> None:
        """Let it end at the end of a turn; another one goes on where it was."""
        worker.retiring = True
        self.tell(worker, {"type": "retire"})

    def kill(self, worker: Worker, reason: str) -> None:
        """End a worker that has broken the rules or does not answer."""
        if worker.pid in self.table.workers:
            self._log.error("worker-killed", pid=worker.pid, reason=reason)
            process.kill(worker.pid, pidfd=worker.pidfd)

    def _channel_closed(self, worker: Worker) -> None:
        """It is about to die, or must: the reaper tells how it ended."""
        self._loop.forget(worker.channel.fileno())
        self._farewell(worker)

    def _farewell(self, worker: Worker) -> None:
        if worker.pid not in self._farewells:
            self._farewells[worker.pid] = self._loop.call_later(
                QUIT_WITHIN, lambda: self.kill(worker, f"it did not end within {QUIT_WITHIN:g} s")
            )

    def quit(self, worker: Worker, reason: str) -> None:
        """Let a worker end; one that does not is killed."""
        worker.quitting = True
        self.tell(worker, {"type": "quit", "reason": reason})
        worker.state = LEAVING
        self._farewell(worker)

    def dismiss(self, worker: Worker) -> None:
        """It has nothing left to do and knows it."""
        worker.state = LEAVING
        worker.quitting = True
        worker.console = None
        self._farewell(worker)

    def quit_all(self, reason: str, when_empty: Callable[[], None]) -> None:
        """Let all workers end, then call back."""
        self._when_empty = when_empty
        for worker in tuple(self.table.workers.values()):
            self.quit(worker, reason)
        if not self.table.workers:
            when_empty()

    def reaped(self, pid: int, how: str) -> bool:
        """A child has died; False when it was no worker."""
        worker = self.table.strike(pid)
        if worker is None:
            return False
        self._last_words(worker)
        timer = self._farewells.pop(pid, None)
        if timer is not None:
            timer.cancel()
        self.died(worker, how)
        if not worker.replaced:
            self._nursery.buried(worker)
        if not self.table.workers and self._when_empty is not None:
            self._when_empty()
        return True

    def _last_words(self, worker: Worker) -> None:
        """What it said before it died is still in the channel."""
        try:
            for _ in range(LAST_WORDS):
                for message, fds in worker.channel.packets():
                    self._received(worker, message, fds)
        except (ChannelClosed, PeerError):
            pass
        worker.channel.close()

    def apply(self, config: Config) -> None:
        """The configuration was read again."""
        self.config = config
        message = {"type": "settings", "settings": settings(config)}
        for worker in self.table.workers.values():
            if not worker.quitting:
                self.tell(worker, message)

    def reopen_logs(self) -> None:
        """Someone has rotated logs."""
        for worker in self.table.workers.values():
            if worker.state == OWNER and not worker.quitting:
                self.tell(worker, {"type": "reopen"})
