"""vspcctl log --export asciicast: recordings that the real player plays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.ctl.conftest import Terminal
from tests.ctl.logs import Log
from tests.system.tools import tool

Terminals = Callable[..., Terminal]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "root" / "log")
    log.happen("connected", 1000, peer="10.0.0.1:5000")
    log.say("one\r\n", 1000)
    log.say("\x1b[31mtwo\x1b[0m grün\r\n", 1010)
    log.rotate(1011)
    log.say("three\r\n", 1020.5)
    log.happen("disconnected", 1030, peer="10.0.0.1:5000", reason="closed by the VM's host")
    return log


def recording(log: Log, *words: str) -> list[Any]:
    done = log.ctl("log", "web01", "--export", "asciicast", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_recording_has_what_came_and_when(log: Log) -> None:
    header, *events = recording(log)
    assert (header["version"], header["timestamp"], header["title"]) == (2, 1000, "web01")
    assert events == [
        [0.0, "m", "connected"],
        [0.0, "o", "one\r\n"],
        [10.0, "o", "\x1b[31mtwo\x1b[0m grün\r\n"],
        [20.5, "o", "three\r\n"],
        [30.0, "m", "disconnected"],
    ]


def test_a_range_is_exported(log: Log) -> None:
    _, *events = recording(log, "--since", "@1005", "--until", "@1015")
    assert [text for _, kind, text in events if kind == "o"] == ["\x1b[31mtwo\x1b[0m grün\r\n"]


def test_an_empty_range_is_a_recording_of_nothing(log: Log) -> None:
    assert len(recording(log, "--since", "@9000")) == 1


def test_times_never_go_back(log: Log) -> None:
    log.say("clock was set\r\n", 500)
    times = [event[0] for event in recording(log)[1:]]
    assert times == sorted(times)


def test_a_character_in_two_pieces_is_one(log: Log) -> None:
    log.say("gr", 2000)
    with log.path.open("ab") as file:
        file.write(b"\xc3")
    log.position += 1
    log.note(2001, f"{log.position} mark")
    with log.path.open("ab") as file:
        file.write(b"\xbcn")
    text = "".join(event[2] for event in recording(log)[1:] if event[1] == "o")
    assert text.endswith("grün")


def test_lines_of_one_second_are_spread_over_it(log: Log) -> None:
    log.say("".join(f"line {n}\r\n" for n in range(10)), 2000)
    log.say("end\r\n", 2010)
    times = [event[0] for event in recording(log)[1:] if event[2].startswith("line")]
    assert times[0] == 1000.0
    assert len(set(times)) > 5
    assert times[-1] <= 1001.0


def test_a_file_can_be_named(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "web01.cast"
    assert recording(log, "--output", str(path)) == []
    assert json.loads(path.read_text().splitlines()[0])["version"] == 2


@pytest.mark.parametrize(
    "words", [["--output", "/x"], ["--export", "asciicast", "-f"], ["--export", "asciicast", "--grep", "x"]]
)
def test_options_that_mean_nothing_here_are_wrong_usage(log: Log, words: list[str]) -> None:
    assert log.ctl("log", "web01", *words).returncode == 2


def test_the_real_player_shows_the_log(log: Log, terminals: Terminals, tmp_path: Path) -> None:
    path = tmp_path / "web01.cast"
    recording(log, "--output", str(path))
    terminal = terminals(tool("asciinema"), "cat", str(path), PATH=os.environ["PATH"])
    assert terminal.wait() == 0
    assert terminal.output == log.ctl("log", "web01").stdout.encode()
