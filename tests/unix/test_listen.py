"""Listeners: made over what a crash left, accepting a bounded number, naming who comes."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.turning import descriptors_left, open_descriptors
from vspcd.unix import listen

NAME = "01234567-89ab-cdef-fedc-ba9800000000.sock"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A directory whose path is longer than a socket address."""
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    fd = os.open(deep, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def connected(folder: int, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, kind)
    client.connect(f"/proc/self/fd/{folder}/{name}")
    return client


def mode_of(folder: int, name: str) -> int:
    return stat.S_IMODE(os.stat(name, dir_fd=folder).st_mode)


def test_a_unix_socket_below_a_long_path_can_be_reached(folder: int) -> None:
    listener = listen.unix(folder, NAME, 0o660, None)
    client = connected(folder, NAME)
    ((sock, origin),) = list(listen.accept(listener))
    assert origin == ""
    for each in (sock, client, listener):
        each.close()


def test_the_longest_name_of_a_console_fits(folder: int) -> None:
    name = f"{NAME[:-5]}.{'l' * 32}.sock"
    high = os.dup2(folder, 990)
    listener = listen.unix(high, name, 0o660, None)
    connected(folder, name).close()
    listener.close()
    os.close(high)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_that_was_asked_for_whatever_the_umask(folder: int, mode: int) -> None:
    before = os.umask(0o077)
    try:
        listener = listen.unix(folder, NAME, mode, None)
    finally:
        os.umask(before)
    assert mode_of(folder, NAME) == mode
    listener.close()


def test_a_unix_socket_has_the_group_that_was_asked_for(folder: int) -> None:
    group = next((group for group in os.getgroups() if group != os.getegid()), os.getegid())
    listener = listen.unix(folder, NAME, 0o660, group)
    assert os.stat(NAME, dir_fd=folder).st_gid == group
    listener.close()


def test_a_socket_that_a_dead_daemon_left_is_replaced(folder: int) -> None:
    listen.unix(folder, NAME, 0o660, None).close()
    listener = listen.unix(folder, NAME, 0o660, None)
    connected(folder, NAME).close()
    listener.close()


def test_a_unix_socket_can_carry_packets(folder: int) -> None:
    listener = listen.unix(folder, NAME, 0o660, None, socket.SOCK_SEQPACKET)
    client = connected(folder, NAME, socket.SOCK_SEQPACKET)
    ((sock, _),) = list(listen.accept(listener))
    client.send(b"one")
    client.send(b"two")
    assert sock.recv(100) == b"one"
    for each in (sock, client, listener):
        each.close()


def test_a_unix_socket_that_cannot_be_made_leaves_no_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = open_descriptors()
    with pytest.raises(OSError):
        listen.unix(fd, "x" * 200, 0o660, None)
    assert open_descriptors() == before
    os.close(fd)


def test_a_name_that_is_not_there_can_be_removed(folder: int) -> None:
    listen.remove(folder, NAME)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_tcp_listener_takes_connections(host: str) -> None:
    listener = listen.tcp(host, 0)
    target = "::1" if host == "::" else host
    client = socket.create_connection((target, listener.getsockname()[1]), timeout=10)
    ((sock, origin),) = list(listen.accept(listener))
    host_part = f"[{target}]" if ":" in target else target
    assert origin == f"{host_part}:{client.getsockname()[1]}"
    assert not sock.getblocking()
    for each in (sock, client, listener):
        each.close()


def test_an_ipv4_host_on_a_listener_for_both_is_named_as_ipv4() -> None:
    listener = listen.tcp("::", 0)
    client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=10)
    ((sock, origin),) = list(listen.accept(listener))
    assert origin == f"127.0.0.1:{client.getsockname()[1]}"
    for each in (sock, client, listener):
        each.close()


def test_a_port_in_use_is_an_error_and_leaves_no_descriptor() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    before = open_descriptors()
    with pytest.raises(OSError):
        listen.tcp("127.0.0.1", listener.getsockname()[1])
    assert open_descriptors() == before
    listener.close()


def test_a_port_can_be_had_again_while_old_connections_linger() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    ((sock, _),) = list(listen.accept(listener))
    sock.close()  # the first to close keeps TIME_WAIT
    listener.close()
    client.close()
    listen.tcp("127.0.0.1", port).close()


def test_one_turn_accepts_a_bounded_number() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    address = listener.getsockname()
    clients = [socket.create_connection(address, timeout=10) for _ in range(listen.ACCEPTS_PER_TURN + 3)]
    first = [sock for sock, _ in listen.accept(listener)]
    second = [sock for sock, _ in listen.accept(listener)]
    assert (len(first), len(second)) == (listen.ACCEPTS_PER_TURN, 3)
    for each in (*first, *second, *clients, listener):
        each.close()


def test_accepting_without_anybody_waiting_gives_nothing() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    assert list(listen.accept(listener)) == []
    listener.close()


def test_being_out_of_descriptors_is_told_and_the_connection_still_waits() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname(), timeout=10)
    with descriptors_left(0, 1), pytest.raises(OSError) as told:
        list(listen.accept(listener))
    assert told.value.errno in listen.OUT_OF_RESOURCES
    ((sock, _),) = list(listen.accept(listener))
    for each in (sock, client, listener):
        each.close()


@pytest.mark.parametrize(
    ("end", "gone"), [("stays", False), ("speaks", False), ("closes", True), ("resets", True)]
)
def test_who_has_left_before_he_is_served_is_known(end: str, gone: bool) -> None:
    listener = listen.tcp("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname(), timeout=10)
    if end == "resets":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if end == "speaks":
        client.send(b"hello")
    if gone:
        client.close()
    ((sock, _),) = list(listen.accept(listener))
    assert listen.has_left(sock) == gone
    for each in (sock, client, listener):
        each.close()


def test_a_vanished_host_is_noticed_within_a_minute() -> None:
    listener = listen.tcp("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname(), timeout=10)
    listen.keep_alive(client)

    def option(number: int) -> int:
        return client.getsockopt(socket.IPPROTO_TCP, number)

    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert option(socket.TCP_NODELAY)
    assert option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPINTVL) * option(socket.TCP_KEEPCNT) <= 60
    assert 0 < option(socket.TCP_USER_TIMEOUT) <= 60_000
    for each in (client, listener):
        each.close()


def test_the_kernel_says_who_is_at_the_other_end(folder: int) -> None:
    listener = listen.unix(folder, NAME, 0o660, None)
    client = connected(folder, NAME)
    ((sock, _),) = list(listen.accept(listener))
    assert listen.credentials(sock) == (os.getpid(), os.getuid(), os.getgid())
    for each in (sock, client, listener):
        each.close()
