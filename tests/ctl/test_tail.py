"""vspcctl tail: many consoles at once, each line with its name."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import UUIDS, Terminal, run
from tests.ctl.logs import Log
from tests.ctl.piped import Piped
from tests.system import processes
from tests.system.wait import throughout, until

Terminals = Callable[..., Terminal]
IDLE = 0.05  # seconds; it pauses for less between two looks


@pytest.fixture
def web01(tmp_path: Path) -> Log:
    return Log(tmp_path / "root" / "log")


@pytest.fixture
def db(web01: Log) -> Log:
    return Log(web01.directory, UUIDS[2], "db")


class Tail(Piped):
    """vspcctl tail, which says by what it does whether it is ready."""

    def wait_watching(self) -> None:
        """Waits until it has its watches, so that nothing that comes now is old."""
        until(self.is_watching, "it watches")

    def is_watching(self) -> bool:
        """Whether it has its watches and waits; before that it looks at what is there."""
        about = Path(f"/proc/{self.process.pid}")
        try:
            links = [os.readlink(fd) for fd in (about / "fd").iterdir()]
        except FileNotFoundError:
            return False
        return any("inotify" in link for link in links) and self._is_idle()

    def _is_idle(self) -> bool:
        """Whether it sleeps, and goes on sleeping."""
        before = self.cpu()
        return throughout(lambda: processes.state(self.process.pid) == "S", IDLE) and self.cpu() == before

    def cpu(self) -> float:
        return processes.processor_seconds(self.process.pid)


Start = Callable[..., Tail]


@pytest.fixture
def tails() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda log, *words: stack.enter_context(Tail(log.command("tail", *words)))


def test_lines_come_with_their_names_and_ctrl_c_ends(web01: Log, db: Log, tails: Start) -> None:
    tail = tails(web01, "-a")
    tail.wait_watching()
    web01.say("one\r\n")
    tail.see("web01: one\n")
    db.say("two\r\n")
    tail.see("db: two\n")
    assert tail.end() == 130
    assert tail.seen == "web01: one\ndb: two\n"


def test_the_last_lines_come_first(web01: Log, db: Log, tails: Start) -> None:
    web01.say("".join(f"{n}\n" for n in range(30)))
    db.say("old\n")
    tail = tails(web01, "web01", "-n", "2")
    tail.see("web01: 28\nweb01: 29\n")
    web01.say("new\n")
    tail.see("web01: new\n")
    assert "db" not in tail.seen


def test_named_consoles_begin_with_ten_lines(web01: Log, tails: Start) -> None:
    web01.say("".join(f"{n}\n" for n in range(30)))
    seen = tails(web01, "web01").see("web01: 29\n")
    assert seen.splitlines() == [f"web01: {n}" for n in range(20, 30)]


def test_patterns_choose_consoles(web01: Log, db: Log, tails: Start) -> None:
    tail = tails(web01, "we*")
    tail.wait_watching()
    db.say("not wanted\n")
    web01.say("wanted\n")
    tail.see("web01: wanted\n")
    tail.end()
    assert "not wanted" not in tail.seen


def test_nothing_is_lost_or_doubled_over_rotations(web01: Log, tails: Start) -> None:
    tail = tails(web01, "-a")
    tail.wait_watching()
    for number in range(60):
        web01.say(f"line {number:03}\n")
        if number % 20 == 19:
            tail.see(f"line {number:03}\n")
            web01.rotate()
    tail.see("line 059\n")
    assert re.findall(r"line (\d+)", tail.seen) == [f"{n:03}" for n in range(60)]


def test_what_came_before_a_rotation_that_it_did_not_see_is_shown(web01: Log, tails: Start) -> None:
    web01.say("old\n")
    tail = tails(web01, "-a")
    tail.wait_watching()
    tail.process.send_signal(signal.SIGSTOP)
    web01.say("one\n")
    web01.rotate()
    web01.say("two\n")
    web01.rotate()
    web01.say("three\n")
    tail.process.send_signal(signal.SIGCONT)
    assert tail.see("three\n") == "web01: one\nweb01: two\nweb01: three\n"


def test_new_consoles_appear_from_their_first_line_on(web01: Log, tails: Start) -> None:
    tail = tails(web01, "-a")
    tail.wait_watching()
    new = Log(web01.directory, UUIDS[7], "new")
    new.say("first\n")
    assert tail.see("first\n") == "new: first\n"


def test_a_new_console_is_called_by_the_name_that_it_tells(web01: Log, tails: Start) -> None:
    tail = tails(web01, "-a")
    tail.wait_watching()
    path = web01.directory / f"{UUIDS[7]}.log"
    path.write_text("first\n")
    tail.see("first\n")
    (web01.directory / "by-name" / "late.log").symlink_to(f"../{UUIDS[7]}.log")

    def is_called_by_it() -> bool:
        with path.open("a") as file:
            file.write("again\n")
        return "late: " in tail.see("again\n")

    until(is_called_by_it, "the console has its name")


def test_a_log_directory_that_comes_later_is_followed(tmp_path: Path, tails: Start) -> None:
    root = tmp_path / "root"
    root.mkdir()
    log = Log(tmp_path / "other" / "log")
    tail = tails(log, "-a", "--dir", str(root / "log"))
    tail.wait_watching()
    (tmp_path / "other" / "log").rename(root / "log")
    log.directory, log.path = root / "log", root / "log" / log.path.name
    log.say("late\n")
    tail.see("web01: late\n")


def test_a_line_is_whole_or_not_there(web01: Log, db: Log, tails: Start) -> None:
    tail = tails(web01, "-a")
    tail.wait_watching()
    web01.say("half ")
    # With the second one, it is through with the turn in which it has read the half.
    for turn in ("one\n", "two\n"):
        db.say(turn)
        tail.see(f"db: {turn}")
    web01.say("and half\n")
    assert tail.see("half\n") == "db: one\ndb: two\nweb01: half and half\n"
    web01.say("no end")
    db.say("three\n")
    tail.see("db: three\n")
    tail.end()
    assert tail.seen.endswith("web01: no end\n")


def test_a_terminal_shows_a_prompt_that_has_no_end(web01: Log, terminals: Terminals) -> None:
    web01.say("text\nlogin: ")
    terminal = terminals(*web01.command("tail", "web01"), TERM="dumb")
    terminal.see(b"web01: text\r\nweb01: login: \r\n")
    web01.say("Password: ")
    terminal.see(b"web01: Password: \r\n")
    terminal.type(b"\x03")
    assert terminal.wait() == 130


def test_a_terminal_is_not_steered(web01: Log, terminals: Terminals) -> None:
    (web01.directory / "by-name" / "web01.log").unlink()
    (web01.directory / "by-name" / "a\x1b[2Jb.log").symlink_to(f"../{web01.path.name}")
    web01.say("\x1b]0;owned\x07one\rdb: two\b\b\n")
    terminal = terminals(*web01.command("tail", UUIDS[1]), TERM="dumb")
    assert terminal.see(b"two\r\n") == b"a\\x1b[2Jb: one db: two\r\n"


def test_names_are_coloured_on_a_terminal(web01: Log, terminals: Terminals) -> None:
    web01.say("text\n")
    terminal = terminals(*web01.command("tail", "web01"))
    assert re.fullmatch(rb"\x1b\[\d+mweb01\x1b\[0m: text\r\n", terminal.see(b"text\r\n"))


def test_only_matches_are_shown(web01: Log, tails: Start) -> None:
    web01.say("one\ntwo\n")
    tail = tails(web01, "web01", "-g", "^T", "-i")
    assert tail.see("two\n") == "web01: two\n"
    web01.say("other\nthree\n")
    assert tail.see("three\n") == "web01: two\nweb01: three\n"


def test_json_has_one_object_per_line(web01: Log, tails: Start) -> None:
    web01.say("old\r\n", 1000)
    seen = tails(web01, "web01", "--json").see("\n")
    assert json.loads(seen) == {"console": UUIDS[1], "name": "web01", "time": 1000.0, "line": "old"}


def test_neither_names_nor_all_is_wrong_usage(web01: Log) -> None:
    assert web01.ctl("tail").returncode == 2
    assert web01.ctl("tail", "-a", "web01").returncode == 2


def test_more_consoles_than_files_that_may_be_open(web01: Log, tails: Start) -> None:
    logs = [Log(web01.directory, UUIDS[100 + n], f"vm{n:03}") for n in range(300)]
    tail = tails(web01, "-a")
    tail.wait_watching()
    resource.prlimit(tail.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    for turn in range(3):
        for log in logs:
            log.say(f"turn {turn}\n")
        for log in logs:
            tail.see(f"vm{UUIDS.index(log.stem) - 100:03}: turn {turn}\n")
    tail.end()
    assert len(tail.seen.splitlines()) == 900


def test_silent_consoles_cost_nothing(web01: Log, tails: Start) -> None:
    for number in range(300):
        Log(web01.directory, UUIDS[100 + number], f"vm{number:03}").say("text\n")
    tail = tails(web01, "-a")
    tail.wait_watching()
    web01.say("awake\n")
    tail.see("awake\n")
    before = tail.cpu()
    time.sleep(2)
    assert tail.cpu() - before <= 0.02


def test_all_and_names_contradict_each_other(tmp_path: Path) -> None:
    done = run("tail", "-a", "web01", "--dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        "vspcctl: --all is all consoles; leave it out to name some\n",
    )
