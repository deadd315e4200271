"""What of a log is one boot of the VM."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.logs import Log
from vspcd.core import vmotion
from vspcd.ctl import boots as boot_rules

CLOSED = "closed by the VM's host"
LINUX = "[    0.000000] Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)\r\n"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "root" / "log")


def connect(log: Log, at: float, peer: str = "10.0.0.1:50000") -> None:
    log.happen("connected", at, peer=peer)


def disconnect(log: Log, at: float, reason: str = CLOSED) -> None:
    log.happen("disconnected", at, peer="10.0.0.1:50000", reason=reason)


def boots(log: Log) -> list[dict[str, Any]]:
    done = log.ctl("log", "web01", "--list-boots", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def starts(log: Log) -> list[list[str]]:
    return [boot["known_by"] for boot in boots(log)]


def of_boot(log: Log, number: str) -> str:
    done = log.ctl("log", "web01", "--boot", number)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def twice_on(log: Log) -> None:
    connect(log, 1000)
    log.say("one\n", 1001)
    disconnect(log, 1010)
    connect(log, 2000)
    log.say("two\n", 2001)


def test_a_vm_that_was_switched_off_and_on_has_two_boots(log: Log) -> None:
    twice_on(log)
    assert [(b["boot"], b["number"], b["first"], b["bytes"]) for b in boots(log)] == [
        (-1, 1, 1000, 4),
        (0, 2, 2000, 4),
    ]


@pytest.mark.parametrize(
    ("number", "text"), [("0", "two\n"), ("-1", "one\n"), ("1", "one\n"), ("2", "two\n")]
)
def test_boots_are_numbered_as_by_journalctl(log: Log, number: str, text: str) -> None:
    twice_on(log)
    assert of_boot(log, number) == text


@pytest.mark.parametrize("number", ["-2", "3"])
def test_a_boot_that_there_is_not_is_said_so(log: Log, number: str) -> None:
    twice_on(log)
    done = log.ctl("log", "web01", "-b", number)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"there is no boot {number}" in done.stderr


def test_boots_go_over_rotated_files(log: Log) -> None:
    connect(log, 1000)
    log.say("one\n", 1001)
    log.rotate(1002)
    log.say("and more\n", 1003)
    disconnect(log, 1010)
    connect(log, 2000)
    log.say("two\n", 2001)
    log.rotate(2002)
    log.say("and more\n", 2003)
    assert (of_boot(log, "-1"), of_boot(log, "0")) == ("one\nand more\n", "two\nand more\n")


@pytest.mark.parametrize(
    ("reason", "peer", "count"),
    [
        (CLOSED, "10.0.0.1:50001", 2),
        ("its TLS connection has ended", "10.0.0.1:50001", 2),
        ("Connection timed out", "10.0.0.1:50001", 1),
        ("replaced by a new connection from 10.0.0.1:50001", "10.0.0.1:50001", 1),
        ("replaced by a new connection from 10.0.0.2:50001", "10.0.0.2:50001", 2),
    ],
)
def test_a_network_that_came_back_is_no_boot(log: Log, reason: str, peer: str, count: int) -> None:
    connect(log, 1000)
    log.say("one\n", 1001)
    disconnect(log, 1010, reason)
    connect(log, 1020, peer)
    log.say("two\n", 1021)
    assert len(boots(log)) == count


def test_a_restart_of_the_daemon_is_no_boot(log: Log) -> None:
    connect(log, 1000)
    log.say("one\n", 1001)
    log.happen("stopped", 1010, reason="vspcd is stopping")
    log.happen("started", 1020, name="web01")
    connect(log, 1021)
    log.say("two\n", 1022)
    assert starts(log) == [["connected"]]


def test_a_vmotion_is_no_boot(log: Log) -> None:
    connect(log, 1000)
    log.say("one\n", 1001)
    log.happen("vmotion", 1010, **{"from": "10.0.0.1:50000", "to": "10.0.0.2:50000", "outcome": "moved"})
    log.say("two\n", 1022)
    disconnect(log, 1030, "Connection timed out")
    connect(log, 1040, "10.0.0.2:50003")
    log.say("three\n", 1041)
    assert starts(log) == [["connected"]]


def test_a_moves_outcome_is_called_as_the_worker_calls_it() -> None:
    assert boot_rules.MOVED == vmotion.MOVED


def test_a_guest_that_reboots_is_known_by_its_kernel(log: Log) -> None:
    connect(log, 1000)
    log.say("GRUB\r\n" + LINUX, 1001)
    log.say("[   10.000000] up\r\n", 1011)
    log.say("[   99.000000] reboot: Restarting system\r\n", 1100)
    log.say("GRUB again\r\n", 1105)
    log.say(LINUX, 1110)
    log.say("[   10.000000] up again\r\n", 1120)
    assert starts(log) == [["connected", "kernel"], ["kernel"]]
    assert of_boot(log, "0").splitlines()[0] == "GRUB again"


def test_what_dmesg_shows_is_no_boot(log: Log) -> None:
    connect(log, 1000)
    log.say(LINUX, 1001)
    log.say("[   50.000000] up\r\n# ", 1051)
    log.say("dmesg\r\n" + LINUX + "[   50.000000] up\r\n# ", 1200)
    assert starts(log) == [["connected", "kernel"]]


def test_a_first_line_within_a_line_is_no_boot(log: Log) -> None:
    connect(log, 1000)
    log.say("old: " + LINUX, 1001)
    assert starts(log) == [["connected"]]


def test_a_first_line_over_two_blocks_is_found_once(log: Log) -> None:
    connect(log, 1000)
    filling = "x" * 63 + "\n"
    log.say(filling * (((1 << 20) - 256) // 64), 1001)
    log.say(LINUX, 5000)
    log.say(filling * 100, 5001)
    assert starts(log) == [["connected"], ["kernel"]]


def test_a_log_that_begins_in_mid_boot_says_so(log: Log) -> None:
    log.say("the end of one\n", 1000)
    disconnect(log, 1010)
    connect(log, 2000)
    log.say("two\n", 2001)
    assert starts(log) == [["beginning"], ["connected"]]


def test_since_and_boot_narrow_each_other(log: Log) -> None:
    now = time.time()
    connect(log, now - 3600)
    log.say("early\n", now - 3599)
    log.say("late\n", now - 60)
    assert log.ctl("log", "web01", "-b", "0", "--since", "10m").stdout == "late\n"


def test_boots_are_shown_as_a_table(log: Log) -> None:
    twice_on(log)
    lines = log.ctl("log", "web01", "--list-boots").stdout.splitlines()
    assert lines[0].split()[:3] == ["BOOT", "NUMBER", "FIRST"]
    assert [line.split()[:2] for line in lines[1:]] == [["-1", "1"], ["0", "2"]]
