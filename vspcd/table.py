"""The console table: what the master knows of consoles, workers, legs and clients.

Does: holds the records and finds them.
Owns: the records, and with them the parked descriptors: duplicates of legs and clients that outlive a worker.
Never: talks to anybody. The workers are the truth about a console; this is the master's copy of it.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, Optional

from vspcd.core.access import Lock
from vspcd.core.rights import WRITE, Who
from vspcd.portmap.base import Entry
from vspcd.proto.vmware_codes import format_uuid
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.channel import Channel
from vspcd.unix.page import BYTES_IN, BYTES_OUT, Page


@dataclass
class LegRecord:
    """A VM connection: its number, far end and parked descriptor."""

    number: int
    peer: str
    parked: socket.socket
    since: float
    secured: bool = False
    session: Optional[dict[str, Any]] = None  # for a worker that goes on for a dead one
    balancer: bool = False  # it begins with a PROXY protocol header
    deaths: int = 0  # of workers that negotiated with it, each with its weight
    poisoned: bool = False  # its worker puts into quarantine what has killed the others


@dataclass
class ClientRecord:
    """Somebody on a console, and the parked descriptor. ``kind``: raw, telnet or vspcctl. ``mode``: rw or ro, as it
    holds now; ``asked``: as it would be without a lock. ``right``: one of those in ``vspcd.core.rights``."""

    number: int
    kind: str
    origin: str
    mode: str
    parked: socket.socket
    since: float
    terminal: Optional[dict[str, Any]] = None
    asked: str = ""
    came: dict[str, Any] = field(default_factory=lambda: {"replay": 0, "seed": None, "notice": None})
    leaving: Optional[str] = None  # it has to leave, for this reason
    who: Who = field(default_factory=Who)
    right: int = WRITE

    def __post_init__(self) -> None:
        self.asked = self.asked or self.mode


@dataclass
class Worker:
    """A worker process; ``state`` is one of those in ``vspcd.proto.control``."""

    pid: int
    channel: Channel
    page_number: int
    page: Page
    state: str
    legs: dict[int, LegRecord] = field(default_factory=dict)
    console: Optional[Console] = None
    quitting: bool = False
    replaced: bool = False  # another one goes on with its page
    retiring: bool = False  # it ends at the end of a turn, for another one to go on
    pidfd: Optional[int] = None  # of one that is not our child
    pinged: float = 0.0  # when it was asked for a sign of life; 0 when it owes none
    hung: bool = False  # it was killed because it did not answer

    @property
    def only_leg(self) -> Optional[LegRecord]:
        """The connection that it negotiates with."""
        return next(iter(self.legs.values()), None)


@dataclass
class Console:
    """A known console. Times are seconds since the epoch; ``line`` as the guest set it."""

    uuid: str
    label: str
    name: Optional[str] = None
    port: int = 0
    last_seen: float = 0.0
    bios_uuid: Optional[str] = None
    location_uuid: Optional[str] = None
    line: Optional[dict[str, Any]] = None
    since: float = field(default_factory=time.time)
    worker: Optional[Worker] = None
    leg: Optional[LegRecord] = None
    clients: dict[int, ClientRecord] = field(default_factory=dict)
    lock: Optional[Lock] = None
    tcp: Optional[socket.socket] = None
    unix: Optional[socket.socket] = None
    acceptors: list[Acceptor] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    move: Optional[dict[str, Any]] = None  # the vMotion under way, for a worker that goes on for a dead one
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    quarantines: list[float] = field(default_factory=list)  # when, lately; monotonic
    parked: float = 0.0  # until then no VM may have it; monotonic
    deaths: int = 0  # of workers, without a byte of progress in between, each with its weight
    died_when: float = 0.0  # monotonic
    poisoned: bool = False  # its worker has put into quarantine what has killed the others
    # How far the last one was with the VM's bytes and with those for the VM.
    died_at: tuple[int, int] = (0, 0)
    earlier_in: int = 0
    earlier_out: int = 0

    @cached_property
    def id(self) -> str:
        """``uuid`` or ``uuid.label``, as people see it."""
        return format_uuid(self.uuid) + (f".{self.label}" if self.label else "")

    @property
    def shown(self) -> str:
        """As people call it: its name, or the identity of a VM without one."""
        return f"{self.name}.{self.label}" if self.name and self.label else self.name or self.id

    @property
    def in_use(self) -> bool:
        """Whether it has a VM or a client, or is about to have one: only then has it a worker."""
        return self.worker is not None

    @property
    def parked_for(self) -> float:
        """Seconds for which its VM is not let in; 0 when it is."""
        return max(0.0, self.parked - time.monotonic())

    @property
    def port_open(self) -> bool:
        """Whether somebody can connect to its TCP port."""
        return any(acceptor.listener is self.tcp for acceptor in self.acceptors)

    @property
    def known(self) -> dict[str, Any]:
        """What its worker remembers in case that the master dies."""
        clients = [(client.number, client.since) for client in self.clients.values()]
        return {"since": self.since, "clients": clients, "moves": self.moves}

    def entry(self) -> Entry:
        """What the port map keeps of it."""
        return Entry(
            self.id,
            self.uuid,
            self.label,
            self.name or "",
            self.port,
            self.last_seen,
            self.bios_uuid,
            self.location_uuid,
        )

    @property
    def bytes_in(self) -> int:
        """Console bytes from the VM since the daemon started."""
        return self.earlier_in + (0 if self.worker is None else self.worker.page.words[BYTES_IN])

    @property
    def bytes_out(self) -> int:
        """Console bytes to the VM since the daemon started."""
        return self.earlier_out + (0 if self.worker is None else self.worker.page.words[BYTES_OUT])


def console_of(entry: Entry) -> Console:
    """A console as the port map remembers it."""
    return Console(
        uuid=entry.uuid,
        label=entry.label,
        name=entry.name or None,
        port=entry.port,
        last_seen=entry.last_seen,
        bios_uuid=entry.bios_uuid,
        location_uuid=entry.location_uuid,
        since=entry.last_seen,
    )


class Table:
    """All records."""

    def __init__(self) -> None:
        self.consoles: dict[str, Console] = {}
        self.workers: dict[int, Worker] = {}
        self._writers: dict[int, Worker] = {}  # by their pages
        self.numbers = count(1)

    def number_from(self, number: int) -> None:
        """Legs and clients get numbers from this one on: the others are in use."""
        self.numbers = count(max(number, next(self.numbers)))

    def enter(self, worker: Worker) -> None:
        """A worker is ours from now on, and writes to its page."""
        self.workers[worker.pid] = self._writers[worker.page_number] = worker

    def strike(self, pid: int) -> Optional[Worker]:
        """A process is dead: the worker that it was. Its page may be its heir's by now."""
        worker = self.workers.pop(pid, None)
        if worker is not None and self._writers.get(worker.page_number) is worker:
            del self._writers[worker.page_number]
        return worker

    def writer(self, page: int) -> Optional[Worker]:
        """The worker that writes to this page."""
        return self._writers.get(page)

    def add(self, console: Console) -> Console:
        """A console is known from now on."""
        self.consoles[console.id] = console
        return console


def say(sock: socket.socket, text: str) -> None:
    """Tell somebody something, if it can be told at once."""
    try:
        sock.send(text.encode("utf-8", "replace"), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        pass  # it does not listen


def close(sock: socket.socket) -> None:
    """End a connection for both sides, whoever else holds a duplicate."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already
    sock.close()
