"""The VM and the clients of a console whose process keeps dying. None of them ever waits.

Does: says, types and hears a little each time it is asked to, and checks what it hears at once.
Owns: its socket. Never shares code with the product.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import struct
from typing import NamedTuple, Optional

from tests.crash.shuffle import Shuffle, typing
from tests.crash.wire import NAWS, Speech, cut, tokens
from tests.system.clients import TcpClient, TelnetClient, UnixClient
from tests.system.daemon import Address
from tests.system.vm import GET_BIOS_UUID, GET_LOCATION_UUID, VMWARE, FakeVm, Heard, Option, Sub, doubled, sub
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

NOTICE = re.compile(rb"\r\n\[vspcd: [^\r\n]*\]\r\n")
_NOTICE_BEGINS = b"\r\n[vspcd: "
_FRAME = struct.Struct("!BxxxIQ")
_DATA, _SKIPPED, _BYE, _INPUT = 1, 3, 5, 16


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
        data = typing(self.chance, self.number, count or self.chance.randint(1, TYPED_AT_ONCE), awkward)
        self._shuffle.typed[self.number] += data
        self._out += self.coded(data)
        return True

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


class Raw(Client):
    """A program that speaks no telnet on the console's port."""

    kind = RAW


class Telnet(Client):
    """A telnet client with binary both ways, whose window changes its size now and then."""

    kind = TELNET

    def __init__(self, opened: TelnetClient, seat: Seat) -> None:
        super().__init__(opened.socket, seat)
        self._opened = opened
        self._wire = bytearray(opened._wire)
        self._seen = bytes(opened.seen)
        self.notices: list[bytes] = []

    def coded(self, data: bytes) -> bytes:
        resized = sub(bytes(self.chance.choices(b"\xff\x00\x50", k=4)), NAWS)
        return doubled(data) + (resized if self.chance.random() < 0.1 else b"")

    def see(self, chunk: bytes, said: bytearray) -> None:
        self._wire += chunk
        for token in tokens(self._wire):
            if isinstance(token, bytes):
                self._seen += token
            elif isinstance(token, Option):
                self._opened._answer(token)
        self._tell_apart(said)

    def _tell_apart(self, said: bytearray) -> None:
        """Notices from console bytes; what may be the beginning of a notice waits."""
        while notice := NOTICE.search(self._seen):
            self.compare(self._seen[: notice.start()], said)
            self.notices.append(notice[0])
            self._seen = self._seen[notice.end() :]
        hold = _notice_begins(self._seen)
        self.compare(self._seen[:hold], said)
        self._seen = self._seen[hold:]

    def finish(self, said: bytearray) -> None:
        self.compare(self._seen, said)
        self._seen = b""


def _notice_begins(data: bytes) -> int:
    """Where a notice begins that is not whole; the end when none does."""
    at = data.rfind(_NOTICE_BEGINS)
    if at >= 0:
        return at
    for size in range(len(_NOTICE_BEGINS) - 1, 0, -1):
        if data.endswith(_NOTICE_BEGINS[:size]):
            return len(data) - size
    return len(data)


