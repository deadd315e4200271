"""What is behind a simulated serial port: an echo, a steady stream, or a real serial socket.

Does: takes what people type from ``input`` and puts what the machine says into ``output``.
Owns: its two pipes, and whatever it opened.
Never: knows of telnet, of the concentrator or of the connection; a guest lives on while its port dials again.

The login shell is in shell.py, the script in script.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import termios
import tty
from collections.abc import Awaitable
from typing import Callable, Optional, Union

from vspcd.simulator.address import host_port
from vspcd.simulator.pipe import BytePipe, drain, fill

Report = Callable[[str], None]
GuestFactory = Callable[[Report], "Guest"]
"""Makes the guest of one port; the report takes one line of plain words per event."""

Opener = Callable[[], Awaitable[int]]

REOPEN_DELAY = 1.0
"""Seconds between two attempts to open a serial socket."""


class Guest:
    """The machine behind a port: this one says nothing and forgets what it hears."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.input = BytePipe()
        self.output = BytePipe()

    async def run(self) -> None:
        """Live until cancelled. Everything that was opened or started is closed and reaped on the way out."""
        await self.discard()

    async def discard(self) -> None:
        """Forget what comes in, for ever."""
        while True:
            await self.input.ready()
            self.input.consume(len(self.input))

    def send_break(self) -> None:
        """A break came over the line. Most machines ignore it."""


class Echo(Guest):
    """Says what it hears: its input and its output are one pipe."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.output = self.input

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


class Stream(Guest):
    """Numbered lines at a steady rate, which the reader can check for holes."""

    LINE = 64

    def __init__(self, report: Report, rate: float, lines: Optional[int] = None) -> None:
        """``rate`` in bytes per second, 0 for as fast as they are taken; ``lines`` ends it after so many."""
        super().__init__(report)
        self._rate = rate
        self._lines = lines
        self._number = 0

    @classmethod
    def line(cls, number: int) -> bytes:
        """The line with this number, counted from 0, 64 bytes with its CR LF."""
        text = f"{number:012d} "
        filler = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        return (text + filler)[: cls.LINE - 2].encode() + b"\r\n"

    @classmethod
    def text(cls, lines: int) -> bytes:
        """What a stream of so many lines is, byte for byte."""
        return b"".join(map(cls.line, range(lines)))

    async def run(self) -> None:
        await asyncio.gather(self.discard(), self._produce())

    async def _produce(self) -> None:
        clock = asyncio.get_running_loop().time
        last, allowance = clock(), 0.0
        while self._lines is None or self._number < self._lines:
            await self.output.room()
            now = clock()
            allowance = min(allowance + (now - last) * self._rate, 65536.0) if self._rate else 65536.0
            last = now
            allowance -= self._say(int(allowance) // self.LINE)
            await asyncio.sleep(max(0.01, (self.LINE - allowance) / self._rate) if self._rate else 0)

    def _say(self, count: int) -> int:
        if self._lines is not None:
            count = min(count, self._lines - self._number)
        self.output.append(b"".join(map(self.line, range(self._number, self._number + count))))
        self._number += count
        return count * self.LINE


class Connected(Guest):
    """A real serial port: a Unix or TCP socket such as QEMU's, or a terminal device."""

    def __init__(self, report: Report, address: str) -> None:
        """``address`` is unix:PATH, tcp:HOST:PORT or pty:PATH. Raises ValueError for anything else."""
        super().__init__(report)
        self._address = address
        self._open = opener(address)
        self._terminal: Optional[int] = None

    async def run(self) -> None:
        complaint = ""
        while True:
            try:
                await self._serve(await self._open())
                reason = "it was closed"
            except OSError as error:
                reason = error.strerror or str(error)
            if reason != complaint:
                self.report(f"serial port {self._address}: {reason}; trying again")
            complaint = reason
            await asyncio.sleep(REOPEN_DELAY)

    async def _serve(self, descriptor: int) -> None:
        self.report(f"serial port {self._address}: opened")
        self._terminal = descriptor if os.isatty(descriptor) else None
        pumps = [
            asyncio.ensure_future(fill(self.output, descriptor)),
            asyncio.ensure_future(drain(self.input, descriptor)),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._terminal = None
            os.close(descriptor)

    def send_break(self) -> None:
        if self._terminal is not None:
            termios.tcsendbreak(self._terminal, 0)


def opener(address: str) -> Opener:
    """What opens the serial port at unix:PATH, tcp:HOST:PORT or pty:PATH. Raises ValueError."""
    kind, _, rest = address.partition(":")
    if kind not in _OPENERS or not rest:
        raise ValueError(f"{address!r} is not unix:PATH, tcp:HOST:PORT or pty:PATH")
    return _OPENERS[kind](rest)


def _unix(path: str) -> Opener:
    return lambda: _connect(socket.AF_UNIX, path)


def _tcp(address: str) -> Opener:
    target = host_port(address)
    return lambda: _connect(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, target)


def _pty(path: str) -> Opener:
    async def opened() -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(descriptor)
        except termios.error as error:
            os.close(descriptor)
            raise OSError(*error.args) from None
        return descriptor

    return opened


_OPENERS: dict[str, Callable[[str], Opener]] = {"unix": _unix, "tcp": _tcp, "pty": _pty}


async def _connect(family: int, address: Union[str, tuple[str, int]]) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
        return connection.detach()
