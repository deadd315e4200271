"""Taking connections: what happens when there is no room for another one."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.turning import descriptors_left, settle, turn, until
from vspcd.unix import listen
from vspcd.unix.acceptor import REST, Acceptor, NoRoom
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

ABOVE = 200  # an eighth of a limit is kept free: it must not be too low
SPARE = 20


class Door:
    """An acceptor that takes everybody, or nobody while there is no room."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.listener = listen.tcp("127.0.0.1", 0)
        self.taken: list[socket.socket] = []
        self.room = self.room_for_all = True
        self.file = folder / "log"
        self._log = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600)
        log = Log("info", self._log)
        self.turns: list[int] = []
        self.acceptor = Acceptor(
            self.loop, log, "a door", self.listener, self._take, lambda: SPARE, self._all_taken
        )

    def _take(self, sock: socket.socket, _peer: str) -> None:
        if not self.room:
            sock.close()
            raise NoRoom("no process")
        self.taken.append(sock)

    def _all_taken(self) -> None:
        self.turns.append(len(self.taken))
        if not self.room_for_all:
            raise NoRoom("no process")

    def knock(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=10)

    def said(self) -> list[str]:
        return [line.split(" ", 2)[2] for line in self.file.read_text().splitlines()]

    def close(self) -> None:
        self.acceptor.close()
        self.loop.close()
        os.close(self._log)
        for sock in self.taken:
            sock.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.close()


def test_those_who_come_while_there_is_no_room_wait_without_a_spin(door: Door) -> None:
    peer = door.knock()
    with descriptors_left(0, ABOVE):
        assert settle(door.loop) < 5
    assert door.taken == []
    until(door.loop, lambda: door.taken)
    peer.close()


def test_descriptors_are_left_to_others(door: Door) -> None:
    peer = door.knock()
    with descriptors_left(SPARE - 1, ABOVE):
        settle(door.loop)
        assert door.taken == []
    until(door.loop, lambda: door.taken)
    peer.close()


def test_with_more_free_than_must_be_left_everybody_is_taken(door: Door) -> None:
    peer = door.knock()
    with descriptors_left(SPARE + 3, ABOVE):
        until(door.loop, lambda: door.taken)
    peer.close()


def test_of_a_low_limit_only_a_part_is_left_to_others() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    with descriptors_left(0, ABOVE):
        part = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // listen.LARGE_PART
    with descriptors_left(part, ABOVE), pytest.raises(OSError):
        listen.keep_free(listener, 1000000)
    with descriptors_left(part + listen.PER_CONNECTION, ABOVE):
        listen.keep_free(listener, 1000000)
    listener.close()


def test_a_long_shortage_is_told_now_and_then_with_its_reason_and_its_end(door: Door) -> None:
    door.room = False
    end = time.monotonic() + 4.5 * REST
    while time.monotonic() < end:
        peer = door.knock()
        settle(door.loop)
        turn(door.loop, REST)
        peer.close()
    door.room = True
    peer = door.knock()
    until(door.loop, lambda: door.taken)
    lines = door.said()
    assert lines[0] == 'accept-paused listener="a door" seconds=0.5 reason="no process" count=1'
    assert [line.rpartition("=")[2] for line in lines[:-1]] == ["1", "2", "4"]
    assert lines[-1].startswith('accept-resumed listener="a door" pauses=')
    peer.close()


def test_those_who_come_together_are_dealt_with_together(door: Door) -> None:
    peers = [door.knock() for _ in range(3)]
    until(door.loop, lambda: door.taken)
    assert door.turns == [3]
    for peer in peers:
        peer.close()


def test_those_who_were_taken_are_dealt_with_when_the_next_one_finds_no_room(door: Door) -> None:
    peers = [door.knock() for _ in range(3)]
    with descriptors_left(SPARE + listen.PER_CONNECTION, ABOVE):
        settle(door.loop)
        assert door.turns[0] == 1
    for peer in peers:
        peer.close()


def test_it_rests_when_there_is_no_room_for_those_who_were_taken(door: Door) -> None:
    door.room_for_all = False
    peers = [door.knock() for _ in range(3)]
    until(door.loop, lambda: door.taken)
    settle(door.loop)
    assert door.turns == [3]
    assert 'reason="no process"' in door.said()[0]
    for peer in peers:
        peer.close()
