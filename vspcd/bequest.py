"""What this daemon leaves to the version that takes its place.

Does: describes everything that the daemon has as a ``vspcd.handover.State``.
Owns: nothing.
Never: changes anything: when the other version cannot begin, this one goes on.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Optional

import vspcd
from vspcd.config_schema import KEYS, Config, value_of
from vspcd.handover import (
    ClaimState,
    ConsoleState,
    Directory,
    DoorState,
    File,
    HelperState,
    MoveState,
    PacketListener,
    Packets,
    Parked,
    Pipe,
    Process,
    RecordState,
    State,
    TcpListener,
    UnixListener,
    WorkerState,
    plain,
)
from vspcd.table import ClientRecord, Console, LegRecord, Worker
from vspcd.unix.page import LAYOUT

if TYPE_CHECKING:
    from vspcd.master import Master

BUT_CONSOLE = frozenset({"worker", "leg", "clients", "tcp", "unix", "acceptors"})
BUT_RECORD = frozenset({"parked"})
BUT_CLAIM = frozenset({"leg", "console", "claimant"})


def of(master: Master) -> State:
    """All of it, as it stands at the end of a turn."""
    table, claims, tls = master.table, master.claims, master.tls
    tools, lasting = master.tools, master.nursery.lasting
    assert tools is not None
    return State(
        version=vspcd.__version__,
        began=master.began,
        frozen=time.monotonic(),
        next_number=next(table.numbers),
        settings=settings_of(master.config),
        run=str(master.config.dirs.run),
        directory=Directory(master.directory.fd),
        lock=File(master.directory.lock),
        arena=File(lasting.arena),
        layout=LAYOUT,
        sync=[Pipe(fd) for fd in lasting.sync],
        doors=[
            DoorState(door.name, *door.address, TcpListener(door.sock.fileno()))
            for door in master.doors.doors
        ],
        control=PacketListener(tools.listener.fileno()),
        adoption=PacketListener(master.adoption.door.fileno()),
        legs=[_record(leg) for leg in legs(master)],
        workers=[_worker(worker) for worker in table.workers.values()],
        consoles=[_console(console) for console in table.consoles.values()],
        claims=[
            ClaimState(
                plain(claim, BUT_CLAIM),
                claim.leg.number,
                claim.console.id,
                None if claim.claimant is None else claim.claimant.pid,
            )
            for claim in claims.waiting.values()
        ],
        unexplained={str(number): peer for number, peer in claims.unexplained.items()},
        move_key=claims.moves.key.hex(),
        moves=[
            MoveState(place.hex(), console.id, due) for place, (console, due) in claims.moves.expected.items()
        ],
        refused=claims.admission.refusals(),
        helpers=[
            HelperState(
                helper.pid,
                Packets(helper.channel.fileno()),
                helper.clients,
                sorted(helper.legs),
                helper.retiring,
                _process(helper.pidfd),
            )
            for helper in tls.helpers.values()
            if helper.channel.fileno() >= 0
        ],
        securing=sorted(tls.securing),
        certificate=tls.certificate,
        conversations=tools.lasting(),
    )


def settings_of(config: Config) -> dict[str, str]:
    """The configuration, fit for finding out what has changed."""
    return {name: repr(value_of(config, name)) for name in KEYS}


def legs(master: Master) -> list[LegRecord]:
    """Every VM connection that is parked, once."""
    found = [leg for worker in master.table.workers.values() for leg in worker.legs.values()]
    found += [console.leg for console in master.table.consoles.values() if console.leg is not None]
    found += [claim.leg for claim in master.claims.waiting.values()]
    return list({leg.number: leg for leg in found}.values())


def _record(record: LegRecord | ClientRecord) -> RecordState:
    number = record.parked.fileno()
    return RecordState(plain(record, BUT_RECORD), Parked(number) if number >= 0 else None)


def _process(pidfd: Optional[int]) -> Optional[Process]:
    return None if pidfd is None else Process(pidfd)


def _worker(worker: Worker) -> WorkerState:
    return WorkerState(
        worker.pid,
        Packets(worker.channel.fileno()),
        worker.page_number,
        worker.state,
        list(worker.legs),
        None if worker.console is None else worker.console.id,
        worker.quitting,
        worker.retiring,
        worker.hung,
        _process(worker.pidfd),
    )


def _console(console: Console) -> ConsoleState:
    return ConsoleState(
        plain(console, BUT_CONSOLE),
        None if console.worker is None else console.worker.pid,
        None if console.leg is None else console.leg.number,
        [_record(client) for client in console.clients.values()],
        None if console.tcp is None else TcpListener(_number(console.tcp)),
        None if console.unix is None else UnixListener(_number(console.unix)),
    )


def _number(sock: socket.socket) -> int:
    return sock.fileno()
