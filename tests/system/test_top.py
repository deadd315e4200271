"""vspcctl top on a terminal and in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import termios
from contextlib import ExitStack

import pytest

from tests.system.clients import PtyClient
from tests.system.conftest import Dial
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.wait import until


def shown(daemon: Daemon, stack: ExitStack, *words: str) -> PtyClient:
    command = [VSPCCTL, "--root", str(daemon.root), "top", "-i", "0.2", *words]
    screen = stack.enter_context(PtyClient(command, 10, 80))
    screen.read_until(b"\x1b[?1049h")
    return screen


@pytest.mark.parametrize(("key", "status"), [(b"q", 0), (b"\x03", 130)])
def test_the_terminal_is_as_it_was(
    key: bytes, status: int, daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    dial(name="web01")
    screen = shown(daemon, stack)
    screen.read_until(b"web01")
    assert screen.terminal() != screen.terminal_before
    screen.send(key)
    assert screen.wait() == status
    assert bytes(screen.seen).rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert screen.terminal() == screen.terminal_before


def test_a_signal_leaves_the_terminal_as_it_was(daemon: Daemon, stack: ExitStack) -> None:
    screen = shown(daemon, stack)
    screen.process.send_signal(signal.SIGTERM)
    assert screen.wait() == 128 + signal.SIGTERM
    assert screen.terminal() == screen.terminal_before


def test_it_fits_the_terminal_and_follows_its_size(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    for number in range(12):
        dial(name=f"web{number:02}")
    screen = shown(daemon, stack, "--sort", "name")
    screen.read_until(b"1-6 of 12 consoles by name")
    fcntl.ioctl(screen._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 60, 0, 0))
    os.kill(screen.process.pid, signal.SIGWINCH)
    screen.read_until(b"1-4 of 12 consoles by name")
    screen.send(b"j")
    screen.read_until(b"2-5 of 12 consoles by name")
    screen.send(b"rc")
    screen.read_until(b"1-4 of 12 consoles by cpu, reversed")


def test_a_daemon_that_goes_is_told_and_waited_for(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    screen = shown(daemon, stack)
    screen.read_until(b"0 consoles")
    daemon.stop()
    screen.read_until(b"no answer: the daemon is not running")
    daemon.start()
    screen.read_until(b"0 consoles")


def test_in_a_pipe_it_is_a_plain_table(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01")
    done = daemon.ctl("top", "-i", "0.2")
    assert done.returncode == 0
    first, heading, row = done.stdout.splitlines()
    assert "1 of 1 connected" in first
    assert heading.split()[:3] == ["NAME", "STATE", "IN/s"]
    assert row.split()[:2] == ["web01", "connected"]
    assert "\x1b" not in done.stdout


def test_for_programs(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    vm.send(b"hello")
    until(lambda: daemon.console(vm.name)["bytes_in"] == 5, "the VM was heard")
    answer = json.loads(daemon.ctl("top", "--json", "-i", "0.2").stdout)
    assert answer["master"]["pid"] == daemon.pid
    (console,) = answer["consoles"]
    assert (console["name"], console["bytes_in"], console["bytes_in_rate"]) == ("web01", 5, 0)
    assert console["cpu"] is not None


def test_without_a_daemon_it_says_so(daemon: Daemon, stack: ExitStack) -> None:
    daemon.stop()
    client = stack.enter_context(PtyClient([VSPCCTL, "--root", str(daemon.root), "top"]))
    assert client.wait() == 4
    assert b"\x1b[?1049h" not in client.seen
