"""TLS in front of the tests' concentrator: takes encrypted connections and passes plain ones on.

Owns its listener. Breaks a session off in the middle when it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Optional

from tests.simulator.concentrator import Concentrator


class TlsFront:
    """``async with TlsFront(proxy, certificate, key) as front``: listens at ``front.address``."""

    def __init__(
        self, proxy: Concentrator, certificate: Path, key: Path, client_ca: Optional[Path] = None
    ) -> None:
        self._proxy = proxy
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.subjects: list[object] = []

    async def __aenter__(self) -> TlsFront:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.break_off()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def break_off(self) -> None:
        """End every connection below TLS, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.subjects.append(writer.get_extra_info("peercert"))
        inner_reader, inner_writer = await asyncio.open_connection(*self._proxy.address)
        self._writers |= {writer, inner_writer}
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To the end of the stream, which ends the other side too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
