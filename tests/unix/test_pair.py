"""Loopback pairs: what TLS helpers give their plaintext over."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from vspcd.unix import pair
from vspcd.unix.pair import loopback_pair

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    near, far = loopback_pair()
    with near, far:
        yield near, far


def test_each_end_is_the_others_far_end(ends: Pair) -> None:
    near, far = ends
    assert near.getpeername() == far.getsockname()
    assert far.getpeername() == near.getsockname()
    assert near.getsockname()[0] == far.getsockname()[0] == "127.0.0.1"


def test_what_one_end_sends_the_other_one_gets(ends: Pair) -> None:
    for sender, receiver in (ends, ends[::-1]):
        sender.send(b"hello")
        receiver.settimeout(5)
        assert receiver.recv(10) == b"hello"


def test_both_ends_neither_block_nor_delay_nor_survive_an_exec(ends: Pair) -> None:
    for end in ends:
        assert not end.getblocking()
        assert not os.get_inheritable(end.fileno())
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_end_of_one_is_seen_by_the_other(ends: Pair) -> None:
    near, far = ends
    near.shutdown(socket.SHUT_WR)
    far.settimeout(5)
    assert far.recv(1) == b""


def test_nobody_listens_afterwards(ends: Pair) -> None:
    with socket.socket() as stranger:
        stranger.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            stranger.connect(ends[1].getsockname())


class Intruded(socket.socket):
    """A listener to which a stranger connects in the moment between listening and connecting."""

    strangers: list[socket.socket]

    def listen(self, backlog: int = 1) -> None:
        super().listen(backlog)
        self.strangers.append(socket.create_connection(self.getsockname()))


def test_a_stranger_who_got_in_first_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intruded, "strangers", [], raising=False)
    monkeypatch.setattr(socket, "socket", Intruded)
    near, far = loopback_pair()
    with near, far, Intruded.strangers[0] as stranger:
        assert far.getpeername() == near.getsockname()
        assert far.getpeername() != stranger.getsockname()
        stranger.settimeout(5)
        assert stranger.recv(1) == b""


class Flooded(Intruded):
    """A listener whose queue is full of strangers who come again and again."""

    def accept(self) -> tuple[socket.socket, object]:
        self.strangers.append(socket.socket())
        return self.strangers[-1], ("127.0.0.1", 1)


def test_a_flood_of_strangers_ends_in_an_error_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intruded, "strangers", [], raising=False)
    monkeypatch.setattr(pair, "DEADLINE", 0.2)
    monkeypatch.setattr(socket, "socket", Flooded)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        loopback_pair()
    assert time.monotonic() - began < 2
    for stranger in Intruded.strangers:
        stranger.close()
