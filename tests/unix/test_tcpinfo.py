"""What the kernel counts of a connection, however it has ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.system.wait import until
from tests.workers.bench import Far, tcp_pair
from vspcd.unix import tcpinfo

ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Far]]:
    near, far = tcp_pair()
    end = Far(far)
    yield near, end
    near.close()
    end.sock.close()


def in_state(sock: socket.socket, state: int) -> None:
    until(lambda: tcpinfo._info(sock)[0] == state, f"the connection is in state {state}")


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("unread", [0, 1, 5])
@pytest.mark.parametrize("read", [0, 1, 2])
def test_what_was_consumed_is_counted_however_it_ends(
    pair: tuple[socket.socket, Far], closed: bool, reset: bool, unread: int, read: int
) -> None:
    near, far = pair
    far.say(b"r" * read + b"u" * unread)
    until(lambda: tcpinfo.unread(near) == read + unread, "it has arrived")
    near.recv(read)
    if closed:
        far.finish()
        in_state(near, CLOSE_WAIT)
    if reset:
        far.reset()
        in_state(near, CLOSE)
    if closed and reset and not unread:
        assert tcpinfo.consumed(near) in (read, read + 1)  # nobody can tell, and nothing is left to count
        return
    for _ in range(2):
        assert tcpinfo.consumed(near) == read
    assert near.recv(100, socket.MSG_DONTWAIT) == b"u" * unread if unread else True
