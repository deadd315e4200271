"""A concentrator for the simulator's tests: the protocol's session on asyncio sockets, and a record of everything.

Does: accepts or refuses VMs, records what they say per console, types to them.
Owns: one listener on an ephemeral port, the connections that came.
Never: is a model for the real one: it logs nothing, limits nothing and knows no deadline.
"""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Callable, Optional

from vspcd.proto import telnet, vmware
from vspcd.proto.telnet import Subnegotiation

DEADLINE = 10.0


class Leg:
    """One connection from a VM."""

    def __init__(self, owner: Concentrator, connection: socket.socket) -> None:
        self.owner = owner
        self.session = vmware.Session()
        self.socket = connection
        self.peer: str = connection.getpeername()[0]
        self.events: list[vmware.Event] = []
        self.data = bytearray()
        self.commands: list[int] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.ended = False
        self.task = asyncio.ensure_future(self._run())
        self._tail = bytearray()
        self._turn = asyncio.Lock()

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
                self._feed(data)
                await self.flush()
                self.owner.notify()
        except ConnectionError:
            pass
        finally:
            self.ended = True
            self.socket.close()
            self.owner.notify()

    def _feed(self, data: bytes) -> None:
        self._tail += data
        tokens = telnet.tokens(self._tail)
        if tokens:
            del self._tail[: tokens[-1][1]]
        for token, _ in tokens:
            if isinstance(token, bytes):
                self.data += token
                continue
            if isinstance(token, Subnegotiation) and token.option == telnet.VMWARE:
                self.commands.append(token.payload[0])
            for event in self.session.receive(token):
                self.events.append(event)
                self.owner.on_event(self, event)

    async def flush(self) -> None:
        async with self._turn:
            output = self.session.take_output()
            if output:
                await asyncio.get_running_loop().sock_sendall(self.socket, output)

    async def type(self, data: bytes) -> None:
        """Send console data to the VM."""
        async with self._turn:
            await asyncio.get_running_loop().sock_sendall(self.socket, telnet.escape(data))

    def event(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Concentrator:
    """``async with Concentrator() as it``: listens at ``it.address``."""

    def __init__(self, accept: bool = True, port: int = 0) -> None:
        self.accept = accept
        self.legs: list[Leg] = []
        self._port = port
        self._waiting: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Concentrator:
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._accepting = asyncio.ensure_future(self._accept())
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
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

    def on_event(self, leg: Leg, event: vmware.Event) -> None:
        if isinstance(event, vmware.ProxyRequest):
            (leg.session.accept_proxy if self.accept else leg.session.refuse_proxy)()

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
