"""Another worker goes on where one has died in the middle of a turn."""

from __future__ import annotations

from typing import Optional

import pytest

from tests.workers.bench import Bench
from tests.workers.deaths import Died, Failpoints
from tests.workers.moving import Moving, payloads
from vspcd.proto import telnet
from vspcd.proto.vmware import VMOTION_GOAHEAD

TURN = [
    "leg.peeked",
    "console.logged",
    "turn.parsed",
    "turn.replied",
    "turn.told",
    "leg.consume",
    "leg.consumed",
]
REFUSED = 99  # an option that nobody has
QUESTION = telnet.negotiation(telnet.DO, REFUSED)
ANSWER = telnet.negotiation(telnet.WONT, REFUSED)


@pytest.mark.parametrize("point", TURN)
def test_a_question_is_answered_once_wherever_a_worker_dies(
    bench: Bench, failpoints: Failpoints, point: str
) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    before = len(vm.heard())
    vm.say(b"before" + QUESTION + b"behind")
    failpoints.dies(bench.turn, point)
    bench.succeed()
    bench.settle()
    assert vm.heard()[before:] == ANSWER
    assert tool.seen() == bench.log() == b"beforebehind"
    vm.say(telnet.negotiation(telnet.DO, REFUSED + 1))
    bench.until(lambda: vm.heard()[before:] == ANSWER + telnet.negotiation(telnet.WONT, REFUSED + 1))


MOVE = [
    *("leg.peeked", "turn.parsed", "turn.replied", "turn.told", "leg.consume", "leg.forget", "leg.consumed"),
    *("move.action", "move.acted", "move.told", "leg.send", "leg.sent", "leg.noted"),
]


@pytest.mark.parametrize("again", [None, "resume.begin", "leg.sent"])
@pytest.mark.parametrize("point", MOVE)
def test_a_move_goes_on_wherever_the_worker_of_its_source_dies(
    bench: Bench, failpoints: Failpoints, point: str, again: Optional[str]
) -> None:
    """Whatever its host was told first is what the target may show."""
    moving = Moving(bench)
    moving.begin()
    failpoints.dies(bench.turn, point)
    if again is not None:
        failpoints.arm(again)
    try:
        bench.succeed()
        bench.settle()
    except Died:
        bench.succeed()
    failpoints.disarm()
    bench.until(lambda: payloads(moving.source, VMOTION_GOAHEAD))
    bench.settle()
    (pair,) = payloads(moving.source, VMOTION_GOAHEAD)
    moving.tool.type(b"held")
    target = moving.target(pair)
    moving.moved(target)
    bench.until(lambda: target.typed() == b"held")


@pytest.mark.parametrize(
    "deaths", [["leg.noted"], ["leg.noted", "leg.noted"], ["resume.begin", "move.action"], []]
)
def test_answers_to_a_target_are_not_mixed_up_with_typing_however_many_workers_die(
    bench: Bench, failpoints: Failpoints, deaths: list[str]
) -> None:
    """The VM runs on the target, and the last bytes of its source are awaited."""
    moving = Moving(bench)
    target = moving.joined()
    bench.settle()
    moving.tool.type(b"typed during the move")
    moving.complete(target)
    bench.until(lambda: target.typed() == b"typed during the move")
    for point in deaths:
        failpoints.arm(point)
        with pytest.raises(Died):
            bench.succeed()
    bench.succeed()
    moving.source.finish()
    moving.ended("moved")
    before = len(target.heard())
    target.say(QUESTION)
    bench.until(lambda: target.heard()[before:] == ANSWER, 3)
    moving.raw.say(b", and behind it")
    bench.until(lambda: target.typed() == b"typed during the move, and behind it")
    assert moving.source.typed() == b""
