"""The VM of a console whose process keeps dying, and what all its clients share. None of them ever waits.

Does: says, types and hears a little each time it is asked to, and checks what it hears at once.
Owns: its socket. Never shares code with the product.
"""

from __future__ import annotations

import random
import socket
import ssl
from typing import NamedTuple, Optional

from tests.crash.shuffle import Shuffle, typing
from tests.crash.wire import Speech, cut, tokens
from tests.system.daemon import Address
from tests.system.vm import GET_BIOS_UUID, GET_LOCATION_UUID, VMWARE, FakeVm, Heard, Sub
from tests.system.vmotion_vm import VMOTION_GOAHEAD, VMOTION_NOTNOW, VMOTION_PEER_OK, MovingVm
from tests.system.wait import PATIENCE

RAW, TELNET, UNIX, CTL = "raw TCP", "telnet", "Unix", "vspcctl"
READ = 262144
TYPED_AT_ONCE = 120
MEMORABLE = 16  # bytes that hardly stand twice in what a VM says
BACKLOG = 65536  # nobody types on while so much has not been taken
CUT_AT = 1500
UNASKED = (VMOTION_GOAHEAD, VMOTION_NOTNOW, VMOTION_PEER_OK, GET_BIOS_UUID, GET_LOCATION_UUID)
NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Dropped(AssertionError):
    """A connection has ended that must not."""


def received(sock: socket.socket) -> Optional[bytes]:
    """What is there, None when nothing is; b'' at the end."""
    try:
        return sock.recv(READ)
    except NOTHING_YET:
        return None
    except ConnectionResetError:
        return b""


def taken(sock: socket.socket, data: bytes) -> int:
    """How much of it the socket takes."""
    try:
        return sock.send(data)
    except NOTHING_YET:
        return 0
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Dropped(f"what is said to vspcd is not taken: {error}") from None


class NarrowVm(MovingVm):
    """A VM whose host takes little at a time, so that what it is given is often cut."""

    def dialled(self, proxy: Address, source: str) -> socket.socket:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.settimeout(PATIENCE)
        connection.bind((source, 0))
        connection.connect(proxy)
        return connection


class Guest:
    """One connection of the VM. The speech and the shuffle outlive it: the VM may dial again."""

    def __init__(self, vm: FakeVm, speech: Speech, shuffle: Shuffle) -> None:
        self.vm = vm
        self.speech = speech
        self.shuffle = shuffle
        self.deaf = 0  # turns
        self.extra: list[Sub] = []  # what it was told without having asked, or in its own time
        self.runs_here = True
        self._heard = bytearray(vm._buffer)
        self._piece = b""
        shuffle.hear(bytes(vm.data))
        vm.socket.setblocking(False)

    @property
    def socket(self) -> socket.socket:
        return self.vm.socket

    def speak(self) -> None:
        """Send the next piece of what is on the wire."""
        wire = self.speech.wire
        if not self._piece and wire:
            self._piece = bytes(wire[: cut(wire, self.speech.chance, CUT_AT)])
        if self._piece:
            # TLS wants the same piece again when it was not taken.
            size = taken(self.socket, self._piece)
            del wire[:size]
            self._piece = self._piece[size:]

    def listen(self) -> None:
        """Take what there is, and check it."""
        while (chunk := received(self.socket)) is not None:
            if not chunk:
                raise Dropped("the VM's connection has ended")
            self._heard += chunk
            for token in tokens(self._heard):
                if isinstance(token, bytes):
                    assert self.runs_here, f"{token!r} is typed to a VM that is not there"
                    self.shuffle.hear(token)
                elif token in self.speech.due[:1]:
                    del self.speech.due[0]
                else:
                    self._unasked(token)

    def _unasked(self, token: Heard) -> None:
        """No answer to what was asked last: about a move, or for what the VM knows of itself, or one too many."""
        if isinstance(token, Sub) and token.option == VMWARE and token.payload[0] in UNASKED:
            self.extra.append(token)
            self.runs_here = self.runs_here and token.payload[0] != VMOTION_GOAHEAD
            return
        due = self.speech.due
        raise AssertionError(f"the VM hears {token}, and waits for {due[0] if due else 'no answer'}")

    def said(self, code: int) -> list[bytes]:
        """The payloads that it was told with this code without having asked."""
        return [token.payload[1:] for token in self.extra if token.payload[0] == code]

    def leave(self) -> None:
        """Say all that is on the wire, and nothing more."""
        self.socket.setblocking(True)
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(self.speech.wire)
        self.speech.wire.clear()
        self._piece = b""
        self.socket.shutdown(socket.SHUT_WR)
        self.socket.setblocking(False)

    def gone(self) -> bool:
        """Take what there still is; whether the connection is over."""
        try:
            self.listen()
        except Dropped:
            return True
        return False


