"""A simulated ESXi host's part in a VM: its serial ports dial the concentrator, and dial again.

Does: runs a guest per port, keeps each port connected as a host does, tells what happens, one line per
event.
Owns: the ports, their guests and their connections.
Never: moves a VM; vmotion.py does, through ``SerialPort``.

For tests, inside a running event loop:

    async with SimulatedVm(HostSettings(("127.0.0.1", 13370)), "web01", guest=Echo) as machine:
        await machine.connected()
        ...
        machine.port.sent, .received      bytes that went out and came in so far, over all connections
        machine.port.misplaced            bytes that came when a real host would lose them
        machine.port.guest                what is behind the port
        await machine.port.disconnect()   as a VM that is powered off; it dials again if it may

``SimulatedVm(..., labels=("a", "b"))`` has a port per label, each with a guest of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

from vspcd.simulator import vm
from vspcd.simulator.connection import Address, Connection, dial
from vspcd.simulator.deadline import within
from vspcd.simulator.guests import Guest, GuestFactory
from vspcd.simulator.line import PC_LINE, SerialLine
from vspcd.simulator.tls import Tls

NAMESPACE = uuid.UUID("6a3a8f0e-41a4-5d5e-9f0c-0d6c1f2b7a10")

SHOWN_LIMIT = 200
"""Characters of misplaced text that a report shows."""

ANSWER_DEADLINE = 15.0
"""Seconds that a concentrator has to accept or refuse a port before the host hangs up."""

PARTING = 0.5
"""Seconds that the concentrator has to take the last bytes of a host that ends."""

Log = Callable[[str], None]


class Backoff(NamedTuple):
    """Seconds before dialling again: the first, and the limit of its doubling."""

    first: float = 0.5
    limit: float = 10.0

    def delay(self, failures: int) -> float:
        """The wait after so many failures in a row, spread by a quarter so that VMs do not come in step."""
        longest: float = min(self.limit, self.first * 2.0 ** min(failures, 16))
        return longest * random.uniform(0.75, 1.0)


USUAL_BACKOFF = Backoff()


@dataclass(frozen=True)
class HostSettings:
    """How a host dials, from ``source``, and over TLS if that is set. It closes each connection after ``drop_after``
    seconds; it vanishes ``vanish_after`` seconds after it was accepted, and is never heard of again."""

    proxy: Address
    source: Optional[str] = None
    service: str = "vSPC.py"
    line: Optional[SerialLine] = PC_LINE
    reconnect: bool = True
    backoff: Backoff = USUAL_BACKOFF
    drop_after: Optional[float] = None
    vanish_after: Optional[float] = None
    tls: Optional[Tls] = None


def derived_uuid(name: str) -> str:
    """The 32 hex digits that a VM of this name always has."""
    return uuid.uuid5(NAMESPACE, name).hex


def quiet(line: str) -> None:
    """A log that forgets."""


class SerialPort:
    """One serial port of a VM with the guest behind it."""

    def __init__(
        self, host: HostSettings, identity: vm.Identity, label: Optional[str], guest: GuestFactory, log: Log
    ) -> None:
        self.host = host
        self.source = host.source
        self.identity = identity
        self.title = identity.name if label is None else f"{identity.name} ({label})"
        self.guest: Guest = guest(self.report)
        self.connection: Optional[Connection] = None
        self.accepted = 0
        self.refused = 0
        self.misplaced = 0
        self._uri = host.service if label is None else f"{host.service}?port={label}"
        self._log = log
        self._changed: set[asyncio.Future[None]] = set()
        self._connections: set[Connection] = set()
        self._vanished: list[Connection] = []
        self._moving = False
        self._past_sent = 0
        self._past_received = 0

    # -- what people and tests do

    @property
    def open(self) -> bool:
        """Console data flows."""
        return (
            self.connection is not None and self.connection.machine.open and not self.connection.closed.done()
        )

    @property
    def sent(self) -> int:
        """Bytes of the guest that went out, over all connections."""
        return self._past_sent + sum(connection.sent for connection in self._connections)

    @property
    def received(self) -> int:
        """Bytes for the guest that came in, over all connections."""
        return self._past_received + sum(connection.received for connection in self._connections)

    async def connected(self) -> None:
        """Wait until the concentrator has accepted this port."""
        await self.until(lambda: self.open)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that an event of this port makes true."""
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._changed.add(future)
            try:
                await future
            finally:
                self._changed.discard(future)

    async def vanish(self) -> None:
        """The host is gone from one moment to the next: nothing is closed, nothing acknowledged, nothing dialled."""
        connections = tuple(self._connections)
        self._vanished += connections
        await asyncio.gather(*(connection.vanish() for connection in connections))

    async def disconnect(self) -> None:
        """Close the connection so that everything sent arrives."""
        if self.connection is not None:
            await self.connection.finish()

    def rename(self, name: str) -> None:
        """The VM has another name, and tells it."""
        self.identity = self.identity._replace(name=name)
        if self.connection is not None:
            self.connection.machine.rename(name)
            self.connection.wake()

    def report(self, text: str) -> None:
        """One line to the log."""
        self._log(f"{self.title}: {text}")

    # -- what a host does

    async def run(self) -> None:
        """Run the guest and keep the port connected; without ``reconnect`` until the connection's end."""
        guest = asyncio.ensure_future(self.guest.run())
        dialling = asyncio.ensure_future(self._stay_connected())
        try:
            await asyncio.wait({guest, dialling}, return_when=asyncio.FIRST_COMPLETED)
            if guest.done():
                guest.result()
            await dialling
        finally:
            for task in (dialling, guest):
                task.cancel()
            await asyncio.gather(dialling, guest, return_exceptions=True)
            await self._part()

    async def dial(self) -> Connection:
        """Dial as a VM does that is switched on. Raises OSError."""
        return await self.open_connection(self.source)

    async def open_connection(
        self, source: Optional[str], ticket: Optional[vm.Ticket] = None, identity_first: bool = False
    ) -> Connection:
        """Dial from an address; with a ticket as the target of a vMotion. Raises OSError."""
        machine = vm.Vm(
            self.identity, self._uri, line=self.host.line, ticket=ticket, identity_first=identity_first
        )
        host = self.host
        connection = await dial(host.proxy, source, host.tls, machine, self.guest, self.on_event)
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._gone(connection))
        self.report(f"dialled {self.host.proxy[0]}:{self.host.proxy[1]} from {connection.local}")
        return connection

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Whoever may put another connection in the place of this one, one at a time."""
        await self.until(lambda: not self._moving)
        self._moving = True
        try:
            yield
        finally:
            self._moving = False
            self.notify()

    def on_event(self, connection: Connection, event: vm.Event) -> None:
        """Tell and count what a connection's machine heard."""
        _TELL.get(type(event), SerialPort._nothing)(self, connection, event)
        self.notify()

    def notify(self) -> None:
        """Let every ``until`` look again."""
        for future in self._changed:
            if not future.done():
                future.set_result(None)

    async def _stay_connected(self) -> None:
        failures, complaint = 0, ""
        while True:
            accepted = self.accepted
            try:
                self.connection = await self.dial()
            except OSError as error:
                complaint = self._complain(complaint, error)
            else:
                complaint = ""
                await self._serve()
            if self._vanished:
                await asyncio.get_running_loop().create_future()  # until cancelled
            failures = 0 if self.accepted > accepted else failures + 1
            if not self.host.reconnect:
                return
            await asyncio.sleep(self.host.backoff.delay(failures))

    async def _serve(self) -> None:
        """Stay while the port has a connection; a vMotion may put another one in its place."""
        while (connection := self.connection) is not None:
            reason = await self._ended(connection)
            self.report(f"closed: {reason}")
            async with self.alone():
                if self.connection is connection:
                    self.connection = None

    async def _part(self) -> None:
        """Let every connection send its last bytes, and end it."""
        connections = list(self._connections)
        for connection in connections:
            connection.shut()
        if connections:
            await asyncio.wait({connection.closed for connection in connections}, timeout=PARTING)
        for connection in connections:
            await connection.cut("the host ended")
        for connection in self._vanished:
            connection.bury()

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._past_sent += connection.sent
        self._past_received += connection.received
        self.notify()

    def _complain(self, before: str, error: OSError) -> str:
        """Tell why dialling failed, unless it is what was told before."""
        complaint = os.strerror(error.errno) if error.errno else str(error)
        if complaint != before:
            self.report(f"cannot dial: {complaint}" + ("; trying again" if self.host.reconnect else ""))
        return complaint

    async def _ended(self, connection: Connection) -> str:
        try:
            await within(ANSWER_DEADLINE, self.until(lambda: _answered(connection)))
        except asyncio.TimeoutError:
            return await connection.cut(f"neither accepted nor refused within {ANSWER_DEADLINE:g} s")
        if self.host.drop_after is not None:
            await asyncio.wait({connection.closed}, timeout=self.host.drop_after)
            connection.shut()
        if self.host.vanish_after is not None:
            await asyncio.wait({connection.closed}, timeout=self.host.vanish_after)
            if not connection.closed.done():
                await self.vanish()
        await asyncio.wait({connection.closed})
        return connection.closed.result()

    # -- what is told

    def _accepted(self, connection: Connection, event: vm.Event) -> None:
        self.accepted += 1
        self.report("accepted: WILL-PROXY")

    def _refused(self, connection: Connection, event: vm.Event) -> None:
        self.refused += 1
        self.report("refused: WONT-PROXY")
        connection.shut()

    def _misplaced(self, connection: Connection, event: vm.Misplaced) -> None:
        self.misplaced += len(event.data)
        self.report(
            f"{len(event.data)} bytes that a host would lose: {ascii(event.data[:SHOWN_LIMIT])[2:-1]}"
        )

    def _break(self, connection: Connection, event: vm.Event) -> None:
        self.report("break received")
        self.guest.send_break()

    def _unknown(self, connection: Connection, event: vm.Unknown) -> None:
        self.report(f"the concentrator does not know command {event.code}")

    def _nothing(self, connection: Connection, event: vm.Event) -> None:
        """What vmotion.py waits for, and tells."""


