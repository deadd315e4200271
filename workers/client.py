"""A client: somebody on the console, as a cursor on the journal.

Does: sends what lies between its cursor and the journal's head in the client's own coding (raw, telnet, or
vspcctl's frames), reads what it types.
Owns: its socket, the cursor, and the few bytes of a coded unit that the socket took only in part.
Never: queues console bytes, decides what it may see or type, blocks.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Callable, NamedTuple, Optional, Union

from vspcd.proto import attach, telnet
from vspcd.proto.errors import PeerError
from vspcd.proto.terminal import UNDECIDED, Break, Input, Terminal
from vspcd.unix import tcpinfo
from vspcd.unix.failpoint import reached
from vspcd.unix.lowwater import LowWater
from vspcd.unix.page import Page

INPUT_LIMIT = 2 * telnet.SUBNEGOTIATION_LIMIT  # a peek this long holds a whole token, or a fault
NOTICE_LIMIT = 8192
OUT_LIMIT = 4 * 65536
CHUNK = 65536
PACKET = 1 << 18  # more than the longest packet of vspcctl's frames
TYPED_LIMIT = 1 << 62  # bytes; the page's words hold more than one who counts honestly can reach
RAW, TELNET, ATTACH = "raw", "telnet", "vspcctl"
SEND = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT  # an enumeration: putting them together takes as long as to peek
READ = socket.MSG_DONTWAIT
BREAK_WIRE = telnet.command(telnet.BREAK)

Data = Union[bytes, memoryview]


class ClientGone(Exception):
    """The client has left; the text says how."""


class InputEnded(Exception):
    """The client has said its last word; it may still listen."""


class Typed(NamedTuple):
    """What a client has typed: ``wire`` is ready for the VM's telnet connection, ``size`` bytes were read for it.

    ``offset``: how much vspcctl has typed with it, by its own count. ``breaks``: how many of the wire's commands
    are a serial break.
    """

    wire: bytes
    size: int
    offset: int = 0
    breaks: int = 0


class Client:
    """One client. ``number`` is the master's name for it; ``slot`` its place in the worker's page."""

    def __init__(
        self,
        number: int,
        kind: str,
        sock: socket.socket,
        origin: str,
        mode: str,
        cursor: int,
        page: Page,
        seeded: bool = False,
    ) -> None:
        sock.setblocking(False)
        self.number = number
        self.kind = kind
        self.sock = sock
        self.origin = origin
        self.mode = mode
        self.facts: Optional[dict[str, object]] = None  # what the master wants to be told of it one day
        self.greeting: Optional[str] = None  # a notice for when it is known whether it can be told any
        self.out = bytearray()
        self.heard = True  # its input is waited for
        self.ended = False  # it sends no more, and still listens
        self.seeded = seeded  # it is shown what was said before in a form of its own
        self.deaf = False  # nothing reaches it any more; what it has typed before is heard
        self.lingering = False  # it has closed its side, and is let go before long
        self.announce_live = kind == ATTACH
        self.terminal = Terminal() if kind == TELNET else None
        self.decided = kind != TELNET
        self.told_terminal: Optional[dict[str, Any]] = None  # what the master knows of it
        self.answered = 0  # bytes of our own words that its last ones were answered with
        self.already_said = 0  # those of them that will be made again
        self.told_coded: Optional[bool] = None  # what the master knows of its coding
        self._low_water = LowWater(sock)
        self._before = b""  # the beginning of an escape that is not in the socket any more
        self.counted = (
            sock.family != socket.AF_UNIX
        )  # TCP counts what was given and consumed, Unix sockets do not
        self._half = False
        self._ahead = 0  # coded bytes that it was given already, of what is put next
        self._given = tcpinfo.given(sock) if self.counted else 0
        self._page = page
        slot = page.slot_of(number)
        if slot is None:
            # What it is shown first waits from the beginning, so that its absence is known.
            slot = page.take_client_slot(number, cursor, self._given, int(seeded))
        self._slot = slot
        self.cursor = page.client(slot).cursor

    @property
    def coded(self) -> bool:
        """Whether console bytes reach it in another form than they have."""
        return self.kind == ATTACH or (self.terminal is not None and self.terminal.kind == TELNET)

    @property
    def kind_known(self) -> bool:
        """Whether it has shown if it speaks telnet, or does not have to."""
        return self.terminal is None or self.terminal.kind != UNDECIDED

    def note(self) -> None:
        """Note how far it is, for the master, and for the process that may have to go on here."""
        self._page.put_client(self._slot, self.cursor, self._half, self._given, len(self.out))
        reached("client.noted")

    def resume(self, read: Callable[[int, int], Optional[bytes]], unsaid: bytes = b"") -> None:
        """Go on where a dead worker was; ``read(position, size)`` reads the journal.

        What the kernel was given since the last note is first what waited then, and after that console bytes. Those
        that no file has, such as on a full disk, the VM says again: what it was given of them is left out then.
        ``unsaid``: what waited and is known.
        """
        noted = self._page.client(self._slot)
        more = tcpinfo.given(self.sock) - noted.given if self.counted else 0
        self.cursor, self._half = noted.cursor, noted.half and not more
        self.out += unsaid or (b"\xff" if self._half else b"")
        more = max(0, more - noted.waiting)
        self._given = tcpinfo.given(self.sock) - more if self.counted else noted.given
        while more:
            data = read(self.cursor, CHUNK)
            if not data:
                break
            more -= self._pass(data, more)
        if not self.coded:
            self.cursor += more
            self._given += more
            more = 0
        self._ahead = more
        self.note()

    def _pass(self, data: bytes, limit: int) -> int:
        """It was given the beginning of this, up to so many bytes as it is coded: how many."""
        size = min(limit, len(telnet.escape(data)) if self.coded else len(data))
        whole, half = telnet.escaped_prefix(data, size) if self.coded else (size, False)
        self.cursor += whole + half
        self._given += size
        if half:
            self.out += b"\xff"
            self._half = True
        return size

    def nothing_comes_again(self) -> None:
        """What it was given and no file has is not said again: the VM's connection is over."""
        self._given += self._ahead
        self._ahead = 0
        self.note()

    def consumed(self) -> int:
        """Bytes that were ever read from it, if its socket counts them."""
        try:
            return tcpinfo.consumed(self.sock) if self.counted else 0
        except OSError:
            return 0

    def given(self) -> int:
        """Bytes that were ever given to it, apart from a constant."""
        try:
            return tcpinfo.given(self.sock) if self.counted else self._given
        except OSError:
            return self._given

    # Output.

    def put(self, data: Data) -> bool:
        """Send console bytes from the cursor on and move it; whether all were taken. Raises ClientGone."""
        if self.out and not self.flush():
            return False
        if self.kind == ATTACH:
            return self._put_frames(data)
        if self.coded:
            return self._put_telnet(bytes(data))
        sent = self._send(data)
        self.cursor += sent
        self.note()
        return sent == len(data)

    def _put_telnet(self, data: bytes) -> bool:
        if self._ahead:
            begin = self.cursor
            self._ahead -= self._pass(data, self._ahead)
            data = data[self.cursor - begin :]
            self.note()
            if self.out and not self.flush():
                return False
        wire = telnet.escape(data)
        sent = self._send(wire)
        if sent == len(wire):
            self.cursor += len(data)
        else:
            whole, half = telnet.escaped_prefix(data, sent)
            self.cursor += whole + half
            if half:
                self.out += b"\xff"
                self._half = True
        self.note()
        return sent == len(wire)

    def _put_frames(self, data: Data) -> bool:
        for at in range(0, len(data), attach.PAYLOAD_LIMIT):
            piece = bytes(data[at : at + attach.PAYLOAD_LIMIT])
            wire = attach.frame(attach.DATA, piece, self.cursor)
            sent = self._send(wire)
            if sent:
                self.cursor += len(piece)
                self.out += wire[sent:]
                self.note()
            if sent < len(wire):
                return False
        return True

    def flush(self) -> bool:
        """Send the rest of a unit and the notices that wait; whether nothing waits. Raises ClientGone."""
        while self.out:
            sent = self._send(self.out)
            if not sent:
                return False
            del self.out[:sent]
            self._half = False
            self.note()
        return True

    def _send(self, data: Union[Data, bytearray]) -> int:
        reached("client.send")
        try:
            sent = self.sock.send(data, SEND)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ClientGone(os.strerror(error.errno or 0)) from None
        if self.counted:
            self._given += sent
        reached("client.sent")
        return sent

    def notice(self, text: str) -> None:
        """Tell it something, if its coding has a place for that: raw clients are never told anything."""
        if self.kind == ATTACH:
            self._announce(attach.frame(attach.NOTICE, text.encode("utf-8", "replace")))
        elif self.coded:
            self._announce(f"\r\n[vspcd: {text}]\r\n".encode("utf-8", "replace"))

    def skipped(self, size: int) -> None:
        """``size`` bytes are not to be had any more; the cursor stands behind them already."""
        if self.kind == ATTACH:
            self._announce(attach.frame(attach.SKIPPED, str(size).encode(), self.cursor))
        else:
            self.notice(f"{size} bytes skipped")

    def greet(self) -> None:
        """Say what it was to be told as soon as it can be told anything."""
        greeting, self.greeting = self.greeting, None
        if greeting is not None:
            self.notice(greeting)

    def tell_mode(self) -> None:
        """Let vspcctl know whether what it sends is taken. A dead worker may have had no time to."""
        if self.kind == ATTACH:
            self._announce(attach.frame(attach.MODE, self.mode.encode("ascii", "replace")))

    def change_mode(self, mode: str, notice: Optional[str]) -> None:
        """It may type from now on, or not."""
        if mode != self.mode:
            self.mode = mode
            self.tell_mode()
        if not self.decided:
            self.greeting = notice or self.greeting
        elif notice is not None:
            self.notice(notice)

    def live(self) -> None:
        """The replay is over."""
        if self.announce_live:
            self.announce_live = False
            self._announce(attach.frame(attach.LIVE, b"", self.cursor))

    def goodbye(self, reason: str) -> None:
        """Tell why it is detached."""
        if self.kind == ATTACH:
            self._announce(attach.frame(attach.BYE, reason.encode("utf-8", "replace")))
        else:
            self.notice(reason)

    def _announce(self, wire: bytes) -> None:
        if len(self.out) <= NOTICE_LIMIT + CHUNK:
            self.out += wire
            self.note()

    # Input.

    def read(self, last: bool = False) -> Optional[Typed]:
        """What it has typed, None when nothing whole is there. Call ``done`` when it is with the VM.

        ``last``: it has closed its side, so half an escape will stay one. Raises InputEnded or ClientGone at
        the end, and PeerError when it breaks its protocol.
        """
        return self._read_frames() if self.kind == ATTACH else self._peek_typed(last)

    def _peek_typed(self, last: bool) -> Optional[Typed]:
        try:
            data = self.sock.recv(INPUT_LIMIT, PEEK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ClientGone(os.strerror(error.errno or 0)) from None
        if not data and not self._before:
            raise InputEnded
        if self.terminal is None:
            return Typed(telnet.escape(data), len(data))
        data = self._before + data
        items = self.terminal.receive(data)
        self.answer(self.terminal.take_output())
        if len(self.out) > OUT_LIMIT:
            raise PeerError("it does not read the answers to its requests")
        size = items[-1][1] if items else 0
        if not size and self._look_past_urgent(data):
            return self._peek_typed(last)
        if not size and (last or len(data) >= INPUT_LIMIT):
            raise InputEnded
        self._sleep_until(len(data) - max(size, len(self._before)) + 1 if not last else 1)
        breaks = sum(isinstance(item, Break) for item, _ in items)
        wire = b"".join(_wire(item) for item, _ in items)
        return Typed(wire, size - len(self._before), breaks=breaks) if size else None

    def _look_past_urgent(self, data: bytes) -> bool:
        """Nobody can look past where urgent data begins, as in telnet's Synch: half an escape before it is taken out of
        the socket. Whether it was."""
        ahead = len(data) - len(self._before)
        if ahead <= 0 or len(data) >= INPUT_LIMIT or self.unread() <= ahead:
            return False
        more = self.sock.recv(INPUT_LIMIT, PEEK)
        if len(more) > ahead:
            return False  # it has come just now, and will be reported
        self._before += self.sock.recv(ahead, socket.MSG_DONTWAIT)
        return True

    def unseeded(self) -> bool:
        """Whether a dead worker has given it nothing of what it is shown first."""
        noted = self._page.client(self._slot)
        return self.seeded and noted.waiting > 0 and self.given() == noted.given

    def answer(self, wire: bytes) -> None:
        """Queue telnet's own words, but for those that a dead worker has queued."""
        skip = min(len(wire), self.already_said)
        self.already_said -= skip
        self.answered = len(wire)
        if wire[skip:]:
            self.out += wire[skip:]
            self.note()

    def _sleep_until(self, low_water: int) -> None:
        """Half an escape is no reason to wake up: wait for more."""
        self._low_water.set(low_water)

    def _read_frames(self) -> Optional[Typed]:
        """The frames of one packet; those that a dead worker had dealt with are left out."""
        try:
            data = self._packet(PEEK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ClientGone(os.strerror(error.errno or 0)) from None
        if not data:
            raise ClientGone("it has closed")
        found = attach.frames(data)
        if not found or found[-1][1] != len(data):
            raise PeerError("a packet that does not hold whole frames")
        frames = [frame for frame, _ in found if frame.offset >= self._given]
        offset = max(map(attach.typed_up_to, frames), default=self._given)
        if offset >= TYPED_LIMIT:
            raise PeerError("it says that it has typed more than anybody could")
        breaks = sum(frame.type == attach.BREAK for frame in frames)
        return Typed(b"".join(map(_frame_wire, frames)), len(data), offset, breaks)

    def _packet(self, flags: int) -> bytes:
        """The next packet. That it closed without reading everything comes before what it said until then."""
        try:
            return self.sock.recv(PACKET, flags)
        except ConnectionResetError:
            return self.sock.recv(PACKET, flags)

    def note_typing(self) -> None:
        """It types, and is heard: note when, for the master."""
        self._page.note_typed(self._slot)

    def settle(self, typed: Typed) -> None:
        """The VM has it: should another worker find it unread, it is not to be typed again."""
        if self.kind == ATTACH:
            self._given = max(self._given, typed.offset)
            self.note()

    def unread(self) -> int:
        """Bytes that it has typed and that nobody has read."""
        try:
            return tcpinfo.unread(self.sock)
        except OSError:
            return 0

    def done(self, typed: Typed) -> None:
        """What was read is with the VM, or dropped: forget it."""
        left, self._before = typed.size, b""
        try:
            if self.kind == ATTACH:
                self._packet(READ)  # the one packet that it was
                return
            while left:
                left -= len(self.sock.recv(left, socket.MSG_DONTWAIT)) or left
        except OSError:
            pass  # it was reset, and with it went what was read already

    # The end.

    def close(self) -> None:
        """End the connection for both sides, whoever else holds a duplicate."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self._page.words[self._slot] = 0


def _wire(item: Optional[Input]) -> bytes:
    if isinstance(item, bytes):
        return telnet.escape(item)
    return BREAK_WIRE if isinstance(item, Break) else b""


def _frame_wire(frame: attach.Frame) -> bytes:
    if frame.type == attach.INPUT:
        return telnet.escape(frame.payload)
    if frame.type == attach.BREAK:
        return BREAK_WIRE
    raise PeerError(f"a client does not send frames of type {frame.type}")
