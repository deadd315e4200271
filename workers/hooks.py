"""The hooks process: it runs the commands of hooks and posts to URLs, so that the master need not.

Does: runs what the master tells it, so many at a time, each within its time; tells what has begun and what is over.
Owns: the process groups of what runs.
Never: decides what is run; holds anything of a console; slows one: it and its children run at a lower priority.

Runs of one hook about one console come one after the other, in order. A master that is gone takes nothing along: what
was told is still done, within LAST_FOR; after a quit within QUIT_FOR.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import Any, Callable, Optional

from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from workers.job import Job
from workers.post import prepare

LAST_FOR, QUIT_FOR = 60.0, 4.0
NICENESS = 5
DESCRIPTORS = 1024  # what commands usually begin with


class Hooks:
    """The process's one object."""

    def __init__(self, loop: Loop, sock: socket.socket, settings: dict[str, Any]) -> None:
        self._loop = loop
        self._channel = Channel(sock)
        self._log = Log(settings["log_level"])
        self._concurrency: int = settings["concurrency"]
        self._waiting: list[Job] = []
        self._running: dict[int, Job] = {}
        self._busy: set[tuple[object, ...]] = set()
        self._last = False
        self._answers: dict[str, Callable[[Message], None]] = {
            "job": self._take,
            "settings": self._set,
            "ping": lambda _message: self._tell("pong"),
            "quit": lambda _message: self._finish(QUIT_FOR),
        }
        loop.on_signal(signal.SIGCHLD, self._bury)
        self._channel.serve(loop, self._received, lambda: self._finish(LAST_FOR))

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        if kind not in self._answers:
            raise PeerError(f"{kind} is nothing for the hooks process")
        self._answers[kind](message)

    def _set(self, message: Message) -> None:
        self._log.level = message["settings"]["log_level"]
        self._concurrency = message["settings"]["concurrency"]
        self._start_some()

    def _take(self, message: Message) -> None:
        job = Job(self._loop, message, self._ended)
        if message["post"]:
            prepare()
        if message["began"] is None:
            self._waiting.append(job)
            self._start_some()
        elif job.go_on(message["began"]):
            self._running[job.pid] = job
            self._busy.add(job.key)
        else:
            self._tell("ended", number=job.number)  # it ended while nobody watched

    def _start_some(self) -> None:
        """Start what may run now: the oldest first, and no two of the same key."""
        held: set[tuple[object, ...]] = set()
        for job in tuple(self._waiting):
            if len(self._running) >= self._concurrency:
                return
            if job.key in self._busy or job.key in held:
                held.add(job.key)
                continue
            self._waiting.remove(job)
            self._start(job)

    def _start(self, job: Job) -> None:
        try:
            job.start()
        except OSError as error:
            self._failed(job, f"it could not be started: {error.strerror}")
            self._tell("ended", number=job.number)
            return
        self._running[job.pid] = job
        self._busy.add(job.key)
        self._log.debug("hook-begins", hook=job.label, pid=job.pid, console=job.facts.get("console"))
        self._tell("began", number=job.number, began=job.began())

    def _bury(self) -> None:
        """A process that has ended keeps its number until its group is killed: nobody else can have it by then."""
        while True:
            found = _dead()
            if found is None:
                return
            job = self._running.get(found)
            if job is not None:
                job.kill()
            _, status = os.waitpid(found, 0)
            if job is not None:
                job.died(status)

    def _ended(self, job: Job, reason: Optional[str]) -> None:
        self._running.pop(job.pid, None)
        self._busy.discard(job.key)
        if reason is not None:
            self._failed(job, reason)
        self._tell("ended", number=job.number)
        self._start_some()
        self._look_for_the_end()

    def _failed(self, job: Job, reason: str) -> None:
        self._log.error(
            "hook-failed",
            hook=job.label,
            on=str(job.facts.get("event")),
            console=job.facts.get("console"),
            reason=reason,
            printed=job.printed(),
        )

    def _tell(self, word: str, **fields: Any) -> None:
        try:
            self._channel.send({"type": word, **fields})
        except ChannelClosed:
            pass  # the master is gone

    # The end.

    def _finish(self, seconds: float) -> None:
        """Nothing new comes: do what is left, as long as that takes no longer than this."""
        if not self._last:
            self._last = True
            self._channel.close()
            self._loop.call_later(seconds, self._give_up)
            self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._last and not self._running and not self._waiting:
            self._loop.stop()

    def _give_up(self) -> None:
        for job in self._running.values():
            job.kill()
        self._log.error("hooks-not-finished", running=len(self._running), waiting=len(self._waiting))
        self._loop.stop()


def _dead() -> Optional[int]:
    """A child that has ended and is not buried."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def main(sock: socket.socket, settings: dict[str, Any]) -> None:
    """The life of the hooks process."""
    process.name("vspcd: hooks")
    os.chdir("/")
    os.nice(NICENESS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    loop = Loop()
    Hooks(loop, sock, settings)
    loop.run()
