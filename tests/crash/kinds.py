"""The kinds of clients on a console whose process keeps dying: raw TCP, telnet, a Unix socket, vspcctl.

Does: types and sees in its kind's own coding. Knows what may come twice where nobody counts bytes.
Owns: its socket. Never shares code with the product.
"""

from __future__ import annotations

import json
import re
import socket
import struct

from tests.crash.peers import CTL, CUT_AT, MEMORABLE, RAW, TELNET, UNIX, Client, Seat, taken
from tests.crash.shuffle import IAC, typing
from tests.crash.wire import NAWS, cut, tokens
from tests.system.clients import TcpClient, TelnetClient, UnixClient
from tests.system.daemon import Address
from tests.system.vm import Option, doubled, sub
from tests.system.wait import PATIENCE

NOTICE = re.compile(rb"\r\n\[vspcd: [^\r\n]*\]\r\n")
_NOTICE_BEGINS = b"\r\n[vspcd: "
_FRAME = struct.Struct("!BxxxIQ")
_DATA, _SKIPPED, _BYE, _INPUT = 1, 3, 5, 16


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

    def keys(self, count: int, awkward: bool) -> bytes:
        """Nor begins what is typed with one: it may be the beginning of a batch."""
        data = super().keys(count, awkward)
        return bytes((self.number,)) + data[1:] if data[0] == IAC else data

    def send(self) -> None:
        """A batch that is heard again must not begin with a byte that others type as well."""
        size = cut(self._out, self.chance, CUT_AT) if self._out else 0
        while self._out[size : size + 1] == b"\xff":
            size += 1
        if size:
            del self._out[: taken(self.socket, bytes(self._out[:size]))]

    def see(self, chunk: bytes, said: bytearray) -> None:
        self._seen += chunk
        if self.at != self._marks[-1]:
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
        if self.late:
            if len(self._seen) < 4 * MEMORABLE:
                return
            self.late, self._seen = False, self.begin(self._seen, said)
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
        self._go_back_again(good, said)

    def _go_back_again(self, good: int, said: bytearray) -> None:
        """A short send has come once more for each of two deaths in a row."""
        end = self.at + good
        for again in range(self._marks[0], end):
            if self._seen.startswith(said[again:end], good):
                self.repeats += 1
                self.at = again
                self._seen = self._seen[good:]
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
