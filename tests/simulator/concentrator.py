"""A concentrator for the simulator's tests: the protocol session on asyncio sockets, and a record of all.

Does: accepts or refuses VMs, moves their consoles, records what they say per console, types to them.
Owns: one listener on an ephemeral port, the connections that came.
Never: is a model for the real one: it logs nothing, limits nothing and knows no deadline.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Callable, Optional

from vspcd.proto import telnet, vmware
from vspcd.proto.telnet import Subnegotiation

DEADLINE = 10.0

RECEIVE_BUFFER = 262144
"""Bytes that the kernel takes for a leg that is not read: few enough to see a sender stop."""


class Console:
    """What a VM's port said, over all its connections, and what is typed to it."""

    def __init__(self) -> None:
        self.journal = bytearray()
        self.leg: Optional[Leg] = None
        self.source: Optional[Leg] = None
        self.target: Optional[Leg] = None
        self.sequence = b""
        self.secret = b""
        self.held: Optional[bytearray] = None

    async def send(self, data: bytes) -> None:
        """Type: to the leg, or for later while a vMotion is under way."""
        if self.held is not None:
            self.held += data
        else:
            assert self.leg is not None
            await self.leg.send(data)

    async def release(self) -> None:
        """Send what was held to whoever is the leg now."""
        held, self.held = self.held, None
        if held:
            await self.send(bytes(held))


class Leg:
    """One connection from a VM."""

    def __init__(self, owner: Concentrator, connection: socket.socket) -> None:
        self.owner = owner
        self.session = vmware.Session()
        self.socket = connection
        self.peer: str = connection.getpeername()[0]
        self.console: Optional[Console] = None
        self.events: list[vmware.Event] = []
        self.data = bytearray()
        self.commands: list[int] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.ended = asyncio.Event()
        self._tail = bytearray()
        self._turn = asyncio.Lock()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self.session.start()
        await self.flush()
        try:
            while True:
                await self.reading.wait()
                data = await loop.sock_recv(self.socket, 65536)
                if not data:
                    break
                await self._feed(data)
                await self.flush()
                self.owner.notify()
        except OSError:
            pass
        finally:
            self.ended.set()
            self.socket.close()
            self.owner.notify()

    async def _feed(self, data: bytes) -> None:
        self._tail += data
        tokens = telnet.tokens(self._tail)
        if tokens:
            del self._tail[: tokens[-1][1]]
        for token, _ in tokens:
            if isinstance(token, bytes):
                self.data += token
                if self.console is not None:
                    self.console.journal += token
                continue
            if isinstance(token, Subnegotiation) and token.option == telnet.VMWARE:
                self.commands.append(token.payload[0])
            for event in self.session.receive(token):
                self.events.append(event)
                await self.owner.on_event(self, event)

    async def flush(self) -> None:
        """Send the session's answers."""
        async with self._turn:
            output = self.session.take_output()
            if output:
                await asyncio.get_running_loop().sock_sendall(self.socket, output)

    async def send(self, data: bytes) -> None:
        """Send console data to the VM, behind the answers that wait."""
        await self.flush()
        async with self._turn:
            await asyncio.get_running_loop().sock_sendall(self.socket, telnet.escape(data))

    def heard(self, kind: type) -> bool:
        """Whether such an event came."""
        return any(isinstance(event, kind) for event in self.events)

    async def close(self) -> None:
        """Hang up."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Concentrator:
    """``async with Concentrator() as it``: listens at ``it.address``."""

    def __init__(self, accept: bool = True, vmotion: str = "goahead", port: int = 0) -> None:
        """``accept`` False: WONT-PROXY to all. ``vmotion``: goahead, notnow or silence is what BEGIN gets."""
        self.accept = accept
        self.vmotion = vmotion
        self.legs: list[Leg] = []
        self.consoles: dict[tuple[str, Optional[str]], Console] = {}
        self._port = port
        self._waiting: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Concentrator:
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._accepting = asyncio.ensure_future(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        for leg in self.legs:
            await leg.close()

    async def _accept(self) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            connection.setblocking(False)
            self.legs.append(Leg(self, connection))
            self.notify()

    @property
    def console(self) -> Console:
        """The only console."""
        (console,) = self.consoles.values()
        return console

    async def on_event(self, leg: Leg, event: vmware.Event) -> None:
        if isinstance(event, (vmware.ProxyRequest, vmware.Identity)):
            self._welcome(leg)
        elif isinstance(event, vmware.VmotionBegin):
            self._begin(leg, event.sequence)
        elif isinstance(event, vmware.VmotionPeer):
            self.peer(leg, event.pair)
        elif isinstance(event, vmware.VmotionAbort) and leg.console is not None and leg is leg.console.source:
            leg.console.sequence = b""
            await leg.console.release()
        elif isinstance(event, vmware.VmotionComplete):
            await self._complete(leg)

    def _welcome(self, leg: Leg) -> None:
        session = leg.session
        if session.proxy is None or session.uuid is None:
            return
        if self.accept:
            leg.console = self.consoles.setdefault((session.uuid, session.proxy.label), Console())
            leg.console.leg = leg
            session.accept_proxy()
        else:
            session.refuse_proxy()

    def _begin(self, leg: Leg, sequence: bytes) -> None:
        console = leg.console
        assert console is not None
        if self.vmotion == "notnow":
            leg.session.notnow(sequence)
        elif self.vmotion == "goahead":
            console.source, console.sequence = leg, sequence
            console.secret = os.urandom(7) + b"\xff"
            if console.held is None:
                console.held = bytearray()
            leg.session.goahead(sequence, console.secret)

    def peer(self, leg: Leg, pair: bytes) -> None:
        """Recognise a target by its pair, once."""
        for console in self.consoles.values():
            if console.sequence and console.sequence + console.secret == pair:
                console.target = leg
                leg.session.peer_ok(console.sequence)
                console.sequence = b""
                return
        leg.session.unknown(vmware.VMOTION_PEER)

    async def _complete(self, leg: Leg) -> None:
        """The target reads nothing more until the source's last byte is in the journal."""
        (console,) = (console for console in self.consoles.values() if console.target is leg)
        assert console.source is not None
        await console.source.ended.wait()
        leg.console, console.leg, console.target = console, leg, None
        await console.release()

    def notify(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool], deadline: float = DEADLINE) -> None:
        """Wait for a condition on the legs. Raises asyncio.TimeoutError."""
        await asyncio.wait_for(self._until(condition), deadline)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
