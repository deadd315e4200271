"""A VM that moves between hosts, and the traffic on its console meanwhile.

Written from the protocol's description alone. Owns nothing beyond the harness's VMs and clients; one loop types, speaks
and listens for all of them, so that nothing stands still while a move goes on.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Optional

from tests.system.clients import SocketClient, TelnetClient, UnixClient
from tests.system.daemon import Daemon, Json
from tests.system.payload import all_bytes
from tests.system.vm import (
    ALL_KNOWN,
    GET_NAME,
    GET_VC_UUID,
    KNOWN_1,
    NAME,
    READ,
    UNKNOWN_2,
    VC_UUID,
    VMWARE,
    FakeVm,
    Sub,
    take,
    uuid_text,
    vmware,
)
from tests.system.wait import PATIENCE, Deadline

VMOTION_BEGIN, VMOTION_GOAHEAD, VMOTION_NOTNOW = 40, 41, 43
VMOTION_PEER, VMOTION_PEER_OK, VMOTION_COMPLETE, VMOTION_ABORT = 44, 45, 46, 48

HERE, THERE, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SEQUENCE = b"\x00\x00\x00\x2a"
AWKWARD = b"\xff\xf0\xff\xff"

TURN = 0.004
TYPED_AT_ONCE = 97
SAID_AT_ONCE = 501
NOTICE = re.compile(rb"\r\n\[vspcd: [^\r\n]*\]\r\n")


class MovingVm(FakeVm):
    """``late`` is the console data that came after GOAHEAD, or on a target before COMPLETE."""

    def __init__(
        self,
        proxy: tuple[str, int],
        *,
        name: str = "web01",
        uuid: Optional[str] = None,
        uri: str = "vSPC.py",
        source: str = HERE,
    ) -> None:
        super().__init__(proxy, name=name, uuid=uuid, uri=uri, source=source)
        self.late = bytearray()
        self.runs_here = True
        self.deaf = False  # its host does not read

    # What comes in, in its order

    def receive(self, deadline: Deadline) -> None:
        self.socket.settimeout(deadline.left())
        try:
            chunk = self.socket.recv(READ)
        except ConnectionResetError:
            chunk = b""
        self.closed = not chunk
        self._buffer += chunk
        while (token := take(self._buffer)) is not None:
            if isinstance(token, bytes):
                (self.data if self.runs_here else self.late).extend(token)
                continue
            self.heard.append(token)
            if isinstance(token, Sub) and token.option == VMWARE and token.payload[0] == VMOTION_GOAHEAD:
                self.runs_here = False

    def said(self, code: int) -> list[bytes]:
        """The payloads that the concentrator has said with this code."""
        subs = [token for token in self.heard if isinstance(token, Sub) and token.option == VMWARE]
        return [sub.payload[1:] for sub in subs if sub.payload[0] == code]

    # As a source

    def begin(self, sequence: bytes = SEQUENCE) -> None:
        self.send_raw(vmware(VMOTION_BEGIN, sequence))

    def pair(self, sequence: bytes = SEQUENCE) -> Optional[bytes]:
        """The newest pair with this sequence."""
        found = [payload for payload in self.said(VMOTION_GOAHEAD) if payload.startswith(sequence)]
        return found[-1] if found else None

    def abort(self, payload: bytes = b"") -> None:
        self.runs_here = True
        self.send_raw(vmware(VMOTION_ABORT, payload))

    def leave(self) -> None:
        """Close so that all that was sent arrives."""
        self.socket.shutdown(socket.SHUT_WR)

    # As a target

    def show(self, pair: bytes, identity_first: bool = False) -> MovingVm:
        """Dialled, negotiated, and the pair shown; what was asked is answered."""
        self.runs_here = False
        for step in self.steps()[:4]:
            self.take_step(step)
        who = vmware(VC_UUID, uuid_text(self.uuid)) + vmware(NAME, self.name.encode())
        peer = vmware(VMOTION_PEER, pair)
        self.send_raw(vmware(KNOWN_1, ALL_KNOWN) + (who if identity_first else b"") + peer)
        self.until(lambda: {GET_VC_UUID, GET_NAME} <= set(self.vmware_codes()), "is asked who it is")
        if not identity_first:
            self.send_raw(who)
        return self

    def admitted(self, sequence: bytes = SEQUENCE) -> bool:
        return sequence in self.said(VMOTION_PEER_OK)

    def is_unknown(self) -> bool:
        """Whether the pair was answered as an unknown command, which is the only way to say no."""
        return bytes([VMOTION_PEER]) in self.said(UNKNOWN_2)

    def complete(self, sequence: bytes = SEQUENCE) -> None:
        self.runs_here = True
        self.send_raw(vmware(VMOTION_COMPLETE, sequence))


class Scene:
    """One console under traffic. ``typed`` and ``sent`` went in at its two ends; ``guest`` is the VM that speaks."""

    def __init__(
        self,
        daemon: Daemon,
        stack: ExitStack,
        *,
        name: str = "web01",
        uri: str = "vSPC.py",
        uuid: Optional[str] = None,
        seed: int = 1,
    ) -> None:
        self.daemon = daemon
        self._stack = stack
        self._identity = {"name": name, "uri": uri}
        self._payload = all_bytes(seed)
        self.vms: list[MovingVm] = []
        self.typed = bytearray()
        self.sent = bytearray()
        self.quiet = self.mute = False
        first = MovingVm(daemon.proxy, uuid=uuid, **self._identity)
        self._identity["uuid"] = first.uuid
        self.guest: Optional[MovingVm] = self._add(first)
        first.handshake()
        self.console = first.console
        daemon.wait_console(self.console, lambda c: bool(c["socket"] and c["name"]), "is named and open")
        self.typist = self._attach(UnixClient(daemon.socket_path(self.console)))
        telnet = TelnetClient(daemon.port(self.console))
        self.watcher = self._attach(telnet)
        telnet.negotiated()
        daemon.wait_clients(self.console, 2)

    def _add(self, vm: MovingVm) -> MovingVm:
        self._stack.enter_context(vm)
        self.vms.append(vm)
        return vm

    def _attach(self, client: SocketClient) -> SocketClient:
        self._stack.enter_context(client)
        return client

    def dial(self, source: str = THERE, name: Optional[str] = None, uuid: Optional[str] = None) -> MovingVm:
        """One more connection of this VM, not negotiated."""
        who = {**self._identity, "name": name or self._identity["name"]}
        return self._add(MovingVm(self.daemon.proxy, source=source, **{**who, "uuid": uuid or who["uuid"]}))

    # The traffic

    def turn(self) -> None:
        """Type a little, say a little, hear what there is."""
        if not self.quiet:
            self._type(TYPED_AT_ONCE)
        if not self.mute and self.guest is not None:
            self.say(SAID_AT_ONCE)
        ends = {vm.socket: vm for vm in self.vms if not (vm.closed or vm.deaf) and vm.socket.fileno() >= 0}
        clients = {c.socket: c for c in (self.typist, self.watcher) if not c.closed}
        for ready in select.select([*ends, *clients], [], [], TURN)[0]:
            if ready in ends:
                ends[ready].receive(Deadline("a VM reads what is there"))
            else:
                clients[ready].fill(Deadline("a client reads what is there"))

    def _type(self, count: int) -> int:
        """Type as much of this as is taken at once: how much was."""
        piece = self._next(self.typed, count)
        self.typist.socket.setblocking(False)
        try:
            taken = self.typist.socket.send(piece)
        except BlockingIOError:
            return 0
        self.typed += piece[:taken]
        return taken

    def say(self, count: int, vm: Optional[MovingVm] = None) -> None:
        """The guest says so much, or the VM at another connection."""
        speaker = vm or self.guest
        assert speaker is not None
        piece = self._next(self.sent, count)
        self.sent += piece
        speaker.send(piece)

    def _next(self, already: bytearray, count: int) -> bytes:
        at = len(already) % len(self._payload)
        return self._payload[at : at + count]

    def fill(self) -> int:
        """Type until nothing is taken any more: how much was."""
        before, still = len(self.typed), 0
        while still < 20:
            still = 0 if self._type(65536) else still + 1
            self.mute_turn()
        return len(self.typed) - before

    def mute_turn(self) -> None:
        quiet, mute = self.quiet, self.mute
        self.quiet = self.mute = True
        self.turn()
        self.quiet, self.mute = quiet, mute

    def until(self, test: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        run([self], test, what, seconds)

    def turns(self, count: int = 25) -> None:
        """A while of traffic."""
        for _ in range(count):
            self.turn()

    # A move, step by step

    def goahead(self, sequence: bytes = SEQUENCE) -> bytes:
        """BEGIN at the guest's host, and its pair."""
        source = self._source
        before = len(source.said(VMOTION_GOAHEAD))
        source.begin(sequence)
        self.until(lambda: len(source.said(VMOTION_GOAHEAD)) > before, "GOAHEAD")
        pair = source.pair(sequence)
        assert pair is not None
        return pair

    @property
    def _source(self) -> MovingVm:
        assert self.guest is not None
        return self.guest

    def target(
        self, pair: bytes, to: str = THERE, sequence: bytes = SEQUENCE, identity_first: bool = False
    ) -> MovingVm:
        """A target that is let in."""
        target = self.dial(to).show(pair, identity_first)
        self.until(lambda: target.admitted(sequence), "PEER-OK")
        return target

    def complete(self, target: MovingVm, sequence: bytes = SEQUENCE) -> None:
        """The guest runs on the target from now on; the source says a last word and leaves."""
        source = self._source
        self.say(SAID_AT_ONCE)
        assert target.late == target.data == b""
        target.complete(sequence)
        source.leave()
        self.guest = target

    def move(self, to: str = THERE, sequence: bytes = SEQUENCE, identity_first: bool = False) -> MovingVm:
        """All of it, with traffic in between."""
        count = len(self.moves())
        pair = self.goahead(sequence)
        self.turns(5)
        target = self.target(pair, to, sequence, identity_first)
        self.turns(5)
        self.complete(target, sequence)
        self.until(lambda: self.recorded(count + 1), "the move is recorded")
        return target

    # How it went

    def moves(self) -> list[Json]:
        """The records in the status."""
        return list(self.daemon.console(self.console)["moves"])

    def recorded(self, count: int = 1, outcome: str = "") -> bool:
        moves = self.moves()
        return len(moves) >= min(count, 10) and outcome in moves[-1]["outcome"]

    def notices(self) -> list[bytes]:
        """What the person on the telnet port was told."""
        return NOTICE.findall(self.watcher.seen)

    def watched(self) -> bytes:
        """The console as the person on the telnet port saw it."""
        return NOTICE.sub(b"", bytes(self.watcher.seen))

    def heard(self) -> bytes:
        """All typing that arrived, VM after VM."""
        return b"".join(bytes(vm.data) for vm in self.vms)

    def check(self) -> None:
        """Nothing is lost, doubled or out of order: in the log, at the clients and at the VM."""
        self.turns()
        self.quiet = self.mute = True
        run(
            [self],
            lambda: (
                len(self.heard()) >= len(self.typed)
                and min(len(self.typist.seen), len(self.watched())) >= len(self.sent)
            ),
            "everything has arrived",
        )
        assert b"".join(bytes(vm.late) for vm in self.vms) == b""
        assert same(self.heard(), bytes(self.typed))
        assert same(bytes(self.typist.seen), bytes(self.sent))
        assert same(self.watched(), bytes(self.sent))
        assert same(self.daemon.log_file(self.console).read_bytes(), bytes(self.sent))
        self.quiet = self.mute = False


def run(scenes: Sequence[Scene], test: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Keep the traffic of all scenes going until the test is true."""
    deadline = Deadline(what, seconds)
    while not test():
        deadline.left()
        for scene in scenes:
            scene.turn()


def same(found: bytes, expected: bytes) -> bool:
    """Whether they are equal. Fails with the place where they part: pytest's own comparison takes minutes."""
    if found == expected:
        return True
    at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
    raise AssertionError(
        f"{len(found)} bytes instead of {len(expected)}, which part at {at}: "
        f"{found[at : at + 40]!r} instead of {expected[at : at + 40]!r}"
    )
