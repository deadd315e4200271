"""A worker on the bench: the real one, in this process, with us as its master, its VM and its clients.

Owns the far ends of all its sockets. Everything is a real socket or file; nothing inside the worker is replaced.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from itertools import count
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

from tests.proto.streams import tokens_of
from tests.unix.turning import PATIENCE, settle, turn, until
from tests.workers.deaths import Told
from vspcd import config as configuration
from vspcd.proto import attach, telnet
from vspcd.proto.vmware import DO_PROXY, VM_VC_UUID, Session, frame, uuid_payload
from vspcd.spawn import settings as plain_settings
from vspcd.unix import tcpinfo
from vspcd.unix.channel import Channel, pair
from vspcd.unix.page import Arena, Page
from workers.keyboard import Keyboard
from workers.shell import Start
from workers.vmware import VmwareWorker

UUID = "0123456789abcdeffedcba9800000000"
ID = "01234567-89ab-cdef-fedc-ba9800000000"
HOST, OTHER_HOST = "192.0.2.1", "192.0.2.2"
SMALL = 4096
KINDS = {"raw": "raw", "port": "telnet", "tool": "vspcctl"}


def tcp_pair(small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback; small ones hold little in the kernel."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if small:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    far = socket.socket()
    if small:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    far.connect(listener.getsockname())
    near, _ = listener.accept()
    listener.close()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


class Far:
    """The far end of one of the worker's sockets."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.got = bytearray()
        self.over = False

    def heard(self) -> bytes:
        """All that has come so far."""
        while not self.over:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                if self.sock.type != socket.SOCK_SEQPACKET:
                    self.over = True
                continue  # it left something unread, and what it said can still be read
            self.got += data
            self.over = not data
        return bytes(self.got)

    def ended(self) -> bool:
        """Whether the worker has closed the connection."""
        self.heard()
        return self.over

    def say(self, data: bytes) -> None:
        """Send something that fits into the socket."""
        assert self.sock.send(data) == len(data)

    def offer(self, data: Union[bytes, memoryview]) -> int:
        """Send what fits; how much that was."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return 0

    def finish(self) -> None:
        """Say no more, and go on listening."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Go without a good-bye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Go, having read everything."""
        if self.sock.fileno() >= 0:
            self.heard()
            self.sock.close()


class Vm(Far):
    """A VM's end of a leg."""

    def typed(self) -> bytes:
        """The console bytes that it was given."""
        return b"".join(token for token in tokens_of(self.heard()) if isinstance(token, bytes))

    def frames(self, code: int) -> int:
        """How often it was sent a message of the extension."""
        return sum(
            isinstance(token, telnet.Subnegotiation) and token.payload[:1] == bytes((code,))
            for token in tokens_of(self.heard())
        )

    def speak(self, data: bytes) -> None:
        """The serial port says this."""
        self.say(telnet.escape(data))


class Tool(Far):
    """A client that speaks vspcctl's frames, whole ones in each packet."""

    typed = 0

    def all(self) -> list[attach.Frame]:
        """All frames that it was sent."""
        return [frame for frame, _ in attach.frames(self.heard())]

    def reached(self) -> int:
        """The position of the journal up to which it has been sent."""
        ends = [each.offset + len(each.payload) for each in self.all() if each.type == attach.DATA]
        return ends[-1] if ends else 0

    def payloads(self, type: int) -> list[bytes]:
        return [frame.payload for frame in self.all() if frame.type == type]

    def seen(self) -> bytes:
        """The console bytes that it was sent; checks that their positions are without a hole."""
        at: Optional[int] = None
        for each in self.all():
            if each.type == attach.SKIPPED:
                at = each.offset
            if each.type == attach.DATA:
                assert at in (None, each.offset)
                at = each.offset + len(each.payload)
        return b"".join(self.payloads(attach.DATA))

    def typing(self, data: bytes) -> bytes:
        """The frame for what is typed next; it says how much was typed before."""
        self.typed += len(data)
        return attach.frame(attach.INPUT, data, self.typed - len(data))

    def breaking(self) -> bytes:
        """The frame for a break."""
        self.typed += 1
        return attach.frame(attach.BREAK, offset=self.typed - 1)

    def type(self, data: bytes) -> None:
        self.say(self.typing(data))


FarEnd = TypeVar("FarEnd", bound=Far)


