"""Another worker goes on where one has died in the middle of a turn."""

from __future__ import annotations

import pytest

from tests.workers.bench import Bench
from tests.workers.deaths import Failpoints
from vspcd.proto import telnet

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