class Seat(NamedTuple):
    """Where somebody on a console has a place: ``number`` in the shuffle; he sees what is said from ``since`` on, or
    from somewhere behind it if he comes ``late``."""

    shuffle: Shuffle
    chance: random.Random
    number: int
    since: int = 0
    late: bool = False


class Client:
    """Somebody on the console. ``at``: the place in what the VM said up to which it has seen everything."""

    kind = ""

    def __init__(self, sock: socket.socket, seat: Seat, types: bool = True) -> None:
        self.socket = sock
        self.chance = seat.chance
        self.number = seat.number
        self.at = seat.since
        self.asleep = 0  # turns
        self.repeats = 0  # sends that came twice
        self.types = types
        self._shuffle = seat.shuffle
        self.late = seat.late
        self._early = b""
        self._out = bytearray()
        sock.setblocking(False)

    def __str__(self) -> str:
        return f"{self.kind} client {self.number}"

    # Typing.

    def type(self, count: Optional[int] = None, awkward: bool = False) -> bool:
        """Type so many bytes; whether there was room."""
        if not self.types or len(self._out) > BACKLOG:
            return False
        data = self.keys(count or self.chance.randint(1, TYPED_AT_ONCE), awkward)
        self._shuffle.typed[self.number] += data
        self._out += self.coded(data)
        return True

    def keys(self, count: int, awkward: bool) -> bytes:
        """What is typed next."""
        return typing(self.chance, self.number, count, awkward)

    def send(self) -> None:
        """Give the socket a piece of what was typed, cut anywhere."""
        if self._out:
            del self._out[: taken(self.socket, bytes(self._out[: cut(self._out, self.chance, CUT_AT)]))]

    def rush(self) -> int:
        """Give the socket all that it takes: how much."""
        size = taken(self.socket, bytes(self._out))
        del self._out[:size]
        return size

    def coded(self, data: bytes) -> bytes:
        """Console input as it stands on the wire."""
        return data

    @property
    def idle(self) -> bool:
        return not self._out

    # Seeing.

    def listen(self, said: bytearray) -> None:
        """Take what there is, and compare it with what the VM said."""
        while (chunk := received(self.socket)) is not None:
            if not chunk:
                raise Dropped(f"the connection of the {self} has ended")
            self.see(chunk, said)

    def see(self, chunk: bytes, said: bytearray) -> None:
        self.compare(chunk, said)

    def compare(self, data: bytes, said: bytearray) -> None:
        """These are the next console bytes, or something is wrong."""
        if self.late:
            self._early += data
            if len(self._early) < 2 * MEMORABLE:
                return
            self.late, data = False, self._early
            data = self.begin(data, said)
        if not said.startswith(data, self.at):
            wrong = next(
                i for i, value in enumerate(data) if said[self.at + i : self.at + i + 1] != bytes([value])
            )
            raise AssertionError(
                f"the {self} sees {data[wrong : wrong + 40]!r} at {self.at + wrong} "
                f"instead of {bytes(said[self.at + wrong : self.at + wrong + 40])!r}{placed(data[wrong:], said)}"
            )
        self.at += len(data)

    def begin(self, data: bytes, said: bytearray) -> bytes:
        """Find out where it has come in; what it sees from there on."""
        self.at = said.find(data[: 2 * MEMORABLE], self.at)
        assert self.at >= 0, f"the {self} begins with bytes that nobody says: {data[:40]!r}"
        return data

    def finish(self, said: bytearray) -> None:
        """Nothing more will come."""

    def close(self) -> None:
        self.socket.close()


def placed(data: bytes, said: bytearray) -> str:
    """Where these bytes belong, for people."""
    at = said.find(data[:24]) if len(data) >= 24 else -1
    return "" if at < 0 else f", which the VM said at {at}"
