"""Bounded byte pipes, and the moves between them and file descriptors.

Does: carries bytes between a guest and its connection; copies between a pipe and a non-blocking descriptor.
Owns: the bytes that are under way inside the simulator, at most ``LIMIT`` and one read per pipe.
Never: drops, doubles or reorders a byte; a full pipe makes its writer wait, and that is all flow control is.

Bytes leave a pipe by ``peek`` and ``consume`` after they were written, and waiting takes nothing: a task
that is cancelled at any await loses nothing.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Callable

LIMIT = 65536
"""A pipe that holds this many bytes is full."""

CHUNK = 65536
"""The most bytes that one read or write moves."""


class BytePipe:
    """A byte queue with one writer and one reader. ``watchers`` are called after each change."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.watchers: set[Callable[[], None]] = set()
        self._limit = limit
        self._data = bytearray()
        self._ended = False

    def __len__(self) -> int:
        return len(self._data)

    @property
    def full(self) -> bool:
        return len(self._data) >= self._limit

    @property
    def ended(self) -> bool:
        """The writer has finished and everything was taken out."""
        return self._ended and not self._data

    def append(self, data: bytes) -> None:
        """Put bytes in without waiting; the writer has waited for ``room`` before."""
        self._data += data
        self._notify()

    def end(self) -> None:
        """Nothing more will be put in."""
        self._ended = True
        self._notify()

    def peek(self, limit: int = CHUNK) -> bytes:
        """The first bytes, which stay inside."""
        return bytes(self._data[:limit])

    def consume(self, count: int) -> None:
        """Remove the first bytes."""
        del self._data[:count]
        self._notify()

    async def put(self, data: bytes) -> None:
        """Wait for room, then put all of ``data`` in."""
        await self.room()
        self.append(data)

    async def room(self) -> None:
        """Wait until the pipe is not full."""
        await self._until(lambda: not self.full)

    async def ready(self) -> None:
        """Wait until there are bytes to take, or there will never be any again."""
        await self._until(lambda: bool(self._data) or self._ended)

    async def changed(self) -> None:
        """Wait until anything was put in, taken out, or the end came."""
        future = asyncio.get_running_loop().create_future()
        watcher = partial(_wake, future)
        self.watchers.add(watcher)
        try:
            await future
        finally:
            self.watchers.discard(watcher)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed()

    def _notify(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read. Nobody else may wait for the same at the same time."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until a descriptor can be written. Nobody else may wait for the same at the same time."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_writer(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read(descriptor: int, limit: int = CHUNK) -> bytes:
    """Read what is there, waiting for the first byte; b"" is the end of file. Raises OSError."""
    while True:
        try:
            return os.read(descriptor, limit)
        except BlockingIOError:
            await readable(descriptor)


async def write(descriptor: int, data: bytes) -> int:
    """Write some of the data, waiting until one byte at least was taken. Raises OSError."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            await writable(descriptor)


async def fill(pipe: BytePipe, descriptor: int) -> None:
    """Copy from a descriptor into a pipe until the end of file. Raises OSError."""
    while True:
        await pipe.room()
        await readable(descriptor)
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            continue
        if not data:
            return
        pipe.append(data)


async def drain(pipe: BytePipe, descriptor: int) -> None:
    """Copy from a pipe to a descriptor until the pipe ends. Raises OSError."""
    while True:
        await pipe.ready()
        if pipe.ended:
            return
        pipe.consume(await write(descriptor, pipe.peek()))
