"""What a Unix client may see again, and what it may not."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from tests.crash.kinds import Unix
from tests.crash.peers import Seat
from tests.crash.shuffle import Shuffle

SAID = bytearray(random.Random("said").randbytes(400))


@pytest.fixture
def client() -> Iterator[Unix]:
    """It has been sent 100 bytes, and then three."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = Unix(ours, Seat(Shuffle(), random.Random("chance"), 0))
        client.see(bytes(SAID[:100]), SAID)
        client.see(bytes(SAID[100:103]), SAID)
        yield client


def see(client: Unix, *pieces: slice) -> None:
    for piece in pieces:
        client.see(bytes(SAID[piece]), SAID)
    client.finish(SAID)


def test_the_latest_send_may_come_again(client: Unix) -> None:
    see(client, slice(100, 200))
    assert (client.at, client.repeats) == (200, 1)


def test_it_may_come_again_for_each_of_two_deaths(client: Unix) -> None:
    see(client, slice(100, 103), slice(100, 103), slice(103, 200))
    assert (client.at, client.repeats) == (200, 2)


def test_two_repetitions_may_come_in_one_piece(client: Unix) -> None:
    client.see(bytes(SAID[100:103] * 2 + SAID[103:200]), SAID)
    client.finish(SAID)
    assert (client.at, client.repeats) == (200, 2)


def test_nothing_older_may_come_again(client: Unix) -> None:
    see(client, slice(103, 150), slice(150, 200))
    with pytest.raises(AssertionError, match="the Unix client 0 sees"):
        see(client, slice(10, 60), slice(60, 200))


def test_nothing_may_be_missing(client: Unix) -> None:
    with pytest.raises(AssertionError, match="the Unix client 0 sees"):
        see(client, slice(104, 200))


def test_no_batch_begins_with_a_byte_that_others_type_as_well() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        shuffle = Shuffle()
        client = Unix(ours, Seat(shuffle, random.Random("chance"), shuffle.join(repeatable=True)))
        sent = []
        for _ in range(500):
            client.type(4, awkward=True)
            client.send()
            sent.append(theirs.recv(65536))
        assert b"\xff" in b"".join(sent)
        assert not [piece for piece in sent if piece.startswith(b"\xff")]
