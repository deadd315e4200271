"""Failpoints: named places at which a process can be made to fail. For tests only.

Does: when a process reaches the place NAME and the folder ``VSPCD_FAILPOINTS`` holds a file NAME, removes the file and
fails as its content says, whichever process comes first: once, or as often as the number behind the failure says.
Owns: nothing.
Never: does anything without that environment variable, which nothing but tests sets.

A file that is empty or says ``kill`` is a SIGKILL at that very instruction; see ``FAILURES`` for the others. What
happens before a place and what after it is what its name says: ``leg.send`` is reached before the bytes are sent,
``leg.sent`` when they are.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Callable, Final

DIRECTORY: Final = os.environ.get("VSPCD_FAILPOINTS", "")
EATEN = 1 << 20  # bytes at a time


class Provoked(RuntimeError):
    """A bug that a test has asked for."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _loop() -> None:
    while True:
        pass


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(16) * (EATEN // 16)))


def _raise() -> None:
    raise Provoked("a failpoint")


FAILURES: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        "": _kill,
        "kill": _kill,
        "segfault": _segfault,
        "stop": _stop,
        "loop": _loop,
        "eat": _eat,
        "raise": _raise,
    }
)

POINTS: Mapping[str, str] = MappingProxyType(
    {
        # From the VM to the log and the clients.
        "leg.peeked": "the worker has looked at what the VM said",
        "turn.parsed": "what was seen has been dealt with, the replies are not sent",
        "turn.replied": "the replies are sent, the master is not told",
        "turn.told": "the master knows the session's state, nothing is consumed",
        "leg.consume": "it is noted how far the VM's bytes are dealt with, the kernel has them still",
        "leg.forget": "between two calls that let the kernel forget them",
        "leg.consumed": "the kernel has forgotten them",
        "leg.held": "they are dealt with, and the kernel keeps them for whoever may go on",
        "log.write": "before the log file is written",
        "log.wrote": "the log file has the bytes, nothing is noted of them",
        "log.rotate": "the log file is full, nothing is renamed",
        "log.shifted": "the log file is renamed, its index is not",
        "log.renamed": "both are renamed, the new ones do not exist",
        "log.created": "the new file is there, its place is not noted",
        "log.sync": "log.sync is always, and the log file has the bytes",
        "log.synced": "and the disk has them",
        # Logs in trouble.
        "log.spool": "before the spool is written",
        "log.spooled": "the spool has the bytes, nothing is noted of them",
        "log.copied": "some of the spool is in the log",
        "log.mark": "a marker is about to be written, and that is noted",
        "log.marked": "the marker is in the log and does not count yet",
        "log.told": "and in the index",
        "log.skipped": "it counts",
        "log.recovered": "all that waited is in the log, the spool is still there",
        "log.cleared": "the spool is gone, the log is noted to be in trouble",
        "log.displaced": "the log file has lost its name, nothing is done about it",
        "console.logged": "the bytes are in the log, the head does not say so",
        "console.head": "the head says so, no client has them",
        "client.send": "before a client is sent something",
        "client.sent": "it was sent, its cursor does not say so",
        "client.noted": "its cursor says so",
        # From a client to the VM.
        "typing.peeked": "what a client typed was looked at",
        "typing.begin": "its batch is about to begin, nobody is noted as typing",
        "typing.begun": "it is noted whose batch is on its way",
        "leg.send": "before the VM is sent typing or a reply",
        "leg.sent": "it was sent, nothing is noted of it",
        "leg.noted": "it is noted how much was sent",
        "typing.sent": "the whole batch is out, the client's socket has it still",
        "typing.settled": "the batch is settled, the client's socket has it still",
        "typing.doubt": "the typist cannot be counted and is noted no more, the client's socket has it still",
        "typing.done": "the client's socket has forgotten it, the client is noted as typing still",
        "typing.over": "nobody is noted as typing",
        "typing.half": "half an escape was sent",
        # A group of facts in the page.
        "page.put": "the new facts are written and not in force",
        "page.force": "the new facts are in force",
        "page.client": "a client's new facts are written and not in force",
        # Before it is known whose a connection is.
        "negotiate.begin": "a worker has a connection, nothing is done about it",
        "negotiate.counted": "it has found out what a dead one has said",
        "negotiate.source": "the master knows where a balancer's connection comes from, its header is not consumed",
        "negotiate.tls": "the master was asked for plaintext",
        "negotiate.told": "the master knows how the negotiation stands, the kernel has all of it",
        "negotiate.asked": "the master knows what will be said to a VM that has not called for it",
        "negotiate.stranger": "the worker knows that nobody waits for the VM's pair",
        "negotiate.aside": "what has killed others is in a file, the master does not know",
        # Coming and going.
        "claim.told": "the console is claimed",
        "own.begin": "the console was granted, nothing is done about it",
        "connect.begin": "before the master is told that the VM is connected",
        "connect.told": "the master knows, the books are not begun",
        "connect.booked": "the books are begun, nothing is sent to the VM",
        "connect.done": "the VM is connected and served",
        "take.begin": "a newcomer is our VM, the old connection is still there",
        "take.replaced": "the old connection is closed, the new one is not ours",
        "take.told": "the master knows that the new connection is ours",
        "disconnect.begin": "the VM is gone, nobody was told",
        "disconnect.told": "the master was told",
        "client.attach": "a client came, it has no place in the page",
        "client.attached": "it has one and is served",
        "client.told": "the master knows how far a client's telnet is, and nothing of that is consumed",
        "client.detach": "a client is gone, nobody was told",
        # Going on for a dead worker.
        "resume.own": "before the log is opened again",
        "resume.opened": "the log is open and read",
        "resume.leg": "before the VM's connection is looked at",
        "resume.discarded": "what was dealt with is forgotten by the kernel",
        "resume.booked": "the VM's connection is ours",
        "resume.client": "before a client is looked at",
        "resume.resumed": "a client is ours",
        "resume.begin": "everything is here",
        "resume.done": "everything is served",
        # The master, when another version takes its place.
        "upgrade.checked": "the other version has said that it can go on",
        "upgrade.packed": "the state is written down, nothing is given up",
        "upgrade.exec": "before the other version is executed",
        "upgrade.trusted": "it trusts the state, nothing is done with it",
        "upgrade.taken": "it has taken over everything, nobody was told",
        # A master that dies, and another one.
        "adopt.orphaned": "a child has noticed that the master is dead",
        "adopt.here": "a worker has knocked at the new master's door",
        "adopt.moved": "its page is in the new master's arena, the master does not know who it is",
        "adopt.told": "it has told a part of what it serves",
        "adopt.complete": "the master has been told everything by one of them, and has done nothing",
        "adopt.known": "the master knows them all, nobody was told",
        "adopt.adopted": "a worker goes on under the new master",
        # vMotion.
        "move.action": "before a step of a move",
        "move.acted": "after a step of a move",
        "move.told": "the master knows how the move stands",
        "move.joins": "the target is offered, nobody was told",
        "move.joined": "the master knows that the target is ours",
        "move.drained": "the source's last bytes are in, the target is not the VM's connection yet",
        "move.switched": "the target is the VM's connection",
    }
)


def _pass(_name: str) -> None:
    """Nothing fails."""


def _reached(name: str) -> None:
    path = os.path.join(DIRECTORY, name)
    taken = f"{path}.{os.getpid()}"
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return
    with open(taken, encoding="ascii") as file:
        failure, _, times = file.read().strip().partition(" ")
    if int(times or 1) > 1:
        with open(taken, "w", encoding="ascii") as file:
            file.write(f"{failure} {int(times) - 1}")
        os.rename(taken, path)
    else:
        os.unlink(taken)
    FAILURES[failure]()


reached: Final[Callable[[str], None]] = _reached if DIRECTORY else _pass
"""Say that a place of ``POINTS`` is reached."""
