"""What is seen at once is searched for telnet in pieces: no byte of it may fall between two."""

from __future__ import annotations

import pytest

from tests.workers.bench import Bench
from vspcd.proto import telnet
from workers.connection import PIECE

PLACES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 2]


@pytest.mark.parametrize("at", PLACES)
def test_a_command_is_no_console_byte_wherever_it_stands(bench: Bench, at: int) -> None:
    vm, tool = bench.connect(), bench.tool()
    vm.say(b"a" * at + telnet.command(telnet.NOP) + b"b" * 10)
    bench.until(lambda: len(tool.seen()) >= at + 10)
    assert tool.seen() == b"a" * at + b"b" * 10


@pytest.mark.parametrize("at", PLACES)
def test_an_ff_is_one_byte_wherever_it_stands(bench: Bench, at: int) -> None:
    vm, tool = bench.connect(), bench.tool()
    vm.speak(b"a" * at + b"\xff" + b"b" * 10)
    bench.until(lambda: len(tool.seen()) >= at + 11)
    assert tool.seen() == b"a" * at + b"\xff" + b"b" * 10
