"""The escape menu of vspcctl console with the real daemon: sharing, questions, other consoles, deaths and upgrades."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.system import processes
from tests.system.clients import PtyClient
from tests.system.conftest import Dial
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.menus import ESCAPE, Menu, session
from tests.system.test_sharing import audit, known
from tests.system.test_worker_death import kill_worker
from tests.system.vm import BREAK, FakeVm
from tests.system.wait import until


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial(name="web01")


# Sharing


def test_a_lock_is_taken_with_a_reason_and_given_back(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    menu.choose(b"l", b"lock, reason")
    menu.answer(b"firmware")
    menu.read_until(b"you have the write lock]")
    assert daemon.console(vm.name)["lock"]["reason"] == "firmware"
    menu.send(ESCAPE + b"u")
    menu.read_until(b"unlocked by ")
    assert daemon.console(vm.name)["lock"] is None
    until(lambda: {"lock", "unlock"} <= {each["what"] for each in audit(daemon)}, "both are written down")


def test_a_lock_of_somebody_else_is_named_and_taken_over(
    daemon: Daemon, vm: FakeVm, menu: Menu, stack: ExitStack
) -> None:
    other = stack.enter_context(session(daemon, vm.name, "--lock", "--reason", "an update"))
    menu.read_until(b"the write lock now: an update]")
    menu.choose(b"l", b"lock, reason")
    menu.answer(b"")
    assert b"is locked by" in menu.read_until(b"an update]")
    menu.choose(b"t", b"take over, reason")
    menu.answer(b"it is late")
    other.read_until(b"has taken over the write lock: it is late]")
    menu.read_until(b"you have the write lock]")
    menu.send(b"mine")
    assert vm.read(4) == b"mine"


def test_watching_is_chosen_and_ended(vm: FakeVm, menu: Menu) -> None:
    menu.send(ESCAPE + b"o")
    menu.read_until(b"you only watch now]")
    menu.send(b"not this")
    menu.read_until(b"read-only: what you type is not sent]")
    menu.send(ESCAPE + b"o")
    menu.read_until(b"you type again]")
    menu.send(b"this")
    assert vm.read(4) == b"this"


def test_who_and_info_tell_of_this_session(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    number = known(daemon, vm.name)[0]["id"]
    menu.send(ESCAPE + b"w")
    menu.read_until(re.compile(rb"web01 +%d .*vspcctl" % number))
    menu.send(ESCAPE + b"i")
    menu.read_until(b"you: number %d, read-write" % number)


# Output while a question is shown


def test_output_waits_for_the_answer_and_is_whole(vm: FakeVm, menu: Menu) -> None:
    vm.send(b"login: ")
    menu.read_until(b"login: ")
    menu.choose(b"l", b"lock, reason")
    said = b"".join(b"line %d\r\n" % number for number in range(2000))
    vm.send(said)
    menu.send(b"fir")
    menu.read_until(b"fir")
    assert b"line" not in menu.quiet(0.3)
    menu.send(b"\x03")
    shown = menu.read_until(b"line 1999\r\n")
    assert shown.endswith(b"\r\x1b[Klogin: " + said)


def test_a_flood_behind_a_question_stays_with_the_daemon_and_is_not_lost(
    daemon: Daemon, vm: FakeVm, menu: Menu
) -> None:
    menu.choose(b"l", b"lock, reason")
    said = b"".join(b"%063d\n" % number for number in range(1 << 15))
    vm.send(said)
    until(lambda: daemon.log_file(vm.name).stat().st_size == len(said), "all is logged")
    assert known(daemon, vm.name)[0]["lag"] > 1 << 20
    menu.send(b"\x03")
    assert menu.read_until(b"%063d\n" % ((1 << 15) - 1)).endswith(b"\r\x1b[K" + said)


def test_a_kick_ends_a_session_in_the_middle_of_a_question(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    before = menu.terminal_before
    menu.choose(b"l", b"lock, reason")
    vm.send(b"last words\r\n")
    until(lambda: known(daemon, vm.name)[0]["lag"] == 0, "the output is with the session")
    number = known(daemon, vm.name)[0]["id"]
    assert daemon.ctl("kick", vm.name, str(number)).returncode == 0
    assert re.search(rb"last words\r\n.*kicked by ", menu.read_to_end(), re.DOTALL)
    assert menu.wait() == 1
    assert menu.terminal() == before


def test_a_question_without_an_answer_is_given_up(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    impatient = "import sys, vspcd.ctl.session as s; s.QUESTION_PATIENCE = 0.5; from vspcd.ctl.main import main; main()"
    words = ["--root", str(daemon.root), "console", "--replay", "0", vm.name]
    menu = stack.enter_context(Menu([sys.executable, "-c", impatient, *words]))
    menu.read_until(b"helps]")
    menu.choose(b"l", b"lock, reason")
    vm.send(b"meanwhile\r\n")
    menu.read_until(b"no answer within 0.5 s; nothing was done]")
    menu.read_until(b"meanwhile\r\n")
    menu.send(b"typed\r")
    assert vm.read(6) == b"typed\r"
    assert daemon.console(vm.name)["lock"] is None


@pytest.mark.parametrize("columns", [40, 20])
def test_a_question_never_needs_a_second_row(
    daemon: Daemon, vm: FakeVm, stack: ExitStack, columns: int
) -> None:
    menu = stack.enter_context(session(daemon, vm.name, columns=columns))
    for key in (b"l", b"b", b"r", b">", b"L", b"c", b"*"):
        menu.choose(key, re.compile(rb"\x1b\[K[^\r]+\Z"))
        menu.send(b"x" * 100)
        _, *rows = (menu.read_until(re.compile(rb"x{5}\Z")) + menu.quiet(0.1)).split(b"\r\x1b[K")
        assert max(len(row.decode()) for row in rows) < columns
        menu.send(b"\x03")


# Deaths


def test_a_question_outlives_the_worker_and_the_master(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    menu.choose(b"l", b"lock, reason")
    kill_worker(daemon, vm.name)
    processes.kill(daemon.pid)
    daemon.wait_end()
    vm.send(b"meanwhile\r\n")
    menu.answer(b"nobody hears")
    menu.read_until(b"the daemon is not running")
    menu.read_until(b"meanwhile")
    daemon.start()
    daemon.wait_clients(vm.name, 1)
    menu.choose(b"l", b"lock, reason")
    menu.answer(b"now")
    menu.read_until(b"you have the write lock]")
    menu.send(b"typed")
    assert vm.read(5) == b"typed"


def test_the_menu_acts_for_the_session_after_an_upgrade(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    assert daemon.ctl("upgrade", timeout=90).returncode == 0
    menu.send(ESCAPE + b"o")
    menu.read_until(b"you only watch now]")
    assert known(daemon, vm.name)[0]["mode"] == "ro"


# Other consoles


def test_a_session_goes_over_to_another_console_with_its_lock_left_behind(
    daemon: Daemon, dial: Dial, vm: FakeVm, stack: ExitStack
) -> None:
    other = dial(name="web02")
    menu = stack.enter_context(session(daemon, vm.name, "--lock"))
    menu.choose(b"c", b"console: ")
    menu.answer(b"nonsense")
    menu.read_until(b"still on web01]")
    menu.send(b"here")
    assert vm.read(4) == b"here"
    vm.send(b"\x1b[?25l")
    menu.read_until(b"\x1b[?25l")
    menu.send(b"last" + ESCAPE + b"cweb02\rthere")
    menu.read_until(b"\x1b[?25h")
    menu.read_until(b"[vspcctl: on web02, connected]")
    assert (vm.read(4), other.read(5)) == (b"last", b"there")
    other.send(b"welcome")
    menu.read_until(b"welcome")
    assert daemon.wait_clients(vm.name, 0)["lock"] is None
    menu.send(ESCAPE + b"l" + b"\r")
    menu.read_until(b"web02: you have the write lock]")


def test_a_broadcast_goes_to_all_that_a_pattern_means_and_says_so(
    daemon: Daemon, dial: Dial, vm: FakeVm, menu: Menu, stack: ExitStack
) -> None:
    second, third, other = dial(name="web02"), dial(name="web03"), dial(name="db01")
    menu.choose(b"*", b"broadcast to")
    menu.answer(b"web*")
    menu.read_until(b"besides web01: web02, web03]")
    menu.read_until(b"type on 3 consoles, y/N: ")
    menu.answer(b"y")
    menu.read_until(b"BROADCAST: you type on 3 consoles (web*); ^] * ends it]")
    menu.send(b"ls\r")
    assert [each.read(3) for each in (vm, second, third)] == [b"ls\r"] * 3
    vm.send(b"web01$ ")
    menu.read_until(b"web01$ ")
    menu.send(b"w")
    menu.read_until(b"BROADCAST: you type on 3 consoles (web*)]\r\nweb01$ ")
    second.send(b"never shown")
    holder = stack.enter_context(session(daemon, "web03", "--or-read-only"))
    holder.choose(b"t", b"nobody has a lock")
    assert daemon.ctl("kick", "web02", str(known(daemon, "web02")[0]["id"])).returncode == 0
    menu.read_until(b"broadcast without web02: kicked by ")
    holder.send(ESCAPE + b"l\r")
    menu.read_until(b"broadcast without web03: ")
    menu.read_until(b"nobody else is left]")
    menu.send(b"x")
    assert vm.read(2) == b"wx"
    assert (second.read(1), third.read(1), bytes(other.data)) == (b"w", b"w", b"")
    assert not second.data


def test_a_broadcast_that_is_not_confirmed_goes_nowhere(dial: Dial, vm: FakeVm, menu: Menu) -> None:
    second = dial(name="web02")
    menu.choose(b"*", b"broadcast to")
    menu.answer(b"web*")
    menu.read_until(b"y/N: ")
    menu.answer(b"")
    menu.read_until(b"nothing was sent]")
    menu.send(b"x")
    assert vm.read(1) == b"x"
    assert bytes(second.data) == b""


# Escape keys


def test_the_escape_key_of_conserver_can_be_had_from_the_environment(
    daemon: Daemon, vm: FakeVm, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSPCCTL_ESCAPE", "^Ec")
    menu = stack.enter_context(session(daemon, vm.name))
    menu.send(b"\x05x\x05c\x05c\x1d")
    assert vm.read(5) == b"\x05x\x05c\x1d"
    menu.send(b"\x05c.")
    assert menu.wait() == 0


def test_a_wrong_escape_key_in_the_environment_is_named(
    daemon: Daemon, vm: FakeVm, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setenv("VSPCCTL_ESCAPE", "ctrl-x")
    client = stack.enter_context(PtyClient([VSPCCTL, "--root", str(daemon.root), "console", vm.name]))
    client.read_until(b"VSPCCTL_ESCAPE: 'ctrl-x' is not a key")
    assert client.wait() == 2


def test_the_menu_works_in_a_pipe_that_asks_for_it(daemon: Daemon, vm: FakeVm) -> None:
    done = subprocess.run(
        [
            VSPCCTL,
            "--root",
            str(daemon.root),
            "console",
            "--replay",
            "0",
            "-e",
            "^]",
            "--linger",
            "0.3",
            vm.name,
        ],
        input=b"ls\r\x1db\r\x1dlhalf",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, vm.read(3)) == (0, b"ls\r")
    vm.hear(BREAK)
    assert b"[vspcctl: break sent]" in done.stderr
    assert daemon.console(vm.name)["lock"] is None


def test_a_session_that_is_stopped_in_a_question_goes_on_with_it(
    vm: FakeVm, menu: Menu, daemon: Daemon
) -> None:
    menu.choose(b"l", b"lock, reason")
    menu.send(b"half")
    menu.read_until(b"half")
    os.kill(menu.process.pid, signal.SIGTSTP)  # nobody could continue it, so the kernel does not stop it
    menu.read_until(b"half")
    menu.answer(b" done")
    menu.read_until(b"you have the write lock]")
    assert daemon.console(vm.name)["lock"]["reason"] == "half done"
