"""One TCP connection from a simulated host to the concentrator: moves bytes, and nothing else.

Does: dials; reads into the VM's protocol machine and on into the guest; writes the machine's answers
first and the guest's output after them; ends a connection so that nothing that was sent is lost, or vanishes.
Owns: the wire and two tasks.
Never: decides when to dial, to move or to give up.

Flow control: a guest that takes nothing stops the reading, a concentrator that takes nothing stops the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Callable, Optional

from vspcd.proto import telnet
from vspcd.proto.errors import PeerError
from vspcd.simulator import vm
from vspcd.simulator.deadline import within
from vspcd.simulator.guests import Guest
from vspcd.simulator.tls import Tls
from vspcd.simulator.wire import TlsWire, Wire

ANSWERS_LIMIT = 65536
"""Bytes of answers that may wait; more than that, and the connection reads nothing until they are out."""

PIECE = 16384
"""Bytes of the guest's output that are escaped and sent at once."""

LINGER = 5.0
"""Seconds that the concentrator has to close its side after ours was closed."""

DIAL_DEADLINE = 10.0
HANDSHAKE_DEADLINE = 20.0

LAST_WORDS = 1.0
"""Seconds that the concentrator's kernel has to take what a vanishing host has sent already."""

Address = tuple[str, int]
OnEvent = Callable[["Connection", vm.Event], None]


async def dial(
    proxy: Address, source: Optional[str], tls: Optional[Tls], machine: vm.Vm, guest: Guest, on_event: OnEvent
) -> Connection:
    """Dial and begin. Raises OSError, also when a deadline passes."""
    family = socket.AF_INET6 if ":" in proxy[0] else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if source is not None:
            connection.bind((source, 0))
        await _connect(connection, proxy)
        wire = Wire(connection) if tls is None else await _secured(connection, tls)
        return Connection(wire, machine, guest, on_event)
    except BaseException:
        connection.close()
        raise


async def _connect(connection: socket.socket, proxy: Address) -> None:
    try:
        await within(DIAL_DEADLINE, asyncio.get_running_loop().sock_connect(connection, proxy))
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer within {DIAL_DEADLINE:g} s") from None


async def _secured(connection: socket.socket, tls: Tls) -> Wire:
    wire = TlsWire(connection, tls)
    try:
        await within(HANDSHAKE_DEADLINE, wire.handshake())
    except asyncio.TimeoutError:
        raise TimeoutError(f"no end of the TLS handshake within {HANDSHAKE_DEADLINE:g} s") from None
    return wire


class Connection:
    """A connection that is made. ``closed`` is done, with the reason, when it is over."""

    def __init__(self, wire: Wire, machine: vm.Vm, guest: Guest, on_event: OnEvent) -> None:
        self.machine = machine
        self.guest = guest
        self.local = wire.local
        self.received = 0
        self.sent = 0
        self.misplaced = 0
        self._wire = wire
        self._on_event = on_event
        self._held = False
        self._shut = False
        self._over = False
        self._silent = False
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._cut_reason = "the host ended"
        guest.output.watchers.add(self.wake)
        machine.start()
        self.closed: asyncio.Task[str] = asyncio.ensure_future(self._run())

    # -- what the host does

    def wake(self) -> None:
        """The protocol machine or the guest may have something to send."""
        if not self._over:
            self._idle.clear()
            self._changed.set()

    async def hold(self) -> None:
        """Take no more of the guest's output; returns when what was taken is with the kernel."""
        self._held = True
        self.wake()
        await self._idle.wait()

    def release(self) -> None:
        """Take the guest's output again."""
        self._held = False
        self.wake()

    async def acknowledged(self) -> None:
        """Wait until the concentrator's kernel has all that was sent."""
        await self._idle.wait()
        while not self._over and self._wire.unacknowledged():
            await asyncio.sleep(0.001)

    def shut(self) -> None:
        """Close our side once what was taken is out; the rest ends by itself, within ``LINGER``."""
        self._held = True
        self._shut = True
        self.wake()

    async def finish(self) -> str:
        """Close our side, wait for the other; the reason of the end."""
        self.shut()
        await asyncio.wait({self.closed})
        return self.closed.result()

    async def cut(self, reason: str) -> str:
        """End it now; the reason of the end."""
        self._cut_reason = reason
        self.closed.cancel()
        await asyncio.wait({self.closed})
        self._leave()
        return reason if self.closed.cancelled() else self.closed.result()

    async def vanish(self) -> str:
        """Fall silent for the concentrator, until ``bury``; the reason of the end."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(LAST_WORDS, self._fall_quiet())
        self._silent = not self._over
        if self._silent:
            self._wire.silence()
        return await self.cut("the host has vanished")

    async def _fall_quiet(self) -> None:
        await self.hold()
        await self.acknowledged()

    def bury(self) -> None:
        """Close what has vanished; the concentrator gets to know of it."""
        self._wire.close()

    # -- the two tasks

    async def _run(self) -> str:
        reader = asyncio.ensure_future(_outcome(self._read()))
        writer = asyncio.ensure_future(_outcome(self._write()))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if self._shut and not reader.done():
                await asyncio.wait({reader}, timeout=LINGER)
            return (writer if writer.done() else reader).result()
        except asyncio.CancelledError:
            return self._cut_reason
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._leave()

    def _leave(self) -> None:
        self._over = True
        self._idle.set()
        self.guest.output.watchers.discard(self.wake)
        if not self._silent:
            self._wire.close()

    async def _read(self) -> str:
        while True:
            data = await self._wire.read()
            if not data:
                return "closed by the concentrator"
            events = self.machine.receive(data)
            self.wake()
            for event in events:
                await self._handle(event)
            while self.machine.output_size > ANSWERS_LIMIT:
                await self._idle.wait()

    async def _handle(self, event: vm.Event) -> None:
        if isinstance(event, vm.Data):
            self.received += len(event.data)
            await self.guest.input.put(event.data)
            return
        if isinstance(event, vm.Misplaced):
            self.misplaced += len(event.data)
        self._on_event(self, event)
        self.wake()

    async def _write(self) -> str:
        while True:
            self._changed.clear()
            answers = self.machine.take_output()
            if answers:
                await self._send(answers)
            elif self.machine.open and not self._held and len(self.guest.output):
                await self._send_piece()
            elif self._shut:
                self._idle.set()
                await self._wire.shut()
                return "closed by the host"
            else:
                self._idle.set()
                await self._changed.wait()

    async def _send_piece(self) -> None:
        """What the kernel took is gone from the guest, also when the connection breaks in the middle."""
        piece = self.guest.output.peek(PIECE)
        wire, out = telnet.escape(piece), 0
        try:
            while out < len(wire):
                out += await self._wire.write(wire[out:])
        finally:
            whole, half = telnet.escaped_prefix(piece, out)
            self.sent += whole + half
            self.guest.output.consume(whole + half)

    async def _send(self, wire: bytes) -> None:
        while wire:
            wire = wire[await self._wire.write(wire) :]


async def _outcome(work: Coroutine[object, object, str]) -> str:
    """Why a task of a connection ended; any other error than the peer's and the network's is a bug."""
    try:
        return await work
    except OSError as error:
        return error.strerror or str(error)
    except PeerError as error:
        return f"the concentrator broke the protocol: {error}"
