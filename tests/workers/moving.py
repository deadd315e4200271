"""The two ends of a vMotion on a worker's bench: the source that has the console, and targets.

Owns nothing that the bench does not own.
"""

from __future__ import annotations

from typing import Optional

from tests.proto.streams import tokens_of
from tests.workers.bench import HOST, OTHER_HOST, UUID, Bench, Tool, Vm, tcp_pair, told_of
from vspcd.proto import telnet
from vspcd.proto.vmware import (
    VM_NAME,
    VM_VC_UUID,
    VMOTION_ABORT,
    VMOTION_BEGIN,
    VMOTION_COMPLETE,
    VMOTION_GOAHEAD,
    VMOTION_NOTNOW,
    VMOTION_PEER,
    VMOTION_PEER_OK,
    Session,
    frame,
    uuid_payload,
)

SEQUENCE = b"\x01\xff\xf0\x00"
SECRET_AT_LEAST = 8


def payloads(vm: Vm, code: int) -> list[bytes]:
    """What it was sent with a code of the extension, without the code."""
    subs = [token for token in tokens_of(vm.heard()) if isinstance(token, telnet.Subnegotiation)]
    return [sub.payload[1:] for sub in subs if sub.payload[:1] == bytes((code,))]


class Moving:
    """A console with its VM, a client, and a move under way."""

    def __init__(self, bench: Bench, small: bool = False) -> None:
        self.bench = bench
        self.source = bench.connect(HOST, small)
        self.tool: Tool = bench.tool()
        self.raw = bench.raw()
        bench.settle()

    def begin(self, sequence: bytes = SEQUENCE) -> None:
        self.source.say(frame(VMOTION_BEGIN, sequence))

    def goahead(self, sequence: bytes = SEQUENCE) -> bytes:
        """Begin and wait for it: the pair."""
        before = len(payloads(self.source, VMOTION_GOAHEAD))
        self.begin(sequence)
        self.bench.until(lambda: len(payloads(self.source, VMOTION_GOAHEAD)) > before)
        pair = payloads(self.source, VMOTION_GOAHEAD)[-1]
        assert pair.startswith(sequence)
        return pair

    def abort(self, payload: bytes = b"") -> None:
        self.source.say(frame(VMOTION_ABORT, payload))

    def offer_target(
        self, pair: bytes, uuid: Optional[str] = None, name: Optional[str] = None, **saved: str
    ) -> tuple[int, Vm]:
        """A target's connection, handed over as the master does; its number and far end."""
        near, far = tcp_pair()
        session = {**told_of(near, target_session(pair, uuid, name)), **saved}
        return self.bench.give("target", near, far, OTHER_HOST, session, pair=pair.hex())

    def target(self, pair: bytes, uuid: Optional[str] = None, name: Optional[str] = None, **saved: str) -> Vm:
        """A target that is let in."""
        _, vm = self.offer_target(pair, uuid, name, **saved)
        self.bench.until(lambda: payloads(vm, VMOTION_PEER_OK))
        return vm

    def joined(self) -> Vm:
        """GOAHEAD is out, and the target is there."""
        return self.target(self.goahead())

    def complete(self, target: Vm, sequence: bytes = SEQUENCE) -> None:
        target.say(frame(VMOTION_COMPLETE, sequence))

    def moved(self, target: Vm) -> None:
        """The VM runs on the target, and its source has left."""
        self.complete(target)
        self.source.finish()
        self.ended("moved")

    def ended(self, outcome: str, count: int = 1) -> dict[str, object]:
        """The record of the move, once it is over."""
        self.bench.until(lambda: len(self.bench.told("moved")) >= count)
        record: dict[str, object] = self.bench.told("moved")[-1]["record"]
        assert outcome in str(record["outcome"]), record
        return record

    def notnow(self) -> list[bytes]:
        return payloads(self.source, VMOTION_NOTNOW)

    def typed_at_rest(self, vm: Vm) -> bytes:
        """What a VM was given once nothing more happens: for what must not come."""
        self.bench.settle()
        return vm.typed()


def target_session(pair: bytes, uuid: Optional[str], name: Optional[str]) -> Session:
    """A session that has got as far as VMOTION-PEER; nothing waits to be sent."""
    session = Session()
    session.start()
    told = frame(VM_VC_UUID, uuid_payload(uuid)) if uuid else b""
    told += frame(VM_NAME, name.encode()) if name else b""
    options = bytes.fromhex("FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8")
    for token in tokens_of(options + told + frame(VMOTION_PEER, pair)):
        assert not isinstance(token, bytes)
        session.receive(token)
    session.take_output()
    return session


def identity(uuid: str = UUID, name: str = "web01") -> bytes:
    """What a target says of itself when asked."""
    return frame(VM_VC_UUID, uuid_payload(uuid)) + frame(VM_NAME, name.encode())