_TELL: dict[type, Callable[..., None]] = {
    vm.Accepted: SerialPort._accepted,
    vm.Refused: SerialPort._refused,
    vm.Misplaced: SerialPort._misplaced,
    vm.Break: SerialPort._break,
    vm.Unknown: SerialPort._unknown,
}


def _answered(connection: Connection) -> bool:
    return connection.closed.done() or connection.machine.state in (vm.OPEN, vm.REFUSED)


class SimulatedVm:
    """A VM: one serial port per label, run as tasks between ``async with`` and its end."""

    def __init__(
        self,
        host: HostSettings,
        name: str,
        *,
        guest: GuestFactory = Guest,
        uuid: Optional[str] = None,
        labels: tuple[Optional[str], ...] = (None,),
        log: Log = quiet,
        port: type[SerialPort] = SerialPort,
    ) -> None:
        self.identity = vm.Identity(uuid or derived_uuid(name), name)
        self.ports = [port(host, self.identity, label, guest, log) for label in labels]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> SerialPort:
        """The only port, or the first."""
        return self.ports[0]

    async def __aenter__(self) -> SimulatedVm:
        self._tasks = [asyncio.ensure_future(port.run()) for port in self.ports]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def connected(self, timeout: float = 10.0) -> None:
        """Wait until every port is accepted. Raises asyncio.TimeoutError."""
        await within(timeout, self._connected())

    async def _connected(self) -> None:
        for port in self.ports:
            await port.connected()

    async def ended(self) -> None:
        """Wait until every port has ended, as they do without ``reconnect``; raises what broke one."""
        await asyncio.gather(*self._tasks)

    def rename(self, name: str) -> None:
        """Give the VM another name, told on every connection."""
        self.identity = self.identity._replace(name=name)
        for port in self.ports:
            port.rename(name)
