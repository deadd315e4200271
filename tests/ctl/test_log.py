"""vspcctl log: ranges by lines and times, rotated files, following, and what a terminal may see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import ROOT, UUIDS, Daemon, Terminal, command, console, environment, run
from tests.ctl.logs import Log
from tests.ctl.piped import Piped

Daemons = Callable[..., Daemon]
Terminals = Callable[..., Terminal]
Follow = Callable[..., Piped]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "root" / "log")


def shown(log: Log, *words: str) -> str:
    """What vspcctl log prints without a daemon."""
    done = run("--root", str(log.directory.parent), "log", "web01", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_log_is_shown_byte_for_byte(log: Log) -> None:
    log.say("".join(map(chr, range(256))))
    assert shown(log).encode() == log.path.read_bytes()


def test_rotated_files_come_first_the_oldest_before_the_others(log: Log) -> None:
    for text in ("one\n", "two\n", "three\n"):
        log.say(text)
        log.rotate()
    log.say("four\n")
    assert shown(log) == "one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("0", ""),
        ("1", "six"),
        ("2", "five\nsix"),
        ("4", "three\nfour\nfive\nsix"),
        ("99", "one\ntwo\nthree\nfour\nfive\nsix"),
    ],
)
def test_the_last_lines_are_counted_over_rotated_files(log: Log, lines: str, text: str) -> None:
    log.say("one\ntwo\nthr")
    log.rotate()
    log.say("ee\nfour\nfive\n")
    log.rotate()
    log.say("six")
    assert shown(log, "-n", lines) == text


def test_the_last_line_may_end_with_a_newline(log: Log) -> None:
    log.say("one\ntwo\n")
    assert shown(log, "-n", "1") == "two\n"


def test_the_last_lines_of_a_large_log(log: Log) -> None:
    log.say("".join(f"{n:>99}\n" for n in range(5000)))
    assert shown(log, "-n", "2000") == "".join(f"{n:>99}\n" for n in range(3000, 5000))


def dated(log: Log) -> None:
    log.say("monday\n", moment("2026-01-05 10:00:00"))
    log.say("tuesday\n", moment("2026-01-06 10:00:00"))
    log.rotate(moment("2026-01-06 10:00:00"))
    log.say("wednesday\n", moment("2026-01-07 10:00:00"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--since", "2026-01-06"], "tuesday\nwednesday\n"),
        (["--since", "2026-01-06 12:00"], "wednesday\n"),
        (["--until", "2026-01-06"], "monday\n"),
        (["--until", "2026-01-06 12:00"], "monday\ntuesday\n"),
        (["--since", "2026-01-06", "--until", "2026-01-06 12:00"], "tuesday\n"),
        (["--since", "2026-01-08"], ""),
        (["--until", "2026-01-01"], ""),
        (["--since", "2026-01-07", "--until", "2026-01-06"], ""),
        (["--since", "2026-01-06", "-n", "1"], "wednesday\n"),
        (["--until", "2026-01-06 12:00", "-n", "1"], "tuesday\n"),
    ],
)
def test_a_range_of_time_is_shown(log: Log, options: list[str], text: str) -> None:
    dated(log)
    assert shown(log, *options) == text


def test_ages_are_understood(log: Log) -> None:
    log.say("old\n", time.time() - 7200)
    log.say("new\n", time.time() - 60)
    assert shown(log, "--since", "10m") == "new\n"


def test_timestamps_stand_before_each_line(log: Log) -> None:
    dated(log)
    assert shown(log, "--timestamps").splitlines() == [
        "2026-01-05 10:00:00  monday",
        "2026-01-06 10:00:00  tuesday",
        "2026-01-07 10:00:00  wednesday",
    ]


def test_a_line_over_two_files_has_one_timestamp(log: Log) -> None:
    log.say("one ", moment("2026-01-05 10:00:00"))
    log.rotate()
    log.say("line\n", moment("2026-01-06 10:00:00"))
    assert shown(log, "-t") == "2026-01-05 10:00:00  one line\n"


def test_without_an_index_timestamps_are_marked_unknown(log: Log) -> None:
    log.say("text\n")
    (log.directory / f"{log.stem}.idx").unlink()
    done = run("--root", str(log.directory.parent), "log", "web01", "-t")
    assert done.stdout == "-------------------  text\n"
    assert "has no index" in done.stderr


def test_a_wrong_time_is_wrong_usage(log: Log) -> None:
    done = run("--root", str(log.directory.parent), "log", "web01", "--since", "soonish")
    assert (done.returncode, "--since: 'soonish' is not a time" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["web01", "web", UUIDS[1], UUIDS[1].replace("-", ""), UUIDS[1][:8]])
def test_a_log_is_found_without_the_daemon(log: Log, name: str) -> None:
    log.say("text\n")
    assert run("--root", str(log.directory.parent), "log", name).stdout == "text\n"


def test_a_labelled_ports_log_is_found(log: Log) -> None:
    Log(log.directory, UUIDS[2] + ".com2", "db").say("second port\n")
    assert run("--root", str(log.directory.parent), "log", UUIDS[2] + ".com2").stdout == "second port\n"


def test_an_unknown_console_is_told_where_it_was_looked_for(log: Log) -> None:
    done = run("--root", str(log.directory.parent), "log", "web1")
    assert done.returncode == 3
    assert "no console is named web1; did you mean web01?" in done.stderr
    assert str(log.directory) in done.stderr


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "."])
def test_a_path_is_no_console(log: Log, name: str) -> None:
    done = run("--root", str(log.directory.parent), "log", name)
    assert (done.returncode, done.stdout) == (3, "")


def test_a_directory_can_be_named(log: Log, tmp_path: Path) -> None:
    log.say("text\n")
    assert run("--root", str(tmp_path / "no"), "log", "web01", "--dir", str(log.directory)).stdout == "text\n"


def test_the_configurations_directory_is_used(log: Log, tmp_path: Path) -> None:
    log.say("text\n")
    config = tmp_path / "vspcd.yaml"
    config.write_text(f"log:\n  dir: {log.directory}\n")
    assert run("log", "web01", "--config", str(config)).stdout == "text\n"


def test_a_running_daemon_tells_where_the_log_is(daemons: Daemons, tmp_path: Path) -> None:
    elsewhere = Log(tmp_path / "elsewhere")
    elsewhere.say("text\n")
    daemon = daemons(console(1, "called-otherwise", log=str(elsewhere.path)))
    assert daemon.ctl("log", "called-otherwise").stdout == "text\n"


def test_a_console_that_is_not_logged_is_told_so(daemons: Daemons) -> None:
    done = daemons(console(1, "web01")).ctl("log", "web01")
    assert (done.returncode, done.stderr) == (1, "vspcctl: the console web01 is not logged\n")


def test_a_running_daemons_suggestion_is_passed_on(web01: Daemon) -> None:
    done = web01.ctl("log", "web1")
    assert (done.returncode, done.stderr) == (3, "vspcctl: no console is named web1; did you mean web01?\n")


@pytest.fixture
def follow(log: Log) -> Iterator[Follow]:
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(Piped(log.command("log", "web01", "-f", *words)))


def test_following_shows_what_comes_and_ends_with_ctrl_c(log: Log, follow: Follow) -> None:
    log.say("before\n")
    following = follow()
    following.see("before\n")
    log.say("after\n")
    following.see("after\n")
    assert following.end() == 130


def test_following_begins_with_the_last_ten_lines(log: Log, follow: Follow) -> None:
    log.say("".join(f"{n}\n" for n in range(100)))
    following = follow()
    following.see("99\n")
    following.end()
    assert following.seen.split() == [str(n) for n in range(90, 100)]


def test_following_loses_and_repeats_nothing_over_rotations(log: Log, follow: Follow) -> None:
    log.say("0\n")
    following = follow()
    following.see("0\n")
    for number in range(1, 60):
        log.say(f"{number}\n")
        if number % 20 == 0:
            following.see(f"{number}\n")
            log.rotate()
    following.see("59\n")
    following.end()
    assert following.seen.split() == [str(n) for n in range(60)]


def test_following_reads_on_what_a_renamed_file_still_gets(log: Log, follow: Follow) -> None:
    log.say("one\n")
    following = follow()
    following.see("one\n")
    with log.path.open("ab") as writer:
        log.rotate()
        writer.write(b"two\n")
        writer.flush()
        following.see("two\n")
    log.say("three\n")
    following.see("one\ntwo\nthree\n")
    following.end()


def test_following_stamps_new_lines_with_the_time(log: Log, follow: Follow) -> None:
    following = follow("-t")
    log.say("new\n")
    following.see("new\n")
    following.end()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  new\n", following.seen)


def test_a_terminal_is_not_steered_by_a_log(log: Log, terminals: Terminals) -> None:
    log.say("\x1b[6n\x1b]0;owned\x07\x1b[31mred\x1b[0m\r\n")
    terminal = terminals(*command("--root", str(log.directory.parent), "log", "web01"))
    assert terminal.wait() == 0
    assert terminal.output.startswith(b"\x1b[31mred\x1b[0m\r")
    assert b"owned" not in terminal.output


def test_raw_gives_a_terminal_every_byte(log: Log, terminals: Terminals) -> None:
    log.say("\x1b]0;owned\x07")
    terminal = terminals(*command("--root", str(log.directory.parent), "log", "web01", "--raw"))
    assert terminal.wait() == 0
    assert terminal.output == b"\x1b]0;owned\x07"


def test_an_unreadable_log_is_explained(log: Log) -> None:
    log.say("secret\n")
    log.path.chmod(0)
    mortal = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*mortal, *command("--root", str(log.directory.parent), "log", "web01")],
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        env=environment(),
        check=False,
    )
    assert done.returncode == 5
    assert b"permission denied" in done.stderr


def test_lines_that_match_are_shown(log: Log) -> None:
    log.say("one error\r\ntwo\r\nthree error\r\n")
    assert shown(log, "--grep", "error$") == "one error\r\nthree error\r\n"
    assert shown(log, "-g", "ERROR", "-i", "-n", "1") == "three error\r\n"
    assert shown(log, "-g", "t.o", "-F") == ""


def test_context_is_shown_beside_matches(log: Log) -> None:
    log.say("".join(f"{n}\n" for n in range(9)))
    assert shown(log, "-g", "2|6", "-C", "1") == "1\n2\n3\n--\n5\n6\n7\n"
    assert shown(log, "-g", "2|4", "-A", "1") == "2\n3\n4\n5\n"
    assert shown(log, "-g", "2", "-B", "1") == "1\n2\n"
    assert shown(log, "-g", "2|6", "-C", "1", "-n", "1").endswith("5\n6\n7\n")


def test_a_match_over_two_files_is_found(log: Log) -> None:
    log.say("one er")
    log.rotate()
    log.say("ror\ntwo\n")
    assert shown(log, "-g", "error") == "one error\n"


def test_matches_have_their_times(log: Log) -> None:
    dated(log)
    assert shown(log, "-g", "tues", "-t") == "2026-01-06 10:00:00  tuesday\n"


def test_matches_are_coloured_on_a_terminal(log: Log, terminals: Terminals) -> None:
    log.say("one \x1b]0;owned\x07error here\r\n")
    terminal = terminals(*log.command("log", "web01", "-g", "err.r"))
    assert terminal.wait() == 0
    assert terminal.output == b"one \x1b[1;31merror\x1b[0m here\r\r\n"


def test_json_has_one_object_per_line(log: Log) -> None:
    log.say("one\r\n", 1000)
    log.say("\x1b[2Jtwo", 2000)
    assert [json.loads(line) for line in shown(log, "--json").splitlines()] == [
        {"time": 1000.0, "line": "one"},
        {"time": 2000.0, "line": "\x1b[2Jtwo"},
    ]


def test_following_shows_only_what_matches(log: Log, follow: Follow) -> None:
    log.say("one error\ntwo\n")
    following = follow("-g", "error")
    following.see("one error\n")
    log.say("three\nfour error\n")
    following.see("one error\nfour error\n")
    assert following.end() == 130


@pytest.mark.parametrize("words", [["-A", "1"], ["-f", "-b", "-1"], ["--raw", "--json"], ["-g", "("]])
def test_options_that_do_not_go_together_are_wrong_usage(log: Log, words: list[str]) -> None:
    log.say("text\n")
    assert log.ctl("log", "web01", *words).returncode == 2
