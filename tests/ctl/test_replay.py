"""vspcctl replay: a log in its own time, and keys that steer it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import Terminal
from tests.ctl.logs import Log

Terminals = Callable[..., Terminal]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "root" / "log")
    log.say("one\r\n", 1000)
    log.say("two\r\n", 1001)
    log.say("three\r\n", 5000)
    return log


def timed(log: Log, *words: str) -> tuple[str, float]:
    began = time.monotonic()
    done = log.ctl("replay", "web01", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, time.monotonic() - began


def test_a_log_is_played_in_its_own_time(log: Log) -> None:
    shown, lasted = timed(log)
    assert shown == "one\r\ntwo\r\nthree\r\n"
    assert lasted >= 3


def test_speed_and_idle_time_shorten_it(log: Log) -> None:
    _, quick = timed(log, "--max-idle", "0")
    _, slower = timed(log, "--max-idle", "4", "--speed", "2")
    assert slower >= 2.5
    assert quick < slower


def test_a_range_is_played(log: Log) -> None:
    assert timed(log, "--since", "@1001", "--until", "@1010", "--max-idle", "0")[0].endswith("two\r\n")
    assert log.ctl("replay", "web01", "-b", "7").returncode == 3


def test_q_ends_and_the_terminal_is_restored(log: Log, terminals: Terminals) -> None:
    terminal = terminals(*log.command("replay", "web01", "--max-idle", "60", "--speed", "0.01"))
    terminal.see(b"one\r\n")
    terminal.until(lambda: terminal.is_raw)
    terminal.type(b"q")
    assert terminal.wait() == 0
    assert terminal.is_restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_the_terminal_is_restored(log: Log, terminals: Terminals, number: int) -> None:
    terminal = terminals(*log.command("replay", "web01", "--max-idle", "60", "--speed", "0.01"))
    terminal.see(b"one\r\n")
    os.kill(terminal.process.pid, number)
    assert terminal.wait() == 128 + number
    assert terminal.is_restored


def test_ctrl_c_ends_it(log: Log, terminals: Terminals) -> None:
    terminal = terminals(*log.command("replay", "web01", "--max-idle", "60", "--speed", "0.01"))
    terminal.see(b"one\r\n")
    terminal.type(b"\x03")
    assert terminal.wait() == 130
    assert terminal.is_restored


def test_space_pauses_and_goes_on(log: Log, terminals: Terminals) -> None:
    terminal = terminals(*log.command("replay", "web01"))
    terminal.see(b"one\r\n")
    terminal.type(b" ")
    terminal.see(b"[vspcctl: paused at ")
    assert b"two" not in terminal.watch(2.5)
    terminal.type(b" ")
    terminal.see(b"[vspcctl: speed 1]")
    terminal.see(b"three\r\n")
    assert terminal.wait() == 0


def test_plus_and_minus_change_the_speed(log: Log, terminals: Terminals) -> None:
    terminal = terminals(*log.command("replay", "web01", "--max-idle", "600", "--speed", "4"))
    terminal.see(b"one\r\n")
    terminal.type(b"-")
    terminal.see(b"[vspcctl: speed 2]")
    began = time.monotonic()
    terminal.type(b"++++++++++")
    terminal.see(b"three\r\n")
    assert time.monotonic() - began < 10
    assert terminal.wait() == 0


def test_a_terminal_is_not_steered_unless_raw(log: Log, terminals: Terminals) -> None:
    log.say("\x1b]0;owned\x07\x1b[?1049h\x1b[31mred\nnext", 5001)
    terminal = terminals(*log.command("replay", "web01", "--max-idle", "0"))
    seen = terminal.see(b"next")
    assert b"owned" not in seen
    assert b"1049" not in seen
    assert b"\x1b[31mred\r\nnext" in seen
    raw = terminals(*log.command("replay", "web01", "--max-idle", "0", "--raw"))
    assert b"\x1b[?1049h" in raw.see(b"next")
    raw.see(b"\x1b[?1049l")
    assert raw.wait() == 0


def test_a_reader_that_has_gone_ends_it(log: Log) -> None:
    process = subprocess.Popen(log.command("replay", "web01", "--max-idle", "0"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=20) in (0, 128 + signal.SIGPIPE)
