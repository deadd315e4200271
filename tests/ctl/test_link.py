"""The connection to a console's worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from vspcd.ctl.link import INPUT_LIMIT, PACKET, Link
from vspcd.proto import attach
from vspcd.proto.errors import PeerError


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the worker's end of it."""
    ours, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours.detach())
    with worker:
        yield link, worker
        link.close()


def data(text: bytes, at: int) -> attach.Frame:
    return attach.Frame(attach.DATA, text, at)


def test_typing_is_numbered_and_goes_a_frame_at_a_time(pair: tuple[Link, socket.socket]) -> None:
    link, worker = pair
    link.type(b"ls")
    link.send_break()
    link.type(b"b")
    while link.waiting:
        assert link.write()
    found = [attach.frames(worker.recv(PACKET)) for _ in range(3)]
    assert [frames[0][0] for frames in found] == [
        attach.Frame(attach.INPUT, b"ls", 0),
        attach.Frame(attach.BREAK, b"", 2),
        attach.Frame(attach.INPUT, b"b", 3),
    ]


def test_what_the_worker_only_peeks_at_is_not_taken(pair: tuple[Link, socket.socket]) -> None:
    link, worker = pair
    link.send_break()
    link.write()
    worker.recv(PACKET, socket.MSG_PEEK)
    assert link.untaken > 0
    worker.recv(PACKET)
    assert link.untaken == 0


def test_bytes_that_have_come_before_are_not_new(pair: tuple[Link, socket.socket]) -> None:
    link, _ = pair
    frames = [data(b"abc", 10), data(b"abc", 10), data(b"bcd", 11), data(b"e", 14), data(b"a", 10)]
    assert [link.new(frame) for frame in frames] == [b"abc", b"", b"d", b"e", b""]


def test_the_end_of_the_worker_is_told_behind_what_it_has_said(pair: tuple[Link, socket.socket]) -> None:
    link, worker = pair
    assert link.read() == []
    worker.send(attach.frame(attach.DATA, b"last", 0))
    worker.close()
    assert link.read() == [data(b"last", 0)]
    assert link.read() is None


def test_nonsense_is_the_workers_fault(pair: tuple[Link, socket.socket]) -> None:
    link, worker = pair
    worker.send(b"\xee" * 64)
    with pytest.raises(PeerError):
        link.read()


def test_what_waits_is_bounded_and_given_up_when_nobody_takes_it(pair: tuple[Link, socket.socket]) -> None:
    link, worker = pair
    link.type(b"x" * 60000)
    assert link.has_room(INPUT_LIMIT - 60016)
    assert not link.has_room(INPUT_LIMIT - 60015)
    worker.close()
    link.hand_over()
    assert link.waiting == 0
