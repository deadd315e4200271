"""What the version before has left: its state turned into records again, and taken over.

Does: finds the state that was left, checks all of it, makes the records, gives them to the master's parts.
Owns: nothing once that is done.
Never: uses a part of a state that does not fit as a whole: it is set aside, and the daemon starts as after a crash.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, TypeVar

import vspcd
from vspcd import handover
from vspcd.bequest import BUT_CLAIM, BUT_CONSOLE, BUT_RECORD, settings_of
from vspcd.claims import Claim
from vspcd.doors import Door
from vspcd.handover import RecordState, State, Unfit, WorkerState, checked
from vspcd.proto.control import ANY, NEGOTIATING
from vspcd.spawn import Inherited
from vspcd.table import ClientRecord, Console, LegRecord, Worker
from vspcd.tlshelpers import TlsHelper
from vspcd.unix import process
from vspcd.unix.channel import Channel
from vspcd.unix.failpoint import reached
from vspcd.unix.logline import Log
from vspcd.unix.page import LAYOUT

if TYPE_CHECKING:
    from vspcd.master import Master

SET_ASIDE = "handover.rejected"

K = TypeVar("K")
V = TypeVar("V")


class Inheritance(NamedTuple):
    """The state, and the records that it describes but for the workers, which need their pages."""

    state: State
    legs: Mapping[int, LegRecord]
    consoles: Mapping[str, Console]

    @property
    def lasting(self) -> Inherited:
        """What children inherit in their turn."""
        reader, writer = self.state.sync
        pages = frozenset(worker.page for worker in self.state.workers)
        return Inherited(self.state.arena, pages, (reader, writer))


def found(log: Log, state_directory: Path, run: Path) -> Optional[Inheritance]:
    """What the version before has left; None when it has left nothing, or nothing that can be trusted."""
    text = os.environ.pop(handover.VARIABLE, None)
    if text is None:
        return None
    fd, inheritance, reason = int(text), None, ""
    try:
        state = handover.unpack(fd)
        handover.check(state)
        inheritance = of(state, run, _socket)
    except Unfit as unfit:
        reason = str(unfit)
    if inheritance is None:
        log.error("handover-rejected", reason=reason, kept_in=_set_aside(fd, state_directory))
        # Whatever is open came from there. Its other ends notice, and come back as after a crash.
        gc.collect()
        os.closerange(max(process.KEPT) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        return None
    os.close(fd)
    for each in handover.descriptors(state):
        os.set_inheritable(each, False)
    reached("upgrade.trusted")
    return inheritance


def fits(fd: int, run: Path) -> State:
    """The state in a memory file whose descriptors are in another process. Raises Unfit."""
    state = handover.unpack(fd)
    with socket.socket() as stand_in:
        of(state, run, lambda _fd: stand_in)
    return state


def _set_aside(fd: int, directory: Path) -> Optional[str]:
    """Keep the state for whoever wants to know what was wrong with it."""
    path = directory / SET_ASIDE
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(os.pread(fd, handover.STATE_LIMIT, 0))
    except OSError:
        return None
    return str(path)


def of(state: State, run: Path, take: Callable[[int], socket.socket]) -> Inheritance:
    """The records of a state, with the sockets that ``take`` makes of descriptors. Raises Unfit."""
    if state.run != str(run):
        raise Unfit(f"dirs.run has changed from {state.run} to {run}, which needs a restart")
    if state.layout != LAYOUT:
        raise Unfit(
            f"its workers' pages have layout {state.layout}, and this version knows {LAYOUT};"
            f" to change to this version, {handover.RESTART}"
        )
    legs = {}
    for each in state.legs:
        leg = LegRecord(
            **checked(LegRecord, each.facts, "a connection", BUT_RECORD), parked=_parked(each, take)
        )
        legs[leg.number] = leg
    consoles = {}
    for item in state.consoles:
        console = Console(**checked(Console, item.facts, "a console", BUT_CONSOLE))
        console.leg = None if item.leg is None else _known(legs, item.leg, "connection")
        for record in item.clients:
            facts = checked(ClientRecord, record.facts, "a client", BUT_RECORD)
            client = ClientRecord(**facts, parked=_parked(record, take))
            console.clients[client.number] = client
        console.tcp = None if item.tcp is None else take(item.tcp)
        console.unix = None if item.unix is None else take(item.unix)
        consoles[console.id] = console
    _check(state, legs, consoles)
    return Inheritance(state, legs, consoles)


def _check(state: State, legs: Mapping[int, LegRecord], consoles: Mapping[str, Console]) -> None:
    pids = {worker.pid: worker for worker in state.workers}
    for worker in state.workers:
        if worker.state not in ANY or not 0 <= worker.page < 1 << 15:
            raise Unfit(f"worker {worker.pid} is {worker.state!r} on page {worker.page}")
        for number in worker.legs:
            _known(legs, number, "connection")
        if worker.console is not None:
            _known(consoles, worker.console, "console")
    for console in state.consoles:
        if console.worker is not None:
            _known(pids, console.worker, "worker")
    for claim in state.claims:
        checked(Claim, claim.facts, "a claim", BUT_CLAIM)
        _known(legs, claim.leg, "connection")
        _known(consoles, claim.console, "console")
        if claim.claimant is not None:
            _known(pids, claim.claimant, "worker")
    for move in state.moves:
        _known(consoles, move.console, "console")
    try:
        bytes.fromhex(state.move_key + "".join(move.place for move in state.moves))
        [(int(number), peer) for number, peer in state.unexplained.items()]
        [(str(each["peer"]), each["reason"], each["count"]) for each in state.refused]
    except (ValueError, KeyError) as error:
        raise Unfit(f"a detail is wrong: {error}") from None


def _known(records: Mapping[K, V], key: K, what: str) -> V:
    try:
        return records[key]
    except KeyError:
        raise Unfit(f"it names the {what} {key} and does not describe it") from None


def _parked(record: RecordState, take: Callable[[int], socket.socket]) -> socket.socket:
    if record.fd is not None:
        return take(record.fd)
    over = socket.socket()
    over.close()
    return over


def _socket(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


def take_over(master: Master, inheritance: Inheritance) -> None:
    """Go on with what the version before had. The map and the keeper are not part of it."""
    state = inheritance.state
    master.table.number_from(state.next_number)
    for console in inheritance.consoles.values():
        master.table.add(console)
        master.listeners.remember(console)
    for each in state.workers:
        master.supervisor.serve(_worker(master, inheritance, each))
    for item, console in zip(state.consoles, inheritance.consoles.values()):
        console.worker = None if item.worker is None else master.table.workers[item.worker]
    _claims(master, inheritance)
    for helper in state.helpers:
        channel = Channel(_socket(helper.channel))
        master.tls.inherit(
            TlsHelper(helper.pid, channel, helper.clients, set(helper.legs), helper.retiring, helper.pidfd)
        )
    master.tls.securing.update(state.securing)
    master.tls.certificate = state.certificate
    doors = [Door(each.name, (each.host, each.port), _socket(each.fd)) for each in state.doors]
    master.doors.inherit(master.config, doors)
    new = settings_of(master.config)
    for name in sorted(new.keys() | state.settings.keys()):
        if new.get(name) != state.settings.get(name):
            master.log.warning("config-changed", change=f"{name} changed: in force with this version")


def _worker(master: Master, inheritance: Inheritance, each: WorkerState) -> Worker:
    legs = {number: inheritance.legs[number] for number in each.legs}
    console = None if each.console is None else inheritance.consoles[each.console]
    channel = Channel(_socket(each.channel))
    worker = Worker(each.pid, channel, each.page, master.nursery.page(each.page), each.state, legs, console)
    worker.quitting, worker.retiring, worker.hung = each.quitting, each.retiring, each.hung
    worker.pidfd = each.pidfd
    return worker


def _claims(master: Master, inheritance: Inheritance) -> None:
    state, claims = inheritance.state, master.claims
    for each in state.claims:
        facts = checked(Claim, each.facts, "a claim", BUT_CLAIM)
        claimant = None if each.claimant is None else master.table.workers[each.claimant]
        console = inheritance.consoles[each.console]
        claims.wait(Claim(leg=inheritance.legs[each.leg], console=console, claimant=claimant, **facts))
    claims.unexplained.update({int(number): peer for number, peer in state.unexplained.items()})
    claims.moves.key = bytes.fromhex(state.move_key)
    for move in state.moves:
        claims.moves.expected[bytes.fromhex(move.place)] = (inheritance.consoles[move.console], move.due)
    claims.admission.remember(state.refused)
    for worker in master.table.workers.values():
        if worker.state == NEGOTIATING and worker.only_leg is not None:
            claims.admission.begins(worker.only_leg.peer)
    for peer in claims.unexplained.values():
        claims.admission.begins(peer)


def report(master: Master, state: State) -> str:
    """What a tool that asked for the upgrade is told."""
    waited = (time.monotonic() - state.frozen) * 1000
    return f"upgraded from {state.version} to {vspcd.__version__}; new connections waited {waited:.0f} ms"
