"""A master that does not read for a while: nothing is consumed that it would have to know of, whoever dies."""

from __future__ import annotations

import time

import pytest

from tests.workers.bench import Bench, Vm
from tests.workers.moving import Moving, payloads
from vspcd.core import vmotion
from vspcd.proto import telnet
from vspcd.proto.vmware import VMOTION_GOAHEAD
from vspcd.unix.loop import READ
from workers.vmotion import LOOK_EVERY

MOST = 3000


def question(number: int) -> bytes:
    return telnet.negotiation(telnet.DO, 40 + number % 200)


def answer(number: int) -> bytes:
    return telnet.negotiation(telnet.WONT, 40 + number % 200)


def deafen(bench: Bench) -> None:
    """The master reads no more."""
    bench.loop.forget(bench.master.fileno())


def listen(bench: Bench) -> None:
    bench.loop.watch(bench.master.fileno(), READ, bench.master._ready)


def waits(bench: Bench) -> bool:
    return bench.worker.connection is not None and bench.worker.connection._waiting


def fill(bench: Bench, vm: Vm) -> int:
    """Ask until there is no answer: how many questions that was."""
    deafen(bench)
    for number in range(MOST):
        vm.say(question(number))
        bench.settle()
        if waits(bench):
            return number + 1
    raise AssertionError("the master is never deaf")


def answers(count: int) -> bytes:
    return b"".join(map(answer, range(count)))


@pytest.fixture
def vm(bench: Bench) -> Vm:
    made = bench.connect()
    bench.settle()
    made.heard()
    made.got.clear()
    return made


def test_questions_wait_for_the_master_and_nothing_spins(bench: Bench, vm: Vm) -> None:
    asked = fill(bench, vm)
    assert bench.worker.shell._channel.backlog == 0
    for number in range(asked, asked + 20):
        vm.say(question(number))
    bench.settle()
    assert vm.heard() == answers(asked - 1)
    listen(bench)
    bench.until(lambda: vm.heard() == answers(asked + 20))


def test_console_bytes_before_a_question_and_typing_do_not_wait(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    vm.heard()
    vm.got.clear()
    asked = fill(bench, vm)
    tool.type(b"typed")
    bench.until(lambda: vm.heard().endswith(b"typed"))
    assert vm.heard() == answers(asked - 1) + b"typed"


@pytest.mark.parametrize("more", [0, 1, 30])
def test_a_worker_that_dies_then_leaves_all_to_its_heir(bench: Bench, vm: Vm, more: int) -> None:
    asked = fill(bench, vm)
    for number in range(asked, asked + more):
        vm.say(b"x" + question(number))
        bench.settle()
    bench.succeed()
    bench.until(lambda: vm.heard() == answers(asked + more))
    vm.say(question(asked + more))
    bench.until(lambda: vm.heard() == answers(asked + more + 1))
    assert more == 0 or bench.log() == b"x" * more


@pytest.mark.parametrize("heir", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_an_end_meanwhile_does_not_spin_and_what_was_said_before_is_logged(
    bench: Bench, vm: Vm, reset: bool, heir: bool
) -> None:
    asked = fill(bench, vm)
    vm.say(question(asked) + b"last words")
    bench.settle()
    vm.heard()
    (vm.reset if reset else vm.close)()
    bench.settle()
    assert not bench.told("disconnected")
    if heir:
        bench.succeed()
    else:
        listen(bench)
    bench.until(lambda: bench.told("disconnected"))
    if not reset:
        assert bench.log() == b"last words"


def test_when_the_master_dies_the_questions_are_answered(bench: Bench, vm: Vm) -> None:
    asked = fill(bench, vm)
    bench.worker.shell._orphan.run = "/nonexistent"
    while not bench.worker.shell._channel.backlog:
        bench.worker.shell.tell("pong")
    bench.master.close()
    bench.until(lambda: vm.heard() == answers(asked))


def test_a_new_connection_takes_over_while_the_old_one_waits(bench: Bench, vm: Vm) -> None:
    asked = fill(bench, vm)
    vm.say(b"last|")
    number, new = bench.offer()
    bench.until(vm.ended)
    listen(bench)
    bench.until(lambda: any(message["leg"] == number for message in bench.told("connected")))
    new.say(b"first" + question(asked))
    bench.until(lambda: new.heard().endswith(answer(asked)))
    assert bench.log() == b"last|first"


@pytest.mark.parametrize("dies", [False, True])
def test_the_secret_of_a_move_is_told_before_it_is_out(bench: Bench, dies: bool) -> None:
    moving = Moving(bench)
    deafen(bench)
    shell = bench.worker.shell
    while shell.is_heard():
        shell.tell("pong")
    while not shell.is_heard():  # there is room for the move, and then for nothing more
        bench._heard(*next(iter(bench.master.packets())))
    moving.begin()
    bench.until(lambda: bench.worker.moves.machine.state == vmotion.DELIVERING)
    assert not shell.is_heard()
    before = time.monotonic()
    bench.until(lambda: time.monotonic() > before + 5 * LOOK_EVERY)
    assert not payloads(moving.source, VMOTION_GOAHEAD)
    if dies:
        bench.succeed()
    else:
        listen(bench)
    bench.until(lambda: payloads(moving.source, VMOTION_GOAHEAD))
    (pair,) = payloads(moving.source, VMOTION_GOAHEAD)
    moving.moved(moving.target(pair))


@pytest.mark.parametrize("word", [{"message": "retire"}, {"message": "quit", "reason": "the end"}], ids=str)
def test_whoever_leaves_lets_the_master_have_all_that_waits(
    bench: Bench, vm: Vm, word: dict[str, str]
) -> None:
    fill(bench, vm)
    bench.worker.shell.loop._running = True
    for count in range(MOST):
        if bench.worker.shell._channel.backlog > 3:
            break
        bench.worker.shell.tell("facts", name=str(count), bios_uuid=None, location_uuid=None, line={})
    bench.tell(word["message"], **{key: value for key, value in word.items() if key != "message"})
    bench.settle()
    assert bench.loop._running
    listen(bench)
    bench.until(lambda: not bench.loop._running)
    assert bench.worker.shell._channel.backlog == 0
    bench.settle()
    assert [facts["name"] for facts in bench.told("facts")][-1:] == [str(count - 1)]
