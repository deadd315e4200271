"""A telnet client whose worker dies at any step: what it types and what it is told are as if nobody had died."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.bench import tcp_pair
from vspcd.proto import telnet
from vspcd.proto.telnet import BINARY, DO, ECHO, IAC, NAWS, SB, SE, SGA, WILL, WONT
from vspcd.unix.page import PAGE, Page
from workers import manners
from workers.client import TELNET, Client

PIECES = (
    b"a", b"\r", b"\n", b"\0", b"\r\n", b"\r\0", b"\xff\xff",
    bytes((IAC, WILL, BINARY)), bytes((IAC, WONT, BINARY)), bytes((IAC, DO, BINARY)), bytes((IAC, DO, ECHO)),
    bytes((IAC, DO, SGA)), bytes((IAC, WILL, NAWS)), bytes((IAC, DO, 99)), bytes((IAC, WILL, 200)),
    bytes((IAC, SB, NAWS, 0, 80, 0, 24, IAC, SE)), telnet.command(telnet.BREAK), telnet.command(telnet.AYT),
)  # fmt: skip
OPENING = bytes((IAC, DO, SGA))
STEPS = ("told", "typed", "consumed", "answered")


class Seat:
    """A client's two ends, its page, and the workers that serve it one after the other."""

    def __init__(self) -> None:
        self.page = Page(memoryview(bytearray(PAGE)))
        self._near, self.far = tcp_pair()
        self.far.setblocking(False)
        self.state: Optional[dict[str, Any]] = None
        self.typed = b""
        self.said = bytearray()
        self.client = self._serve()

    def _serve(self) -> Client:
        return Client(1, TELNET, self._near.dup(), "somewhere", "rw", 0, self.page)

    def die(self) -> None:
        """Its worker dies; the next one knows the page, what was told, and what the kernel counts."""
        self.client.sock.close()
        self.client = self._serve()
        unsaid = (
            b"" if self.state is None else manners.restore(self.client, json.loads(json.dumps(self.state)))
        )
        self.client.resume(lambda _position, _size: b"", unsaid)

    def _tell(self, size: int) -> None:
        told = manners.told(self.client, size)
        self.state = self.state if told is None else told

    def read(self, dies_after: str = "") -> bool:
        """One turn of a worker, which may end early; whether there was anything to read."""
        typed = self.client.read()
        self._tell(0 if typed is None else typed.size)
        if dies_after == "told":
            return typed is not None
        if typed is not None:
            self.typed += typed.wire
            if dies_after == "typed":
                # The page and the kernel's count of the VM's connection tell so much to the next one.
                self.typed = self.typed[: len(self.typed) - len(typed.wire)]
                return True
            self.client.done(typed)
        if dies_after != "consumed":
            self.client.flush()
        return typed is not None

    def heard(self) -> bytes:
        """All that the client was told."""
        try:
            while chunk := self.far.recv(65536):
                self.said += chunk
        except BlockingIOError:
            pass
        return bytes(self.said)

    def close(self) -> None:
        for sock in (self.client.sock, self._near, self.far):
            sock.close()


@pytest.fixture
def seat() -> Iterator[Seat]:
    made = Seat()
    yield made
    made.close()


def undisturbed(chunks: list[bytes]) -> tuple[bytes, bytes]:
    """What is typed and said when nobody dies."""
    seat = Seat()
    for chunk in chunks:
        seat.far.send(chunk)
        while seat.read():
            pass
    found = seat.typed, seat.heard()
    seat.close()
    return found


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=12),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=30),
    deaths=st.lists(st.sampled_from(("", "", *STEPS)), max_size=40),
)
def test_wherever_a_worker_dies(pieces: list[bytes], cuts: list[int], deaths: list[str]) -> None:
    wire = OPENING + b"".join(pieces)
    chunks: list[bytes] = []
    while wire:
        size = cuts[len(chunks) % len(cuts)]
        chunks.append(wire[:size])
        wire = wire[size:]
    wanted = undisturbed(chunks)
    seat, left = Seat(), list(deaths)
    for chunk in chunks:
        seat.far.send(chunk)
        reading = True
        while reading:
            step = left.pop(0) if left else ""
            reading = seat.read(step)
            if step:
                seat.die()
                reading = True
    seat.client.flush()
    found = seat.typed, seat.heard()
    seat.close()
    assert found == wanted


def test_an_answer_that_was_half_given_is_given_whole(seat: Seat) -> None:
    seat.far.send(OPENING)
    seat.read("consumed")
    waiting = bytes(seat.client.out)
    assert len(waiting) > 4
    seat._near.send(waiting[:4])
    seat.die()
    seat.die()
    seat.client.flush()
    assert seat.heard() == waiting


@pytest.mark.parametrize("given_already", range(1, 8))
def test_half_an_escape_outlives_several_workers(seat: Seat, given_already: int) -> None:
    said = b"\xff" * 10
    seat.far.send(OPENING)
    seat.read()
    before = len(seat.heard())
    seat._near.send(telnet.escape(said)[:given_already])  # it died before it noted that
    seat.client.sock.close()
    for _ in range(3):
        seat.client = seat._serve()
        assert seat.state is not None
        unsaid = manners.restore(seat.client, seat.state)
        seat.client.resume(lambda position, size: said[position : position + size], unsaid)
    seat.client.put(said[seat.client.cursor :])
    assert seat.heard()[before:] == telnet.escape(said)