class Unix(Client):
    """A program on the console's Unix socket. One send may come twice when the process dies."""

    kind = UNIX

    def __init__(self, sock: socket.socket, seat: Seat) -> None:
        super().__init__(sock, seat)
        self._seen = b""
        self._marks = [seat.since]  # where it was when it was sent something, the last few times

    def send(self) -> None:
        """A batch that is heard again must not begin with a byte that others type as well."""
        size = cut(self._out, self.chance, CUT_AT) if self._out else 0
        while self._out[size : size + 1] == b"\xff":
            size += 1
        if size:
            del self._out[: taken(self.socket, bytes(self._out[:size]))]

    def see(self, chunk: bytes, said: bytearray) -> None:
        self._seen += chunk
        self._marks = [*self._marks[-2:], self.at]
        self._compare(said, len(_NOTICE_BEGINS))

    def begin(self, data: bytes, said: bytearray) -> bytes:
        """Its very first send may be the one that comes twice."""
        for size in range(MEMORABLE + 1):
            again = data[size:]
            at = said.find(again[:MEMORABLE], self.at)
            if at >= 0 and (not size or again.startswith(data[:size][:MEMORABLE])):
                self.at = at
                self.repeats += size > 0
                return again
        return super().begin(data, said)

    def finish(self, said: bytearray) -> None:
        self._compare(said, 0)

    def _compare(self, said: bytearray, enough: int) -> None:
        """Go on as far as it is clear whether a send is repeated."""
        while self._seen:
            if said.startswith(self._seen, self.at):
                self.compare(self._seen, said)
                self._seen = b""
                return
            good = _common(self._seen, said, self.at)
            if enough and len(self._seen) - good < max(enough, MEMORABLE):
                return
            self._go_back(good, said)

    def _go_back(self, good: int, said: bytearray) -> None:
        """A send is repeated from somewhere on; its first bytes may have passed for others."""
        for early in range(min(good, MEMORABLE) + 1):
            start = good - early
            head = self._seen[start : start + 2 * MEMORABLE]
            again = said.rfind(head, self._marks[0], self.at + good + len(head) - 1)
            if again >= 0:
                self.repeats += 1
                self.at = again
                self._seen = self._seen[start:]
                return
        self.compare(self._seen, said)


def _common(data: bytes, said: bytearray, at: int) -> int:
    """How many bytes of data are those of ``said`` from ``at`` on."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high + 1) // 2
        if said.startswith(data[:middle], at):
            low = middle
        else:
            high = middle - 1
    return low


class Ctl(Client):
    """vspcctl: frames with their place, a packet each."""

    kind = CTL

    def __init__(self, sock: socket.socket, seat: Seat, types: bool = True) -> None:
        super().__init__(sock, seat, types)
        self._typed = 0
        self._packets: list[bytes] = []

    def coded(self, data: bytes) -> bytes:
        self._packets.append(_FRAME.pack(_INPUT, len(data), self._typed) + data)
        self._typed += len(data)
        return b""

    @property
    def idle(self) -> bool:
        return not self._packets

    def send(self) -> None:
        while self._packets and taken(self.socket, self._packets[0]):
            del self._packets[0]

    def see(self, chunk: bytes, said: bytearray) -> None:
        while chunk:
            sort, size, offset = _FRAME.unpack_from(chunk)
            payload, chunk = chunk[_FRAME.size : _FRAME.size + size], chunk[_FRAME.size + size :]
            assert len(payload) == size, f"the {self} gets half a frame"
            assert sort not in (_SKIPPED, _BYE), f"the {self} is told {payload!r}"
            if sort == _DATA:
                self._place(payload, offset, said)

    def _place(self, payload: bytes, offset: int, said: bytearray) -> None:
        if self.late:
            assert offset >= self.at, f"the {self} is told of {offset}, long before it came"
            self.late, self.at = False, offset
        assert offset <= self.at, f"the {self} lacks {offset - self.at} bytes at {self.at}"
        known = min(self.at - offset, len(payload))
        assert said.startswith(payload[:known], offset), f"the {self} gets other bytes again at {offset}"
        self.compare(payload[known:], said)


def raw(port: Address, seat: Seat, small: bool = False) -> Raw:
    """A raw client that the daemon takes for one, since it types; ``small``: it takes little at a time."""
    client = Raw(TcpClient(port, 4096 if small else None).socket, seat)
    typed = b""
    while typed[:1] in (b"", b"\xff"):
        typed = typing(seat.chance, seat.number, 1)
    seat.shuffle.typed[seat.number] += typed
    client._out += typed
    return client


def telnet(port: Address, seat: Seat) -> Telnet:
    return Telnet(TelnetClient(port).negotiated(), seat)


def unix(path: str, seat: Seat) -> Unix:
    return Unix(UnixClient(path).socket, seat)


def ctl(control: str, console: str, seat: Seat, types: bool = True) -> Ctl:
    """One who came through the control socket."""
    asked = {"type": "attach", "console": console, "replay": 0, "mode": "rw" if types else "ro"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(control)
        connection.send(json.dumps(asked).encode())
        answer, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        assert fds, f"no console for vspcctl: {answer!r}"
    return Ctl(socket.socket(fileno=fds[0]), seat, types)
