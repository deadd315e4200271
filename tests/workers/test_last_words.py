"""A connection that is over: what its host said before, and the kernel has acknowledged, reaches the log."""

from __future__ import annotations

import pytest

from tests.workers.bench import Bench, Vm
from tests.workers.moving import Moving, identity
from tests.workers.test_deaths import QUESTION
from vspcd.core import vmotion
from vspcd.proto import telnet
from vspcd.proto.vmware import DO_PROXY, VMOTION_ABORT, frame
from workers.connection import MESSAGES_PER_TURN

LAST = b"LAST WORDS\n"


def goes(vm: Vm, last: bytes = LAST) -> None:
    """It says something, and is gone before anybody has looked."""
    vm.say(last)
    vm.reset()


@pytest.fixture
def moving(bench: Bench) -> Moving:
    return Moving(bench)


def test_a_client_that_types_first_does_not_cost_the_last_words(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    tool.type(b"x")
    goes(vm)
    bench.until(lambda: bench.told("disconnected"))
    bench.settle()
    assert bench.log() == tool.seen() == LAST


def test_last_words_between_many_questions(bench: Bench) -> None:
    """Nobody reads the answers, and there are more than may wait."""
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    tool.type(b"x")
    goes(vm, (QUESTION + b"x") * MESSAGES_PER_TURN * 20 + LAST)
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == b"x" * MESSAGES_PER_TURN * 20 + LAST


def test_a_fault_is_still_the_end_of_what_is_heard(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    tool.type(b"x")
    goes(vm, b"before" + telnet.subnegotiation(telnet.VMWARE, b"") + b"\xff\xfa\x01\xff\x01" + LAST)
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == b"before"


def test_nothing_is_heard_twice_when_typing_fails_within_a_turn(moving: Moving) -> None:
    """The end of a move lets typing go on while what the source said is still being dealt with."""
    bench = moving.bench
    moving.goahead()
    moving.raw.say(b"held")
    bench.settle()
    goes(moving.source, b"before" + frame(VMOTION_ABORT) + LAST)
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == b"before" + LAST
    assert not bench.worker.moves.machine.under_way


def test_a_vm_that_left_while_it_was_let_in(bench: Bench) -> None:
    _, vm = bench.offer(unsent=frame(DO_PROXY).hex())
    goes(vm)
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == LAST


def test_a_source_that_leaves_during_the_move(moving: Moving) -> None:
    """The answer to the move's end is the first thing that fails."""
    target = moving.joined()
    goes(moving.source)
    source = moving.bench.worker.connection
    assert source is not None
    moving.bench.worker.ended(source, "it was reset")
    moving.complete(target)
    moving.ended("moved")
    assert moving.bench.log() == LAST


def test_a_target_that_is_reset_when_the_vm_runs_there(moving: Moving) -> None:
    bench, target = moving.bench, moving.joined()
    moving.complete(target)
    bench.until(lambda: bench.worker.moves.machine.state == vmotion.FLUSHING)
    moving.source.speak(b"on the source,")
    goes(target, b"on the target\n")
    bench.until(lambda: bench.told("disconnected"))
    assert bench.log() == b"on the source,on the target\n"


@pytest.mark.parametrize("last", [LAST, b"", identity() + LAST])
def test_a_target_that_is_gone_when_it_is_offered(moving: Moving, last: bytes) -> None:
    bench = moving.bench
    pair = moving.goahead()
    _, target = moving.offer_target(pair)
    if last:
        target.say(last)
    target.reset()
    moving.ended("the target's connection was lost")
    assert bench.settle() < 50
    moving.raw.say(b"typed")
    bench.until(lambda: moving.source.typed() == b"typed")
    assert bench.worker.moves.target is None
    assert bench.log() == b""
