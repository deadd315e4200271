"""Channels: packets and descriptors arrive whole, in order, once; none of them leaks."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import pytest

from tests.unix.turning import descriptors_left, open_descriptors, settle, until
from vspcd.proto import control
from vspcd.proto.errors import LocalError, PeerError
from vspcd.unix import channel as channels
from vspcd.unix.channel import Channel, ChannelClosed, pair
from vspcd.unix.loop import Loop

MANY = 200000


class Served:
    """A channel on a loop, and what came through it."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.loop = loop
        self.channel = Channel(sock)
        self.messages: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.closed = 0
        self.channel.serve(loop, self._took, self._closed)

    def _took(self, message: dict[str, Any], fds: list[int]) -> None:
        self.messages.append(message)
        self.fds += fds

    def _closed(self) -> None:
        self.closed += 1
        self.loop.forget(self.channel.fileno())

    def end(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.channel.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    made = pair()
    yield made
    for end in made:
        end.close()


def raw_send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary)


def fill(channel: Channel) -> int:
    """Send numbered packets until one has to wait; how many were sent."""
    for number in range(MANY):
        channel.send({"type": "n", "n": number})
        if channel.backlog:
            return number + 1
    raise AssertionError("the socket never filled up")


def fill_to_the_brim(sock: socket.socket) -> None:
    """Send past the channel until the socket takes no more."""
    for _ in range(MANY):
        try:
            raw_send(sock, b'{"type":"filler"}')
        except BlockingIOError:
            return


def test_there_is_room_until_so_much_was_sent_that_the_other_side_has_to_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sender = Channel(ends[0])
    sent = 0
    while sender.has_room():
        sender.send({"type": "n", "n": sent})
        sent += 1
    assert sent > 1
    assert sender.backlog == 0
    assert not sender.has_room()
    while sent:
        sent -= len(list(Channel(ends[1]).packets()))
    assert sender.has_room()


