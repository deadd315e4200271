"""broadcast -: what stands on standard input is typed on all consoles, as it is."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.ctl.conftest import Terminal, command
from tests.system.conftest import Dial
from tests.system.daemon import VSPCCTL, Daemon


def piped(daemon: Daemon, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """A broadcast of what comes through a pipe."""
    return subprocess.run(
        [VSPCCTL, "--root", str(daemon.root), "broadcast", *words],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_what_comes_through_a_pipe_reaches_all_as_it_is_and_nobody_is_asked(
    daemon: Daemon, dial: Dial
) -> None:
    vms = [dial(name=name) for name in ("web01", "web02")]
    data = b"\x00\\n\xff\r\x1b" * 5000
    done = piped(daemon, data, "web*", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"web01: typed\nweb02: typed\n", b"")
    for vm in vms:
        assert vm.read(len(data)) == data
    assert daemon.ctl("send", "-n", "web01", "!").returncode == 0
    assert vms[0].read(1) == b"!"  # no Enter came in between


def test_an_empty_input_types_nothing(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    assert piped(daemon, b"", "web01", "-").returncode == 0
    assert daemon.ctl("send", "-n", "web01", "!").returncode == 0
    assert vm.read(1) == b"!"


def test_more_than_can_be_broadcast_is_refused_before_anything_is_typed(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    done = piped(daemon, b"x" * ((1 << 20) + 1), "web01", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"more than 1048576 bytes" in done.stderr
    assert daemon.ctl("send", "-n", "web01", "!").returncode == 0
    assert vm.read(1) == b"!"


def test_as_much_as_can_be_broadcast_arrives_whole(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    data = bytes(range(256)) * 4096
    with subprocess.Popen(
        [VSPCCTL, "--root", str(daemon.root), "broadcast", "web01", "-", "--timeout", "50"],
        stdin=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
        assert vm.read(len(data)) == data
        assert process.wait(30) == 0


def test_a_dry_run_and_a_program_are_told_to_whom_it_goes(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    done = piped(daemon, b"x", "--dry-run", "web*", "-")
    assert (done.returncode, done.stdout) == (0, b"web01: would be typed to\n")
    done = piped(daemon, b"y", "--json", "web*", "-")
    assert [(each["name"], each["ok"]) for each in json.loads(done.stdout)["results"]] == [("web01", True)]
    assert vm.read(1) == b"y"


def test_ctrl_c_before_the_input_has_ended_types_nothing(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    terminal = Terminal(command("--root", str(daemon.root), "broadcast", "web01", "-"))
    try:
        terminal.see(b"Ctrl-D")
        terminal.type(b"half a line")
        terminal.see(b"half a line")
        terminal.until_it_reads()
        terminal.type(b"\x03")
        assert terminal.wait() == 130
        assert terminal.is_restored
        assert b"Traceback" not in terminal.output
    finally:
        terminal.close()
    assert daemon.ctl("send", "-n", "web01", "!").returncode == 0
    assert vm.read(1) == b"!"


@pytest.mark.parametrize(("answer", "code", "arrives"), [(b"y\n", 0, b"date\n!"), (b"\n", 1, b"!")])
def test_who_types_it_at_a_terminal_is_asked_afterwards(
    daemon: Daemon, dial: Dial, answer: bytes, code: int, arrives: bytes
) -> None:
    vm = dial(name="web01")
    terminal = Terminal(command("--root", str(daemon.root), "broadcast", "web*", "-"))
    try:
        terminal.see(b"Ctrl-D")
        terminal.type(b"date\n\x04")
        terminal.see(b"Type these 5 bytes on 1 console: web01? [y/N] ")
        terminal.type(answer)
        assert terminal.wait() == code
        assert (b"web01: typed" in terminal.output) == (code == 0)
    finally:
        terminal.close()
    assert daemon.ctl("send", "-n", "web01", "!").returncode == 0
    assert vm.read(len(arrives)) == arrives
