"""The first seconds of a VM's connection: claimed once, refused politely, never waited for too long."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.workers.bench import UUID, Bench, Vm, negotiation, tcp_pair
from tests.workers.conftest import Benches
from vspcd.proto import telnet
from vspcd.proto.control import encode
from vspcd.proto.vmware import (
    DO_PROXY,
    GET_VM_NAME,
    GET_VM_VC_UUID,
    VM_NAME,
    VM_VC_UUID,
    WILL_PROXY,
    WONT_PROXY,
    Session,
    frame,
    uuid_payload,
)
from vspcd.unix import tcpinfo
from workers import negotiation as negotiations

OPTIONS = bytes.fromhex("FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8")
Dial = Callable[..., tuple[Bench, Vm]]


@pytest.fixture
def dial(benches: Benches) -> Dial:
    """A worker that a VM has just dialled, and the VM."""

    def make(small: bool = False, **settings: Any) -> tuple[Bench, Vm]:
        near, far = tcp_pair(small)
        bench = benches(leg=near, **settings)
        vm = Vm(far)
        bench._ends.append(vm)
        return bench, vm

    return make


def claimed(bench: Bench) -> dict[str, Any]:
    bench.until(lambda: bench.told("claim") or bench.told("failed"))
    (claim,) = bench.told("claim")
    return claim


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_a_vm_is_claimed_however_its_packets_are_cut(dial: Dial, size: int) -> None:
    bench, vm = dial()
    wire = negotiation()
    for at in range(0, len(wire), size):
        vm.say(wire[at : at + size])
        bench.turn()
    claim = claimed(bench)
    assert (claim["uuid"], claim["label"], claim["name"]) == (UUID, "", None)


def test_a_label_is_part_of_the_claim(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(OPTIONS + frame(DO_PROXY, b"SvSPC.py?port=gdb") + frame(VM_VC_UUID, uuid_payload(UUID)))
    assert claimed(bench)["label"] == "gdb"


def test_a_vm_is_told_that_it_is_served_when_the_console_is_ours(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation())
    claimed(bench)
    assert vm.frames(WILL_PROXY) == 0
    bench.own()
    bench.until(lambda: vm.frames(WILL_PROXY) == 1)
    bench.until(lambda: [told["leg"] for told in bench.told("connected")] == [1])


def test_what_stands_behind_the_claim_in_one_packet_is_not_held_up(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation() + frame(VM_NAME, b"db01") + b"x")
    claimed(bench)
    bench.own()
    bench.until(lambda: bench.log() == b"x")
    bench.until(lambda: any(fact["name"] == "db01" for fact in bench.told("facts")))


def test_console_bytes_from_before_the_claim_are_the_consoles_first(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(OPTIONS + b"early|\xff\xff" + negotiation()[len(OPTIONS) :] + b"|late")
    claimed(bench)
    bench.own()
    bench.until(lambda: bench.log() == b"early|\xff|late")


def test_nothing_is_sent_twice_when_another_worker_goes_on(dial: Dial, tmp_path: Path) -> None:
    """What the claim hands over and what the claimant itself has sent make one conversation."""
    bench, vm = dial()
    vm.say(negotiation())
    claim = claimed(bench)
    bench.settle()
    session = Session.restore(claim["session"]["telnet"])
    handed_over = bytes.fromhex(claim["session"]["unsent"]) + session.take_output()
    vm.heard()
    vm.got += handed_over
    assert vm.frames(GET_VM_VC_UUID) == 1
    assert vm.frames(GET_VM_NAME) == 1
    assert vm.heard().count(telnet.negotiation(telnet.WILL, telnet.BINARY)) == 1


def test_a_handed_over_connection_is_let_go_without_an_end(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation())
    claimed(bench)
    kept = bench.worker.connection
    assert kept is not None
    duplicate = kept.leg.sock.dup()
    bench.tell("handed")
    bench.until(lambda: not bench.loop._running)
    bench.settle()
    assert not vm.ended()
    duplicate.send(b"still here")
    bench.until(lambda: vm.heard().endswith(b"still here"))
    duplicate.close()


def test_a_refused_vm_is_told_and_its_connection_ends(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation())
    claimed(bench)
    bench.tell("refuse", reason="an impostor")
    bench.until(lambda: vm.frames(WONT_PROXY) == 1)
    bench.until(vm.ended)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (OPTIONS + frame(DO_PROXY, b"Sother"), "other"),
        (OPTIONS + frame(DO_PROXY, b"Ctelnet://192.0.2.1"), "telnet://192.0.2.1"),
        (OPTIONS + frame(DO_PROXY, b"SvSPC.py") + frame(VM_VC_UUID, b"/etc/passwd"), "UUID"),
        (OPTIONS + frame(DO_PROXY, b"SvSPC.py") + frame(VM_VC_UUID, b""), "UUID"),
    ],
)
def test_a_vm_that_asks_for_the_impossible_is_refused_with_a_reason(
    dial: Dial, said: bytes, reason: str
) -> None:
    bench, vm = dial()
    vm.say(said)
    bench.until(lambda: bench.told("failed"))
    assert reason in bench.told("failed")[0]["reason"]
    bench.until(lambda: vm.frames(WONT_PROXY) == 1)
    bench.until(vm.ended)
    assert not bench.told("claim")


def test_a_peer_that_breaks_the_protocol_is_closed_with_a_reason(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(OPTIONS + b"\xff\xfa\xe8\x00\xff\x01")
    bench.until(lambda: bench.told("failed"))
    assert "protocol error" in bench.told("failed")[0]["reason"]
    bench.until(vm.ended)


def test_a_peer_that_goes_is_reported_once(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(OPTIONS)
    bench.settle()
    vm.close()
    bench.until(lambda: bench.told("failed"))
    bench.until(lambda: not bench.loop._running)
    assert len(bench.told("failed")) == 1


def test_a_peer_that_goes_after_its_claim_is_reported_by_whoever_has_the_console(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation())
    claimed(bench)
    vm.reset()
    bench.own()
    bench.until(lambda: bench.told("failed") or bench.told("disconnected"))


def test_a_silent_peer_is_told_what_this_port_is_for(dial: Dial) -> None:
    bench, vm = dial(handshake_timeout=0.2)
    bench.until(lambda: bench.told("failed"))
    bench.until(vm.ended)
    assert b"this port is for" in vm.heard()


def test_a_peer_that_talks_but_is_no_vm_is_told_too(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiations, "PLAIN_WORDS_AFTER", 0.05)
    bench, vm = dial()
    vm.say(b"GET / HTTP/1.0\r\n\r\n")
    bench.until(vm.ended)
    assert b"this port is for" in vm.heard()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "extension"),
        (OPTIONS, "DO-PROXY"),
        (OPTIONS + frame(DO_PROXY, b"SvSPC.py"), "UUID"),
    ],
)
def test_a_vm_that_does_not_come_to_the_point_is_closed_with_a_reason(
    dial: Dial, said: bytes, reason: str
) -> None:
    bench, vm = dial(handshake_timeout=0.2)
    vm.sock.send(said)
    bench.until(lambda: bench.told("failed"))
    assert reason in bench.told("failed")[0]["reason"]
    bench.until(vm.ended)


def test_a_vm_with_a_claim_has_no_deadline_any_more(dial: Dial) -> None:
    bench, vm = dial(handshake_timeout=0.1)
    vm.say(negotiation())
    claimed(bench)
    done: list[int] = []
    bench.loop.call_later(0.3, lambda: done.append(1))
    bench.until(lambda: done)
    assert not bench.told("failed")


def test_much_console_data_before_the_claim_ends_the_connection(dial: Dial) -> None:
    bench, vm = dial()
    bench.pour(vm, OPTIONS + b"x" * (2 * negotiations.EARLY_LIMIT), lambda: bench.told("failed"))
    bench.until(vm.ended)


def test_a_vm_that_asks_and_never_reads_is_closed_before_its_answers_pile_up(dial: Dial) -> None:
    bench, vm = dial(small=True)
    ask, left = frame(99) * 10000, memoryview(OPTIONS)
    end = time.monotonic() + 9
    while not bench.told("failed"):
        assert time.monotonic() < end
        left = left or memoryview(ask)
        left = left[vm.offer(left) :]
        bench.loop.call_later(0, lambda: None)
        bench.loop.turn()
    assert "does not read" in bench.told("failed")[0]["reason"]


# For whoever may have to go on


def unread(bench: Bench) -> int:
    """What the kernel still has of the VM's."""
    connection = bench.worker.connection
    assert connection is not None
    return tcpinfo.unread(connection.leg.sock)


