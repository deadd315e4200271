"""The watchdog: children that live and do nothing.

Does: notices children that stand still although something waits for them, asks them for a sign of life, and ends those
that give none; whoever replaces the dead replaces them.
Owns: what it saw when it looked last, and the time of the next look.
Never: wakes a child without a reason: an idle console costs a few system calls of the master every few seconds.

A look costs no child anything. Reasons to ask, when the page says that nothing has moved since the last look, are input
that waits, messages of ours that are not read, and time spent on a processor. For the few children without a page, such
time and such messages are reason enough. A stopped child is reported by the kernel.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
import time
from typing import TYPE_CHECKING, Union

from vspcd.aide import Aide
from vspcd.portkeeper import PortKeeper
from vspcd.table import Worker
from vspcd.tlshelpers import TlsHelper
from vspcd.unix import cputime, process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.loop import Timer
from vspcd.unix.page import FIRST_CLIENT

if TYPE_CHECKING:
    from vspcd.master import Master

EVERY = 3.5  # two looks and the time for an answer are less than 12 s
ANSWER_WITHIN = 4.0
STOPPED_FOR = 5.0
BUSY = 0.5
"""Seconds on a processor since the last look that make one without a page suspicious."""

ROUND = 0.2
"""Seconds on a processor without progress that make a worker suspicious; a loop gets as much on a busy machine."""

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
        self._spent: dict[int, float] = {}  # by pid: time on a processor, of workers that were suspected once
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
        for aide in master.aides:
            if pid and pid == aide.pid:
                master.log.error(f"{aide.kind}-process-killed", pid=pid, reason=reason)
                process.kill(pid)

    # A look at everybody.

    def _look(self) -> None:
        self._loop.call_later(EVERY, self._look)
        self._look_at_some(list(self._master.table.workers.values()))
        others: list[Union[TlsHelper, PortKeeper, Aide]] = [
            *self._master.tls.helpers.values(),
            self._master.consoles.keeper,
            *self._master.aides,
        ]
        living = {*self._master.table.workers, *(other.pid for other in others)}
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in living}
        self._spent = {pid: spent for pid, spent in self._spent.items() if pid in living}
        for child in others:
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
            self._judge(worker)
            return
        seen = hash(worker.page.words[:FIRST_CLIENT].tobytes())
        before, self._seen[worker.pid] = self._seen.get(worker.pid), seen
        if seen == before and (waits(worker) or self._goes_round(worker.pid)):
            self._master.supervisor.ping(worker)
            self._loop.call_later(ANSWER_WITHIN, lambda: self._judge(worker))

    def _judge(self, worker: Worker) -> None:
        """It was asked: has it answered in time?"""
        asked, known = worker.pinged, worker.pid in self._master.table.workers
        overdue = known and asked and time.monotonic() - asked >= ANSWER_WITHIN
        # One that waits for a disk is asked in vain: its heir would wait there too. The next look judges it again.
        if overdue and cputime.state_of(worker.pid) != WAITS_FOR_A_DISK:
            self._end(worker.pid, NO_ANSWER)

    def _goes_round(self, pid: int) -> bool:
        """Whether it has spent time since it was suspected last, or since it was born."""
        before, self._spent[pid] = self._spent.get(pid, 0.0), cputime.of_process(pid)
        return self._spent[pid] - before > ROUND

    def _look_at_other(self, child: Union[TlsHelper, PortKeeper, Aide], channel: Channel) -> None:
        """One without a page: a TLS helper or the keeper."""
        pid = child.pid
        if child.pinged:
            if time.monotonic() - child.pinged >= ANSWER_WITHIN and cputime.state_of(pid) != WAITS_FOR_A_DISK:
                self._end(pid, NO_ANSWER)
            return
        spent = cputime.of_process(pid)
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