def test_a_message_arrives_as_it_was_sent(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    served = Served(loop, ends[1])
    Channel(ends[0]).send({"type": "hello", "text": "größe \u0000 \x1b", "n": 3})
    until(loop, lambda: served.messages)
    assert served.messages == [{"type": "hello", "text": "größe \u0000 \x1b", "n": 3}]


def test_descriptors_arrive_open_and_stay_the_senders(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    reader, writer = os.pipe()
    Channel(ends[0]).send({"type": "take"}, [writer])
    until(loop, lambda: served.fds)
    os.write(served.fds[0], b"by the copy")
    os.write(writer, b", by the original")
    assert os.read(reader, 100) == b"by the copy, by the original"
    for fd in (reader, writer):
        os.close(fd)
    served.end()


def test_descriptors_are_closed_on_exec(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    served = Served(loop, ends[1])
    Channel(ends[0]).send({"type": "take"}, [0])
    until(loop, lambda: served.fds)
    assert not os.get_inheritable(served.fds[0])
    served.end()


def test_packets_for_a_slow_reader_wait_in_order_and_none_is_lost(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender = Served(loop, ends[0])
    sent = fill(sender.channel)
    for number in range(sent, sent + 50):
        sender.channel.send({"type": "n", "n": number})
    assert sender.channel.backlog > 50
    served = Served(loop, ends[1])
    until(loop, lambda: len(served.messages) == sent + 50)
    assert [message["n"] for message in served.messages] == list(range(sent + 50))
    assert sender.channel.backlog == 0


def test_a_packet_that_waits_keeps_its_descriptor_open(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender = Served(loop, ends[0])
    fill(sender.channel)
    reader, writer = os.pipe()
    sender.channel.send({"type": "take"}, [writer])
    os.close(writer)
    served = Served(loop, ends[1])
    until(loop, lambda: served.fds)
    os.write(served.fds[0], b"alive")
    assert os.read(reader, 10) == b"alive"
    os.close(reader)
    served.end()


def test_a_packet_that_waits_takes_descriptors_from_any_iterable(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender = Served(loop, ends[0])
    fill_to_the_brim(ends[0])
    sender.channel.send({"type": "take"}, (fd for fd in (0,)))
    served = Served(loop, ends[1])
    until(loop, lambda: served.messages and served.messages[-1]["type"] == "take")
    assert len(served.fds) == 1
    served.end()


def test_no_descriptor_is_left_when_what_waited_has_been_sent(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender = Served(loop, ends[0])
    fill(sender.channel)
    before = open_descriptors()
    sender.channel.send({"type": "take"}, [0, 1])
    served = Served(loop, ends[1])
    until(loop, lambda: len(served.fds) == 2)
    for fd in served.fds:
        os.close(fd)
    served.fds = []
    assert open_descriptors() == before


def test_closing_drops_what_waits_with_its_descriptors(ends: tuple[socket.socket, socket.socket]) -> None:
    sender = Channel(ends[0])
    fill(sender)
    before = open_descriptors() - {sender.fileno()}
    sender.send({"type": "take"}, [0, 1])
    sender.close()
    assert (open_descriptors(), sender.backlog) == (before, 0)


def test_closing_twice_is_harmless(ends: tuple[socket.socket, socket.socket]) -> None:
    sender = Channel(ends[0])
    sender.close()
    sender.close()


def test_a_peer_that_never_reads_counts_as_gone(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "QUEUE_LIMIT", 10)
    sender = Channel(ends[0])
    fill(sender)
    while sender.backlog < 10:
        sender.send({"type": "more"})
    with pytest.raises(ChannelClosed):
        sender.send({"type": "too-many"})
    assert sender.backlog == 10


def test_a_refused_packet_leaves_no_descriptor_behind(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "QUEUE_LIMIT", 1)
    sender = Channel(ends[0])
    fill(sender)
    before = open_descriptors()
    with pytest.raises(ChannelClosed):
        sender.send({"type": "take"}, [0])
    assert open_descriptors() == before


def test_sending_to_one_who_has_gone_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    with pytest.raises(ChannelClosed):
        Channel(ends[0]).send({"type": "hello"})


def test_sending_on_a_closed_channel_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    sender = Channel(ends[0])
    sender.close()
    with pytest.raises(ChannelClosed):
        sender.send({"type": "hello"})


def test_sending_to_one_who_went_with_packets_waiting_does_no_harm(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The owner has been told and watches the channel no longer."""
    sender = Served(loop, ends[0])
    fill(sender.channel)
    ends[1].close()
    until(loop, lambda: sender.closed)
    try:
        sender.channel.send({"type": "hello"})
    except ChannelClosed:
        pass  # it may say so already


def test_a_message_that_is_too_long_is_our_mistake_and_nothing_is_sent(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    sender = Channel(ends[0])
    with pytest.raises(LocalError):
        sender.send({"type": "x", "text": "y" * control.PACKET_LIMIT})
    sender.send({"type": "next"})
    until(loop, lambda: served.messages)
    assert served.messages == [{"type": "next"}]


def test_the_longest_packet_arrives(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    served = Served(loop, ends[1])
    empty = len(control.encode({"type": "x", "text": ""}))
    Channel(ends[0]).send({"type": "x", "text": "y" * (control.PACKET_LIMIT - empty)})
    until(loop, lambda: served.messages)
    assert len(served.messages[0]["text"]) == control.PACKET_LIMIT - empty


BAD = [b"{", b"[]", b"1", b"null", b"{}", b'{"type":1}', b"\xff\xfe", b"[" * 60000, b"x" * 65537]


@pytest.mark.parametrize("packet", BAD, ids=lambda packet: repr(packet[:12]))
def test_a_packet_that_is_no_message_ends_the_channel(
    loop: Loop, ends: tuple[socket.socket, socket.socket], packet: bytes
) -> None:
    served = Served(loop, ends[1])
    raw_send(ends[0], packet)
    until(loop, lambda: served.closed)
    assert (served.messages, served.closed) == ([], 1)


@pytest.mark.parametrize("packet", [*BAD, b""], ids=lambda packet: repr(packet[:12]))
def test_descriptors_of_a_bad_packet_are_closed(
    loop: Loop, ends: tuple[socket.socket, socket.socket], packet: bytes
) -> None:
    served = Served(loop, ends[1])
    before = open_descriptors()
    raw_send(ends[0], packet, [0, 1, 2])
    until(loop, lambda: served.closed)
    assert open_descriptors() == before


def test_more_descriptors_than_allowed_end_the_channel_and_none_leaks(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    before = open_descriptors()
    raw_send(ends[0], b'{"type":"take"}', [0] * (channels.FDS_LIMIT + 1))
    until(loop, lambda: served.closed)
    assert (served.messages, open_descriptors()) == ([], before)


def test_the_death_of_the_other_side_is_told_once(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    ends[0].close()
    until(loop, lambda: served.closed)
    settle(loop)
    assert served.closed == 1


def test_what_was_sent_before_a_death_arrives_before_the_notice(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    for number in range(3 * channels.PACKETS_PER_TURN):
        Channel(ends[0]).send({"type": "n", "n": number})
    ends[0].close()
    until(loop, lambda: served.closed)
    assert len(served.messages) == 3 * channels.PACKETS_PER_TURN


def test_last_words_arrive_though_their_sender_left_something_unread(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The kernel says "connection reset" first then; the packets are behind it."""
    served = Served(loop, ends[1])
    served.channel.send({"type": "never-read"})
    for number in range(3):
        Channel(ends[0]).send({"type": "n", "n": number})
    ends[0].close()
    until(loop, lambda: served.closed)
    assert [message["n"] for message in served.messages] == [0, 1, 2]


def test_packets_are_delivered_a_bounded_number_a_turn(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    served = Served(loop, ends[1])
    for number in range(channels.PACKETS_PER_TURN + 1):
        Channel(ends[0]).send({"type": "n", "n": number})
    loop.turn()
    assert len(served.messages) == channels.PACKETS_PER_TURN
    loop.turn()
    assert len(served.messages) == channels.PACKETS_PER_TURN + 1


def test_a_channel_that_its_owner_closes_delivers_nothing_more(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    taken: list[dict[str, Any]] = []
    receiver: Optional[Channel] = Channel(ends[1])
    assert receiver is not None

    def take(message: dict[str, Any], _fds: list[int]) -> None:
        taken.append(message)
        receiver.close()

    receiver.serve(loop, take, lambda: None)
    for number in range(3):
        Channel(ends[0]).send({"type": "n", "n": number})
    loop.turn()
    assert [message["n"] for message in taken] == [0]


def test_what_waited_before_the_loop_came_is_sent(
    loop: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender = Channel(ends[0])
    sent = fill(sender)
    served = Served(loop, ends[1])
    sender.serve(loop, lambda _message, _fds: None, lambda: None)
    until(loop, lambda: len(served.messages) == sent)


def test_without_a_free_descriptor_a_packet_that_has_to_wait_is_refused_and_leaves_nothing(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sender = Channel(ends[0])
    fill(sender)
    before = open_descriptors()
    with descriptors_left(1, 3), pytest.raises(OSError, match="Too many open files"):
        sender.send({"type": "take"}, [0, 1])
    assert open_descriptors() == before


def test_a_packet_that_is_no_message_is_the_peers_fault(ends: tuple[socket.socket, socket.socket]) -> None:
    raw_send(ends[0], b"nonsense")
    with pytest.raises(PeerError):
        next(Channel(ends[1]).packets())