class Bench:
    """The worker and its surroundings. Settings by their names in the message of the master."""

    def __init__(self, folder: Path, leg: Optional[socket.socket] = None, **settings: Any) -> None:
        self.folder = folder / "log"
        self.folder.mkdir(exist_ok=True)
        self.settings = plain_settings(configuration.load(None, ["log_level=error"], folder))
        self.settings["handshake_timeout"] = settings.pop("handshake_timeout", 10.0)
        for name, value in settings.items():
            section = "clients" if name in ("replay", "max_lag") else "log"
            self.settings[section][name] = value
        self._arena = Arena()
        number = self._arena.take()
        self.page = self._arena.page(number)
        self._directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self._page_number = number
        self.messages: list[dict[str, Any]] = []
        self._numbers = count(2)
        self._ends: list[Far] = []
        self._legs: dict[int, tuple[dict[str, Any], socket.socket]] = {}
        self._clients: dict[int, tuple[dict[str, Any], socket.socket]] = {}
        self.pages: list[Page] = []  # of all workers: for as long as one lives, its mapping does
        self._begin(leg)

    def _begin(self, leg: Optional[socket.socket] = None) -> None:
        """A worker's life."""
        ours, theirs = pair()
        self.worker = VmwareWorker(self.settings, self._directory)
        self.worker.begin(
            Start(
                channel=theirs,
                arena=os.dup(self._arena.fd),
                page=self._page_number,
                sync=-1,
                leg=-1 if leg is None else leg.detach(),
                leg_number=0 if leg is None else 1,
                peer="" if leg is None else f"{HOST}:1000",
            )
        )
        self.pages.append(self.worker.shell.page)
        self.loop = self.worker.shell.loop
        self.master = Channel(ours)
        self.master.serve(self.loop, self._heard, self._gone)
        self.gone = False

    def _heard(self, message: dict[str, Any], _fds: list[int]) -> None:
        """The worker tells something; what is over is not kept for another one."""
        self.messages.append(message)
        if message["type"] in ("rejected", "disconnected", "closed"):
            self._forget(self._legs, message["leg"])
        elif message["type"] == "detached":
            self._forget(self._clients, message["client"])

    @staticmethod
    def _forget(kept: dict[int, tuple[dict[str, Any], socket.socket]], number: int) -> None:
        if number in kept:
            kept.pop(number)[1].close()

    def _gone(self) -> None:
        self.gone = True
        self.loop.forget(self.master.fileno())

    @property
    def keyboard(self) -> Keyboard:
        """The keyboard of the console that it has."""
        assert self.worker.console is not None
        return self.worker.console.keyboard

    # The master.

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What the worker has told its master of this sort."""
        return [message for message in self.messages if message["type"] == kind]

    def tell(self, message: str, /, *fds: socket.socket, **fields: Any) -> None:
        """Say something as the master; descriptors are given away."""
        self.master.send({"type": message, **fields}, [fd.fileno() for fd in fds])
        for fd in fds:
            fd.close()

    def own(self, name: Optional[str] = "web01", label: str = "") -> None:
        """Give it the console."""
        self.tell("own", console={"uuid": UUID, "label": label, "name": name}, resume=False)
        self.until(lambda: self.worker.console is not None)

    def succeed(self, handed: Optional[int] = None) -> None:
        """The worker has died: another one goes on, from what the master was told last. What it is handed comes one
        by one, and it looks at everything that there is to see in between. ``handed``: so many messages and no more."""
        self._bury()
        told = Told(self.messages)
        self._begin()
        console = {"uuid": UUID, "label": "", "name": "web01"}
        words: list[tuple[dict[str, Any], list[socket.socket]]] = [
            ({"type": "own", "console": console, "resume": True}, [])
        ]
        for facts, parked in self._legs.values():
            words.append((told.resume_leg(facts), [parked]))
        for number, (facts, parked) in self._clients.items():
            states = [each["state"] for each in self.told("terminal") if each["client"] == number]
            terminal = states[-1] if states else None
            words.append(({"type": "resume-client", "terminal": terminal, **facts}, [parked]))
        words.append(({"type": "resumed", "move": told.move, "known": None}, []))
        for message, fds in words[:handed]:
            self.master.send(message, [fd.fileno() for fd in fds])
            self.settle()

    def _bury(self) -> None:
        """All that a dead worker had open is closed; the duplicates are not. It does nothing any more."""
        while last_words := list(self.master.packets()):
            for message, fds in last_words:
                self._heard(message, fds)
        console, heir = self.worker.console, self.worker.inheritance
        target = self.worker.moves.target or (heir._target.connection if heir._target is not None else None)
        for connection in (self.worker.connection, target):
            if connection is not None:
                connection.leg.sock.close()
        for client in () if console is None else console.clients.values():
            client.sock.close()
        self.worker.shell._channel.sock.close()
        self.master.close()
        self.loop.close()

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        until(self.loop, condition, seconds=seconds)

    def turn(self) -> None:
        turn(self.loop)

    def settle(self) -> int:
        return settle(self.loop)

    def pour(
        self, source: Far, wire: bytes, until: Callable[[], object] = lambda: True, seconds: float = 60
    ) -> None:
        """Let a far end say much, as fast as it is taken, and go on until the condition holds."""
        left = memoryview(wire)
        end = time.monotonic() + seconds
        while not until() or left:
            assert time.monotonic() < end, f"waited {seconds:g} s in vain"
            if left:
                left = left[source.offer(left[:200000]) :]
            self.turn()

    # The VM.

    def offer(self, host: str = HOST, small: bool = False, **saved: Any) -> tuple[int, Vm]:
        """A VM's connection that another worker has negotiated; its number and far end."""
        near, far = tcp_pair(small)
        return self.give("leg", near, far, host, {**told_of(near, negotiated()), **saved})

    def give(
        self,
        word: str,
        near: socket.socket,
        far: socket.socket,
        host: str,
        session: dict[str, Any],
        **more: str,
    ) -> tuple[int, Vm]:
        """Give the worker a connection with this message; its number and far end. The master keeps a duplicate."""
        number = next(self._numbers)
        facts = {"leg": number, "peer": f"{host}:{1000 + number}", "session": session, "secured": False}
        self._legs[number] = facts, near.dup()
        self.tell(word, near, **facts, **more)
        vm = Vm(far)
        self._ends.append(vm)
        return number, vm

    def connect(self, host: str = HOST, small: bool = False, **saved: Any) -> Vm:
        """A VM that has the console."""
        number, vm = self.offer(host, small, **saved)
        self.until(lambda: any(message["leg"] == number for message in self.told("connected")))
        return vm

    # Clients.

    def comes(self, turns: Callable[[], object], kind: str, **facts: Any) -> Far:
        """Somebody comes while ``turns`` serves the loop, which the worker need not survive."""
        if kind == "port":
            near, far = tcp_pair(facts.pop("small", False))
        else:
            near, far = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET if kind == "tool" else socket.SOCK_STREAM
            )
        number = next(self._numbers)
        known: dict[str, Any] = {
            "client": number,
            "kind": KINDS[kind],
            "mode": "rw",
            "from": f"client {number}",
        }
        known.update({"replay": 0, "seed": None, "notice": None, **facts})
        self._clients[number] = known, near.dup()
        self.tell("client", near, **known)
        turns()
        return self._end(Tool(far) if kind == "tool" else Far(far))

    def _here(self) -> None:
        """Whoever has come last is on the console."""
        newest = max(self._clients)
        self.until(lambda: self.worker.console is not None and newest in self.worker.console.clients)

    def raw(self, mode: str = "rw") -> Far:
        return self.comes(self._here, "raw", mode=mode)

    def tool(self, mode: str = "rw", replay: int = 0) -> Tool:
        tool = self.comes(self._here, "tool", mode=mode, replay=replay)
        assert isinstance(tool, Tool)
        return tool

    def port(self, mode: str = "rw", small: bool = False) -> Far:
        """Somebody on the console's TCP port; what he speaks is his choice."""
        return self.comes(self._here, "port", mode=mode, small=small)

    def _end(self, end: FarEnd) -> FarEnd:
        self._ends.append(end)
        return end

    # The log.

    def log(self) -> bytes:
        return (self.folder / f"{ID}.log").read_bytes()

    def index(self, word: str) -> list[dict[str, Any]]:
        """The facts of all the index's lines with this word."""
        lines = [line.split(" ", 3) for line in (self.folder / f"{ID}.idx").read_text().splitlines()]
        return [json.loads(line[3]) if len(line) > 3 else {} for line in lines if line[2] == word]

    def close(self) -> None:
        """End all that is left of it."""
        self.master.close()
        for _ in range(3):
            turn(self.loop)
        for end in self._ends:
            end.close()
        for _, parked in [*self._legs.values(), *self._clients.values()]:
            parked.close()
        self.loop.close()
        for fd in (self._directory, self._arena.fd):
            os.close(fd)


def told_of(near: socket.socket, session: Session) -> dict[str, Any]:
    """What a worker that has negotiated on this connection says of it."""
    counts = {
        "taken": tcpinfo.consumed(near),
        "given": tcpinfo.given(near),
        "replied": 0,
        "again": 0,
        "head": -1,
    }
    return {"telnet": session.snapshot(), "unsent": "", "early": "", **counts}


def negotiated() -> Session:
    """A session whose VM may be served; nothing waits to be sent."""
    session = Session()
    session.start()
    for token in tokens_of(negotiation()):
        assert not isinstance(token, bytes)
        session.receive(token)
    session.take_output()
    return session


def negotiation() -> bytes:
    """What a VM says until its console is known."""
    options = bytes.fromhex("FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8")
    return options + frame(DO_PROXY, b"SvSPC.py") + frame(VM_VC_UUID, uuid_payload(UUID))