def test_the_kernel_keeps_a_negotiation_until_the_console_is_ours_and_nobody_is_told(dial: Dial) -> None:
    bench, vm = dial()
    vm.say(negotiation())
    claim = claimed(bench)
    assert unread(bench) == len(negotiation()) == claim["session"]["taken"]
    assert not bench.told("session")
    bench.own()
    bench.until(lambda: unread(bench) == 0)
    vm.speak(b"first")
    bench.until(lambda: bench.log() == b"first")


def test_a_vm_that_says_more_than_the_kernel_keeps_is_told_of(dial: Dial) -> None:
    bench, vm = dial()
    early = b"e" * negotiations.HELD
    vm.say(OPTIONS + early)
    bench.until(lambda: bench.told("session") and unread(bench) == 0)
    told = bench.told("session")[-1]["session"]
    assert bytes.fromhex(told["early"]) == early
    assert told["taken"] == len(OPTIONS + early)
    assert Session.restore(told["telnet"]).extension


def test_the_text_of_somebody_who_is_no_vm_is_nobodys_business(dial: Dial) -> None:
    bench, vm = dial()
    bench.pour(vm, b"x" * 100000, lambda: unread(bench) == 0)
    assert not bench.told("session")


@pytest.mark.parametrize("said", [b"", OPTIONS, OPTIONS + b"\xff\xfa\xe8half"])
@pytest.mark.parametrize("reset", [False, True])
def test_the_end_of_a_connection_is_seen_behind_what_the_kernel_keeps(
    dial: Dial, said: bytes, reset: bool
) -> None:
    bench, vm = dial()
    vm.say(said)
    bench.settle()
    vm.heard()
    (vm.reset if reset else vm.finish)()
    bench.until(lambda: bench.told("failed"))
    bench.until(lambda: not bench.loop._running)


def test_the_longest_claim_fits_into_a_packet(dial: Dial) -> None:
    """As many early bytes and as long a name as allowed, each character six bytes in JSON."""
    bench, vm = dial()
    vm.say(
        OPTIONS
        + frame(VM_NAME, b"\x01" * 1000)
        + b"e" * negotiations.EARLY_LIMIT
        + negotiation()[len(OPTIONS) :]
    )
    claim = claimed(bench)
    assert len(bytes.fromhex(claim["session"]["early"])) == negotiations.EARLY_LIMIT
    leg = {"type": "leg", "leg": 1 << 40, "peer": "x" * 60, "session": claim["session"], "secured": True}
    unsent = "ff" * negotiations.UNSENT_LIMIT
    encode({**leg, "session": {**claim["session"], "unsent": unsent}})
