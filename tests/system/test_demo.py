"""`make demo` as a newcomer meets it: what it prints works, and Ctrl-C ends it all."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import PtyClient
from tests.system.daemon import Daemon
from tests.system.wait import until

CHECKOUT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "vspcd.demo"]
MAKEFILE = "demo:\n\t@" + shlex.join(DEMO) + "\n"
UNPRIVILEGED = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
READY = b"Ctrl-C here ends it all"


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run the demo in, with the shell of whoever runs the tests out of the way."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    return root


@pytest.fixture
def demo(here: Path, stack: ExitStack) -> PtyClient:
    return start(DEMO, stack)


def start(command: list[str], stack: ExitStack) -> PtyClient:
    """The demo's processes have sessions of their own, so its end must be waited for, whatever the test did."""
    client = stack.enter_context(PtyClient(command))
    stack.callback(end, client)
    return client


def end(client: PtyClient) -> None:
    started = descendants(client.process.pid)
    try:
        if client.process.poll() is None:
            client.process.terminate()
        client.wait()
    finally:
        for pid in started:
            processes.kill(pid)


def guide(demo: PtyClient) -> bytes:
    return demo.read_until(READY)


def clients(root: Path) -> int:
    return len(Daemon(root / ".demo").console("demo")["clients"])


def descendants(pid: int) -> list[int]:
    """Living processes that stem from pid, whatever session they are in."""
    children = processes.children(pid)
    return children + [found for child in children for found in descendants(child)]


@pytest.mark.parametrize("tool", ["vspcctl", "telnet", "socat"])
def test_printed_command_opens_the_console(tool: str, demo: PtyClient, root: Path, stack: ExitStack) -> None:
    lines = [line.strip() for line in guide(demo).decode().splitlines()]
    command = next(line for line in lines if re.match(rf"(\S*/)?{tool} .*(console|127\.0\.0\.1|UNIX)", line))
    client = stack.enter_context(PtyClient(["sh", "-c", command]))
    until(lambda: clients(root) == 1, "the client is attached")
    client.send(b"\r")
    client.read_until(re.compile(rb"[$#] "))
    client.send(b"echo $((6*7)) is the answer\r")
    client.read_until(b"42 is the answer")


def test_control_c_ends_everything_with_status_0_and_no_traceback(demo: PtyClient) -> None:
    guide(demo)
    started = descendants(demo.process.pid)
    demo.send(b"\x03")
    assert demo.wait() == 0, bytes(demo.seen)
    assert b"Traceback" not in bytes(demo.seen)
    assert len(started) >= 4
    until(lambda: not any(map(processes.session_of, started)), "every process has ended", 10)


def test_control_c_in_the_middle_of_the_start_ends_everything(demo: PtyClient) -> None:
    until(lambda: descendants(demo.process.pid), "something is started")
    started = descendants(demo.process.pid)
    demo.send(b"\x03")
    assert demo.wait() == 0, bytes(demo.seen)
    assert b"Traceback" not in bytes(demo.seen)
    until(lambda: not any(map(processes.session_of, started)), "every process has ended", 10)


def test_make_reports_no_error_after_control_c(here: Path, stack: ExitStack) -> None:
    (here / "Makefile").write_text(MAKEFILE)
    make = start(["make", "demo"], stack)
    guide(make)
    make.send(b"\x03")
    assert make.wait() == 0
    assert b"Error" not in bytes(make.seen)


def test_termination_ends_everything(demo: PtyClient) -> None:
    guide(demo)
    started = descendants(demo.process.pid)
    os.kill(demo.process.pid, signal.SIGTERM)
    assert demo.wait() == 0, bytes(demo.seen)
    until(lambda: not any(map(processes.session_of, started)), "every process has ended", 10)


def test_second_demo_in_one_folder_says_why_it_cannot_start(demo: PtyClient) -> None:
    guide(demo)
    second = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "is another demo running here?" in second.stderr
    assert "Traceback" not in second.stderr


def test_demo_needs_no_root_rights(here: Path, stack: ExitStack) -> None:
    """In a user namespace the process is uid 65534 without any capability, yet may read what we may read."""
    demo = start([*UNPRIVILEGED, *DEMO], stack)
    guide(demo)
    demo.send(b"\x03")
    assert demo.wait() == 0, bytes(demo.seen)
