"""log, grep, tail and replay on what the real daemon writes."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.vm import FakeVm
from tests.system.wait import until


def said(daemon: Daemon, vm: FakeVm, text: bytes) -> None:
    """The VM says something, and it is in the log."""
    vm.send(text)
    until(lambda: daemon.log_file(vm.name).read_bytes().endswith(text), f"{text!r} is in the log")


def test_a_vm_that_is_switched_off_and_on_has_two_boots(daemon: Daemon, dial: Dial) -> None:
    first = dial()
    said(daemon, first, b"first boot\r\n")
    first.close()
    daemon.wait_state(first.name, "waiting")
    second = dial(uuid=first.uuid)
    said(daemon, second, b"second boot\r\n")
    assert daemon.ctl("log", first.name, "--boot", "-1").stdout == "first boot\n"
    assert daemon.ctl("log", first.name, "--boot", "0").stdout == "second boot\n"
    boots = [
        json.loads(line)
        for line in daemon.ctl("log", first.name, "--list-boots", "--json").stdout.splitlines()
    ]
    assert [boot["known_by"] for boot in boots] == [["connected"], ["connected"]]


def test_a_new_connection_of_a_vm_that_was_not_switched_off_is_no_boot(daemon: Daemon, dial: Dial) -> None:
    first = dial()
    said(daemon, first, b"before\r\n")
    daemon.stop()
    daemon.start()
    second = dial(uuid=first.uuid)
    said(daemon, second, b"after\r\n")
    assert daemon.ctl("log", first.name, "--boot", "0").stdout == "before\nafter\n"


def test_all_consoles_are_searched(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("log.max_size=64K", "log.keep=20")
    chatty = stack.enter_context(daemon.dial(name="chatty"))
    quiet = stack.enter_context(daemon.dial(name="quiet"))
    chatty.send(b"the needle\r\n" + b"hay\r\n" * 40_000)
    said(daemon, quiet, b"another needle\r\n")
    daemon.wait_console("chatty", lambda c: bool(c["bytes_in"] == 200_012), "is heard")
    done = daemon.ctl("grep", "needle")
    assert (done.returncode, done.stdout) == (0, "chatty: the needle\nquiet: another needle\n")
    assert daemon.ctl("grep", "-c", "^hay$").stdout == "chatty: 40000\n"
    assert daemon.ctl("grep", "no such line").returncode == 1


def test_many_are_followed_and_new_ones_appear(daemon: Daemon, dial: Dial, tmp_path: Path) -> None:
    said(daemon, dial(name="early"), b"old\r\n")
    output = tmp_path / "tail"
    with output.open("wb") as file:
        tail = subprocess.Popen([VSPCCTL, "--root", str(daemon.root), "tail", "-a"], stdout=file)
    try:
        until(lambda: Path(f"/proc/{tail.pid}/cmdline").read_bytes().count(b"tail"), "it runs")
        late = dial(name="late")

        def seen(text: str) -> bool:
            late.send(b"hello\r\n")
            return text in output.read_text()

        until(lambda: seen("late: hello\n"), "the new console is followed")
    finally:
        tail.terminate()
        tail.wait(timeout=10)
    assert set(output.read_text().splitlines()) == {"late: hello"}


def test_a_log_is_played_and_exported(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    said(daemon, vm, b"one\r\ntwo\r\n")
    assert daemon.ctl("replay", vm.name, "--max-idle", "0").stdout == "one\ntwo\n"
    header, *events = [
        json.loads(line) for line in daemon.ctl("log", vm.name, "--export", "asciicast").stdout.splitlines()
    ]
    assert header["version"] == 2
    assert "".join(event[2] for event in events if event[1] == "o") == "one\r\ntwo\r\n"
    assert [event[2] for event in events if event[1] == "m"] == ["connected"]
