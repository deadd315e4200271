"""One socket of a TLS leg: what waits on it, and its ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from vspcd.unix.loop import Loop
from workers.tls_side import Side

MUCH = 4 << 20


class Far:
    """A side, the other end of its socket, and how often it was called."""

    def __init__(self) -> None:
        near, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.loop = Loop()
        self.calls = 0
        self.side = Side(self.loop, near, self._called)

    def _called(self) -> None:
        self.calls += 1

    def read_all(self) -> bytes:
        """What the side sends until nothing of it waits."""
        data = bytearray()
        while True:
            try:
                data += self.sock.recv(65536)
            except BlockingIOError:
                if not self.side.flush():
                    return bytes(data)


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.side.close()
    made.sock.close()
    made.loop.close()


def test_the_end_is_told_only_when_everything_before_it_was_sent(far: Far) -> None:
    far.side.send(bytes(MUCH))
    far.side.finish()
    assert far.side.waiting
    assert not far.side.shut
    assert len(far.read_all()) == MUCH
    far.side.finish()
    assert far.side.shut
    assert far.sock.recv(1) == b""


def test_what_is_sent_after_the_end_goes_nowhere_and_waits_nowhere(far: Far) -> None:
    far.side.finish()
    far.side.send(b"late")
    assert (bytes(far.side.waiting), far.sock.recv(4)) == (b"", b"")


def test_a_lost_socket_drops_what_waits(far: Far) -> None:
    far.side.send(bytes(MUCH))
    far.sock.close()
    far.side.flush()
    assert (far.side.gone, far.side.shut, len(far.side.waiting)) == (True, True, 0)


def test_receiving_tells_nothing_yet_from_the_end(far: Far) -> None:
    assert far.side.receive(10) is None
    assert not far.side.ended
    far.sock.shutdown(socket.SHUT_WR)
    assert far.side.receive(10) == b""
    assert (far.side.ended, far.side.gone) == (True, False)


def test_nothing_to_be_served_means_that_nothing_is_watched(far: Far) -> None:
    fd = far.side.sock.fileno()
    far.side.watch(reading=False)
    assert not far.loop.watches(fd)
    far.side.watch(reading=True)
    assert far.loop.watches(fd)
    far.sock.send(b"x")
    far.loop.turn()
    assert far.calls == 1
    far.side.watch(reading=False)
    assert not far.loop.watches(fd)


def test_a_closed_side_ends_the_connection_of_every_duplicate(far: Far) -> None:
    duplicate = far.side.sock.dup()
    far.side.close()
    assert far.sock.recv(1) == b""
    duplicate.close()
