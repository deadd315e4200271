"""A host that sends little but protocol: its worker's effort grows with what it sends, and not faster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.bench import Bench
from vspcd.proto import telnet
from workers.connection import MESSAGES_PER_TURN

NOP = telnet.command(telnet.NOP)


class Counter:
    """Counts what is cut up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        self._cut_up = telnet.tokens
        monkeypatch.setattr(telnet, "tokens", self._count)

    def _count(self, *data: Any, **limits: Any) -> list[tuple[telnet.Token, int]]:
        found = self._cut_up(*data, **limits)
        self.tokens += len(found)
        return found


@pytest.mark.parametrize("between", [b"", b"x", b"x\xff\xff"])
def test_a_flood_of_messages_is_cut_up_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    vm = bench.connect()
    bench.settle()
    counter = Counter(monkeypatch)
    count = 100 * MESSAGES_PER_TURN
    reading = bench.worker.connection
    assert reading is not None
    end = reading.leg.taken + count * len(NOP + between)
    bench.pour(vm, (NOP + between) * count, lambda: reading.leg.taken == end, seconds=20)
    said = between.replace(b"\xff\xff", b"\xff")
    assert bench.log() == said * count
    assert counter.tokens < 3 * (count + count * bool(between))


def test_the_last_words_behind_a_flood_are_said_in_order(bench: Bench) -> None:
    vm, tool = bench.connect(), bench.tool()
    bench.settle()
    bench.pour(vm, NOP * 1000 + b"first," + NOP * 1000 + b"last", lambda: bench.log().endswith(b"last"))
    vm.finish()
    bench.until(lambda: bench.told("disconnected"))
    bench.settle()
    assert bench.log() == tool.seen() == b"first,last"
