"""What is said on the wire before a measurement: how a VM introduces itself, and how a path is proved.

Does: holds the recorded order of an ESXi host's words; connects, and waits for words with a deadline. Owns nothing
but the order. Never measures.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vspcd.proto.telnet import (
    AUTHENTICATION,
    BINARY,
    COM_PORT,
    DO,
    DONT,
    ECHO,
    SGA,
    VMWARE,
    WILL,
    negotiation,
    subnegotiation,
)
from vspcd.proto.vmware_codes import (
    DO_PROXY,
    GET_VM_NAME,
    GET_VM_VC_UUID,
    KNOWN_SUBOPTIONS_1,
    VM_NAME,
    VM_VC_UUID,
    WILL_PROXY,
)

HOST = "127.0.0.1"
PATIENCE = 30.0
QUIET = 0.15
READ = 65536

# "@H" and "@L" become the VM's number, as bench/estate.c says. The UUID that comes of it is as uuid_of() says.
NAME = b"vm@H@L"
UUID = b"56 4d be 9c 00 11 22 33-44 55 66 77 88 99 @H @L"
KNOWN = bytes((0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87))


class Word(NamedTuple):
    """A step of the order: something that is said, or has to be heard before it goes on."""

    said: bool
    data: bytes


def _says(*data: bytes) -> Word:
    return Word(True, b"".join(data))


def _hears(*data: bytes) -> list[Word]:
    return [Word(False, one) for one in data]


def _vmware(code: int, payload: bytes = b"") -> bytes:
    return subnegotiation(VMWARE, bytes((code,)) + payload)


DIALS_VSPCD: list[Word] = [
    _says(negotiation(WILL, AUTHENTICATION)),
    *_hears(negotiation(WILL, BINARY), negotiation(WILL, SGA), negotiation(WILL, ECHO)),
    _says(negotiation(DO, BINARY)),
    *_hears(negotiation(DO, BINARY), negotiation(DO, SGA), negotiation(DO, VMWARE)),
    _says(negotiation(DO, SGA), negotiation(DO, ECHO), negotiation(WILL, BINARY), negotiation(WILL, SGA)),
    *_hears(negotiation(DONT, AUTHENTICATION)),
    _says(negotiation(WILL, VMWARE), _vmware(KNOWN_SUBOPTIONS_1, KNOWN), _vmware(DO_PROXY, b"SvSPC.py")),
    *_hears(_vmware(GET_VM_VC_UUID), _vmware(GET_VM_NAME)),
    _says(_vmware(VM_VC_UUID, UUID)),
    *_hears(_vmware(WILL_PROXY)),
    _says(_vmware(VM_NAME, NAME), negotiation(WILL, COM_PORT)),
    *_hears(negotiation(DO, COM_PORT)),
]
DIALS_RELAY: list[Word] = [_says(NAME, b"\n"), *_hears(b"ok\n")]


def numbered(text: bytes, number: int) -> bytes:
    """The words of one VM."""
    return text.replace(b"@H", b"%02x" % (number >> 8)).replace(b"@L", b"%02x" % (number & 0xFF))


def name_of(number: int) -> str:
    """As it is called everywhere."""
    return numbered(NAME, number).decode()


def uuid_of(number: int) -> str:
    """As vspcd writes it."""
    digits = numbered(UUID, number).decode().replace(" ", "").replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def write_script(path: Path, order: Sequence[Word]) -> None:
    """For bench/estate.c."""
    lines = (f"{'say' if word.said else 'hear'} {word.data.hex()}\n" for word in order)
    path.write_text("".join(lines))


class Unheard(Exception):
    """Something did not come in time; the text says what came instead."""


def connected(port: int) -> socket.socket:
    """A connection to a port of this machine."""
    return socket.create_connection((HOST, port), timeout=PATIENCE)


def dialled(port: int, order: Sequence[Word], number: int) -> socket.socket:
    """A VM that has gone through the order."""
    sock, heard = connected(port), b""
    for word in order:
        if word.said:
            sock.sendall(numbered(word.data, number))
        while not word.said and word.data not in heard:
            heard += received(sock, f"{word.data!r}, after {heard!r}")
    return sock


def received(sock: socket.socket, what: str) -> bytes:
    """The next bytes. Raises Unheard."""
    try:
        data = sock.recv(READ)
    except (socket.timeout, ConnectionError):
        data = b""
    if not data:
        raise Unheard(f"never heard {what}")
    return data


def answered(sock: socket.socket, said: bytes, end: bytes) -> bytes:
    """Say something and hear until what was heard ends so."""
    sock.sendall(said)
    heard = b""
    while not heard.endswith(end):
        heard += received(sock, f"{end!r} after {said!r}, but {heard!r}")
    return heard


def hush(socks: Sequence[socket.socket]) -> None:
    """Throw away what comes until nothing does."""
    while ready := select.select(socks, [], [], QUIET)[0]:
        for sock in ready:
            received(sock, "an end of it")


def prove(vm: socket.socket, clients: Sequence[socket.socket]) -> None:
    """See that the way is open in both directions, and leave nothing on it. Raises Unheard."""
    hush((vm, *clients))
    vm.sendall(b"from the VM\n")
    for client in clients:
        answered(client, b"", b"from the VM\n")
    if clients:
        clients[0].sendall(b"from the client\n")
        answered(vm, b"", b"from the client\n")
    hush((vm, *clients))


def until_there(port: int, seconds: float = PATIENCE) -> None:
    """Wait for somebody to listen there, without connecting: some servers then dial the VM. Raises Unheard."""
    listening = re.compile(rf":{port:04X} 0+:0000 0A ")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(listening.search(Path(table).read_text()) for table in ("/proc/net/tcp", "/proc/net/tcp6")):
            return
        time.sleep(0.02)
    raise Unheard(f"nobody listens on port {port}")
