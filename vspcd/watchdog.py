"""The watchdog: children that live and do nothing.

Does: notices children that stand still although something waits for them, asks them for a sign of life, and ends those
that give none; whoever replaces the dead replaces them.
Owns: what it saw when it looked last, and the time of the next look.
Never: wakes a child without a reason: an idle console costs a few system calls of the master every few seconds.

A look costs no child anything. Reasons to ask are input that waits while the page says that nothing has moved since
the last look, messages of ours that are not read, and for the few children without a page, time spent on a processor.
A stopped child is reported by the kernel.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from vspcd.portkeeper import PortKeeper
from vspcd.table import Worker
from vspcd.tlshelpers import TlsHelper
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.loop import Timer
from vspcd.unix.page import FIRST_CLIENT

if TYPE_CHECKING:
    from vspcd.master import Master

EVERY = 4.0
ANSWER_WITHIN = 4.0
STOPPED_FOR = 5.0
BUSY = 0.5
"""Seconds on a processor since the last look that make one without a page suspicious."""

AT_ONCE = 100
NO_ANSWER = f"hung: no sign of life within {ANSWER_WITHIN:g} s"
STOPPED = f"hung: stopped for {STOPPED_FOR:g} s"
WAITS_FOR_A_DISK = "D"


class Watchdog:
    """Looks from its making on."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._loop = master.loop
        self._seen: dict[int, float] = {}  # by pid: what a page, or a processor's clock, has said
        self._stopped: dict[int, Timer] = {}
        self._loop.call_later(EVERY, self._look)

    # Stopped children, of which the kernel tells.

    def stopped(self, pid: int, stopped: bool) -> None:
        """A child was stopped by a signal, or goes on."""
        timer = self._stopped.pop(pid, None)
        if timer is not None:
            timer.cancel()
        if stopped:
            self._stopped[pid] = self._loop.call_later(STOPPED_FOR, lambda: self._end(pid, STOPPED))

    def _end(self, pid: int, reason: str) -> None:
        self._stopped.pop(pid, None)
        master = self._master
        worker, helper = master.table.workers.get(pid), master.tls.helpers.get(pid)
        if worker is not None:
            worker.hung = True
            master.supervisor.kill(worker, reason)
        elif helper is not None:
            master.log.error("tls-helper-killed", pid=pid, reason=reason)
            process.kill(pid, pidfd=helper.pidfd)
        elif pid and pid == master.consoles.keeper.pid:
            master.log.error("keeper-killed", pid=pid, reason=reason)
            process.kill(pid)

    # A look at everybody.

    def _look(self) -> None:
        self._loop.call_later(EVERY, self._look)
        self._look_at_some(list(self._master.table.workers.values()))
        living = {*self._master.table.workers, *self._master.tls.helpers, self._master.consoles.keeper.pid}
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in living}
        others: list[Union[TlsHelper, PortKeeper]] = [*self._master.tls.helpers.values()]
        for child in (*others, self._master.consoles.keeper):
            if child.pid and child.channel is not None and child.channel.fileno() >= 0:
                self._look_at_other(child, child.channel)

    def _look_at_some(self, workers: list[Worker]) -> None:
        """A few at a time, so that others have their turn in between."""
        for worker in workers[:AT_ONCE]:
            if worker.pid in self._master.table.workers and not worker.quitting:
                self._look_at(worker)
        if len(workers) > AT_ONCE:
            self._loop.call_later(0, lambda: self._look_at_some(workers[AT_ONCE:]))

    def _look_at(self, worker: Worker) -> None:
        if worker.pinged:
            if time.monotonic() - worker.pinged >= ANSWER_WITHIN:
                self._end(worker.pid, NO_ANSWER)
            return
        seen = hash(worker.page.words[:FIRST_CLIENT].tobytes())
        before, self._seen[worker.pid] = self._seen.get(worker.pid), seen
        if seen == before and waits(worker):
            self._master.supervisor.ping(worker)

    def _look_at_other(self, child: Union[TlsHelper, PortKeeper], channel: Channel) -> None:
        """One without a page: a TLS helper or the keeper."""
        pid = child.pid
        if child.pinged:
            if time.monotonic() - child.pinged >= ANSWER_WITHIN and state_of(pid) != WAITS_FOR_A_DISK:
                self._end(pid, NO_ANSWER)
            return
        spent = processor_time(pid)
        before, self._seen[pid] = self._seen.get(pid, spent), spent
        if spent - before > BUSY or unread(channel.sock):
            child.pinged = time.monotonic()
            try:
                channel.send({"type": "ping"})
            except (ChannelClosed, OSError):
                pass  # its end is noticed, or it is asked in vain


def waits(worker: Worker) -> bool:
    """Whether something waits for this worker: its VM, a client, or a message of ours."""
    if unread(worker.channel.sock):
        return True
    clients = () if worker.console is None else worker.console.clients.values()
    socks = [leg.parked for leg in worker.legs.values()] + [client.parked for client in clients]
    return any(_count(sock, termios.FIONREAD) for sock in socks)


def unread(channel: socket.socket) -> bool:
    """Whether the other side has not read all that we have sent."""
    return _count(channel, termios.TIOCOUTQ) > 0


def _count(sock: socket.socket, what: int) -> int:
    if sock.fileno() < 0:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), what, b"\0\0\0\0"), sys.byteorder)
    except OSError:
        return 0  # it is over


def _stat(pid: int) -> Optional[list[str]]:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None  # it has gone


def processor_time(pid: int) -> float:
    """What a process has spent on processors, in seconds."""
    fields = _stat(pid)
    return 0.0 if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state_of(pid: int) -> str:
    """The letter that ``ps`` shows."""
    fields = _stat(pid)
    return "" if fields is None else fields[0]
