"""The pager: on terminals alone, and for what is longer than the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import Terminal
from tests.ctl.logs import Log
from tests.system.tools import tool

Terminals = Callable[..., Terminal]
MARKING = "sed 's/^/paged: /'"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "root" / "log")


def lines(count: int) -> str:
    return "".join(f"line {n}\r\n" for n in range(count))


def test_a_long_log_goes_through_the_pager(log: Log, terminals: Terminals) -> None:
    log.say(lines(100))
    terminal = terminals(*log.command("log", "web01"), VSPCCTL_PAGER=MARKING, PAGER="false")
    assert terminal.wait() == 0
    assert terminal.output.count(b"paged: line") == 100


def test_a_short_log_does_not(log: Log, terminals: Terminals) -> None:
    log.say(lines(23))
    terminal = terminals(*log.command("log", "web01"), PAGER=MARKING)
    assert terminal.wait() == 0
    assert (terminal.output.count(b"line"), b"paged" in terminal.output) == (23, False)


def test_long_lines_count_as_the_rows_that_they_take(log: Log, terminals: Terminals) -> None:
    log.say(("x" * 100 + "\r\n") * 20)
    terminal = terminals(*log.command("log", "web01"), PAGER=MARKING)
    assert terminal.wait() == 0
    assert terminal.output.count(b"paged: ") == 20


@pytest.mark.parametrize(
    ("words", "more"), [(["--no-pager"], {}), (["--raw"], {}), ([], {"VSPCCTL_PAGER": "cat"})]
)
def test_it_can_be_switched_off(
    log: Log, terminals: Terminals, words: list[str], more: dict[str, str]
) -> None:
    log.say(lines(100))
    terminal = terminals(*log.command("log", "web01", *words), **{"PAGER": MARKING, **more})
    assert terminal.wait() == 0
    assert (terminal.output.count(b"line"), b"paged" in terminal.output) == (100, False)


def test_a_pipe_is_never_paged(log: Log) -> None:
    log.say(lines(100))
    assert "paged" not in log.ctl("log", "web01", PAGER=MARKING).stdout


def test_a_pager_that_is_left_early_is_no_failure(log: Log, terminals: Terminals) -> None:
    log.say(lines(200_000))
    terminal = terminals(*log.command("log", "web01"), PAGER="head -n 3")
    assert terminal.wait() == 0
    assert terminal.output.count(b"line") == 3


def test_a_pager_that_is_not_there_is_done_without(log: Log, terminals: Terminals) -> None:
    log.say(lines(100_000))
    terminal = terminals(*log.command("log", "web01"), PAGER="no-such-pager -x")
    assert terminal.wait() == 0
    assert terminal.output.count(b"line") == 100_000


def test_less_shows_colours_and_q_leaves(log: Log, terminals: Terminals) -> None:
    log.say("\x1b[31mred\x1b[0m\r\n" + lines(100))
    terminal = terminals(*log.command("log", "web01"), PAGER=tool("less"))
    assert b"\x1b[31mred\x1b[0m" in terminal.see(b"line 21")
    terminal.type(b"q")
    assert terminal.wait() == 0
