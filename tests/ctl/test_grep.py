"""vspcctl grep: over all consoles' files, with ripgrep and without it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, cast

import pytest

from tests.ctl.conftest import ROOT, UUIDS, Daemon, Terminal, console, environment
from tests.ctl.logs import Log
from tests.system.tools import tool
from vspcd.ctl.grep import Blocks
from vspcd.ctl.printer import Owner
from vspcd.ctl.search import Job, Target, new_key
from vspcd.ctl.segments import Segment

Daemons = Callable[..., Daemon]
Terminals = Callable[..., Terminal]


@pytest.fixture(params=["ripgrep", "python"])
def path(request: pytest.FixtureRequest) -> str:
    """A PATH with ripgrep, or without."""
    return os.path.dirname(tool("rg")) if request.param == "ripgrep" else "/nonexistent"


@pytest.fixture
def web01(tmp_path: Path) -> Log:
    log = Log(tmp_path / "root" / "log")
    log.say("one error\r\ntwo\r\n", 1000)
    log.rotate(2000)
    log.say("three\r\nfour error\r\nfive\r\n", 2000)
    return log


@pytest.fixture
def db(web01: Log) -> Log:
    log = Log(web01.directory, UUIDS[2], "db")
    log.say("db error\r\n", 3000)
    return log


def test_all_consoles_and_rotated_files_are_searched(web01: Log, db: Log, path: str) -> None:
    done = web01.ctl("grep", "error", PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "db: db error\nweb01: one error\nweb01: four error\n"


def test_named_consoles_alone_are_searched(web01: Log, db: Log, path: str) -> None:
    assert web01.ctl("grep", "error", "db", PATH=path).stdout == "db: db error\n"
    assert web01.ctl("grep", "error", "we*", PATH=path).stdout == "web01: one error\nweb01: four error\n"


def test_without_a_pattern_nothing_else_is_asked_for(web01: Log) -> None:
    done = web01.ctl("grep")
    assert done.returncode == 2
    assert done.stderr.startswith("vspcctl grep: the following arguments are required: PATTERN\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["error"], 0), (["nothing"], 1), (["("], 2), (["error", "--since", "soonish"], 2), ([], 2)],
)
def test_exit_codes_are_greps(web01: Log, words: list[str], code: int, path: str) -> None:
    assert web01.ctl("grep", *words, PATH=path).returncode == code


def test_an_unknown_name_is_no_console(web01: Log) -> None:
    done = web01.ctl("grep", "error", "nobody")
    assert (done.returncode, "no console is named nobody" in done.stderr) == (3, True)
    done = web01.ctl("grep", "error", "no*")
    assert (done.returncode, "named like no*" in done.stderr) == (3, True)


def test_lines_are_counted_and_consoles_named(web01: Log, db: Log, path: str) -> None:
    assert web01.ctl("grep", "-c", "error", PATH=path).stdout == "db: 1\nweb01: 2\n"
    assert web01.ctl("grep", "-l", "error", PATH=path).stdout == "db\nweb01\n"
    assert web01.ctl("grep", "-l", "three", PATH=path).stdout == "web01\n"


def test_a_range_of_time_is_searched(web01: Log, db: Log, path: str) -> None:
    since = ["--since", "@1900", "--until", "@2500"]
    assert web01.ctl("grep", "error", *since, PATH=path).stdout == "web01: four error\n"
    assert web01.ctl("grep", "-c", "error", *since, PATH=path).stdout == "web01: 1\n"
    assert web01.ctl("grep", "-l", "error", *since, PATH=path).stdout == "web01\n"


def test_a_part_of_a_file_is_searched(web01: Log, path: str) -> None:
    web01.say("six error\r\n", 5000)
    assert web01.ctl("grep", "error", "--since", "@4000", PATH=path).stdout == "web01: six error\n"
    assert web01.ctl("grep", "-c", "error", "--until", "@4000", PATH=path).stdout == "web01: 2\n"


def test_lines_have_their_times(web01: Log, path: str) -> None:
    stamp = datetime.fromtimestamp(2000).strftime("%Y-%m-%d %H:%M:%S")
    assert web01.ctl("grep", "-t", "four", PATH=path).stdout == f"{stamp}  web01: four error\n"


def test_context_stands_beside_matches(web01: Log, db: Log, path: str) -> None:
    done = web01.ctl("grep", "-C1", "error", PATH=path)
    assert done.stdout.splitlines() == [
        "db: db error", "--", "web01: one error", "web01- two", "--",
        "web01- three", "web01: four error", "web01- five",
    ]  # fmt: skip
    assert web01.ctl("grep", "-A1", "four", PATH=path).stdout == "web01: four error\nweb01- five\n"
    assert web01.ctl("grep", "-B1", "four", PATH=path).stdout == "web01- three\nweb01: four error\n"


def test_a_line_over_two_files_is_found(web01: Log, path: str) -> None:
    web01.say("its first half, ", 2500)
    web01.rotate(2600)
    web01.say("its second half\r\n", 2600)
    whole = "web01: its first half, its second half\n"
    assert web01.ctl("grep", "first.*second", PATH=path).stdout == whole
    assert web01.ctl("grep", "-c", "first.*second half$", PATH=path).stdout == "web01: 1\n"
    assert (
        web01.ctl("grep", "first.*second", "--since", "@2400", "--until", "@2550", PATH=path).stdout == whole
    )
    assert web01.ctl("grep", "first.*second", "--until", "@2400", PATH=path).stdout == ""
    stamp = datetime.fromtimestamp(2500).strftime("%Y-%m-%d %H:%M:%S")
    assert web01.ctl("grep", "-t", "first.*second", PATH=path).stdout == f"{stamp}  {whole}"
    assert web01.ctl("grep", "second half", PATH=path).stdout == "web01: its second half\n"


def test_json_has_one_object_per_line(web01: Log, path: str) -> None:
    done = web01.ctl("grep", "--json", "four", PATH=path)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"console": UUIDS[1], "name": "web01", "time": 2000.0, "line": "four error"}
    ]


def test_case_and_plain_text(web01: Log, path: str) -> None:
    web01.say("a.c\n")
    assert web01.ctl("grep", "-i", "FOUR", PATH=path).stdout == "web01: four error\n"
    assert web01.ctl("grep", "-F", "a.c", PATH=path).stdout == "web01: a.c\n"
    assert web01.ctl("grep", "-F", "t.o", PATH=path).returncode == 1


def test_many_findings_of_many_consoles_stand_in_order(web01: Log, path: str) -> None:
    for number in range(40):
        log = Log(web01.directory, UUIDS[100 + number], f"vm{number:02}")
        log.say("".join(f"line {n:05}\r\n" for n in range(2000)))
        log.rotate()
        log.say("".join(f"line {n:05}\r\n" for n in range(2000, 4000)))
    wanted = "".join(f"vm{number:02}: line {n:05}\n" for number in range(40) for n in range(4000))
    assert web01.ctl("grep", "^line", PATH=path).stdout == wanted


def test_a_large_console_is_searched_alone(web01: Log, path: str) -> None:
    web01.say(("x" * 99 + "\r\n") * 170_000)
    web01.say("the needle\r\n")
    assert web01.ctl("grep", "needle|error", PATH=path).stdout.splitlines() == [
        "web01: one error", "web01: four error", "web01: the needle",
    ]  # fmt: skip


def test_a_line_cannot_pass_for_another_consoles(web01: Log, db: Log, path: str) -> None:
    web01.say("error /proc/self/fd/3\0db: fake error\r\n\rdb: error\r\n")
    lines = web01.ctl("grep", "error", PATH=path).stdout.split("\n")
    assert [line for line in lines if line.startswith("db")] == ["db: db error"]


def test_empty_lines_between_consoles_are_theirs(web01: Log, path: str) -> None:
    """What stands between the findings in two files is an empty line too."""
    for number, text in enumerate(("a\r\n\r\n", "\r\n", "\r\n\nb\n\r\n\n")):
        Log(web01.directory, UUIDS[200 + number], f"vm{number}").say(text)
    shown = web01.ctl("grep", "^[ab]?$", "vm*", PATH=path).stdout
    assert shown == "vm0: a\nvm0: \nvm1: \nvm2: \nvm2: \nvm2: b\nvm2: \nvm2: \n"


def test_returns_within_lines_stay(web01: Log, db: Log, path: str) -> None:
    text = "10%\r20%\r\nlone\r\r\n\rx\nbare\n"
    for log in (web01, db):
        log.say(text)
    wanted = [f"{name}: {line}" for name in ("db", "web01") for line in ("10%\r20%", "lone\r", "\rx", "bare")]
    done = web01.ctl("grep", "%|lone|x|bare", PATH=path)
    assert done.stdout.split("\n")[:-1] == wanted


def test_a_terminal_is_not_steered(web01: Log, terminals: Terminals) -> None:
    web01.say("error \x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\rover \b\b\r\n")
    terminal = terminals(*web01.command("grep", "red"), TERM="dumb")
    assert terminal.wait() == 0
    assert terminal.output == b"web01: error \x1b[31mred\x1b[0m over \x1b[0m\r\n"


def test_matches_are_coloured_on_a_terminal(web01: Log, terminals: Terminals) -> None:
    terminal = terminals(*web01.command("grep", "fo+ur"))
    assert terminal.wait() == 0
    assert b"web01\x1b[0m: \x1b[1;31mfour\x1b[0m error\r\n" in terminal.output


def test_consoles_of_one_name_are_told_apart(web01: Log) -> None:
    Log(web01.directory, UUIDS[3], f"web01.{UUIDS[3]}").say("one error\n")
    assert web01.ctl("grep", "-l", "error").stdout.splitlines() == [
        f"web01 ({UUIDS[1]})",
        f"web01 ({UUIDS[3]})",
    ]


def test_the_daemon_tells_names_and_the_directory(daemons: Daemons, tmp_path: Path) -> None:
    elsewhere = Log(tmp_path / "elsewhere")
    elsewhere.say("text\n")
    forgotten = Log(elsewhere.directory, UUIDS[2], "forgotten")
    forgotten.say("text\n")
    daemon = daemons(console(1, "called otherwise", log=str(elsewhere.path)))
    assert daemon.ctl("grep", "text").stdout == "called otherwise: text\nforgotten: text\n"


def test_a_file_that_may_not_be_read_is_trouble(web01: Log, db: Log) -> None:
    db.path.chmod(0)
    mortal = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*mortal, *web01.command("grep", "error")],
        cwd=ROOT, capture_output=True, text=True, timeout=20, env=environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, "permission denied" in done.stderr) == (2, True)
    assert "web01: one error\n" in done.stdout


def test_a_log_that_is_written_meanwhile_is_searched(web01: Log) -> None:
    web01.note(time.time(), f"{web01.position} mark")
    with web01.path.open("ab") as file:
        file.write(b"half an error")
    assert web01.ctl("grep", "half").stdout == "web01: half an error\n"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_place_where_a_search_is_read_in_two_pieces_does_not_matter(
    size: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def files(*fds: int) -> Job:
        return Job([Target(cast(Segment, SimpleNamespace(fd=fd)), fd, 0, 0) for fd in fds])

    def take(job: Job, said: bytes) -> None:
        lines = said.splitlines(keepends=True)
        for at in range(0, len(lines), size):
            blocks.take(job, b"".join(lines[at : at + size]))

    key = new_key()
    path = f"/proc{key}/self/fd/".encode()
    blocks = Blocks([Owner("", name) for name in ("a", "b", "c", "d")], key)
    take(files(0, 1), path + b"0\0x\r\n\r\n\r\n" + path + b"1\0y\r\n\r\n")
    take(files(2), b"z\r\n\r\n")
    take(files(3, 0), path + b"3\0\r\n\r\n" + path + b"0\0\r\n\r\n")
    blocks.finish()
    assert capfdbinary.readouterr().out == b"a: x\na: \nb: y\nb: \nc: z\nc: \nd: \na: \na: \n"
