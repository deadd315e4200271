"""Attacks that worked on other concentrators and need no story of their own. The others are named test_attack_…"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import numbered
from tests.system.wait import throughout, until

LOOK = 0.5
PASSWD = Path("/etc/passwd").read_bytes()[:20]


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def told(address: tuple[str, int], words: bytes) -> bytes:
    """What a door answers to some words, until it closes or has been silent for a while."""
    heard = b""
    with socket.create_connection(address, timeout=LOOK) as sock:
        try:
            sock.sendall(words)
            while data := sock.recv(65536):
                heard += data
        except (ConnectionError, socket.timeout):
            pass
    return heard


DOORS: dict[str, Callable[[Daemon], tuple[str, int]]] = {
    "proxy": lambda daemon: daemon.proxy,
    "admin": lambda daemon: daemon.listener("admin"),
    "port": lambda daemon: daemon.port("web01"),
}


def test_the_trap_springs_when_it_is_unpickled(tmp_path: Path) -> None:
    """What the tests below rely on."""
    trap = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()


@pytest.mark.parametrize("door", list(DOORS))
def test_attack_pickle_with_a_call_in_it(door: str, daemon: Daemon, dial: Dial, tmp_path: Path) -> None:
    vm = dial()
    trap = tmp_path / "sprung"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        told(DOORS[door](daemon), pickle.dumps(Trap(trap), protocol))
    assert not trap.exists()
    assert daemon.console(vm.name)["state"] == "connected"


def test_attack_pickle_on_the_control_socket(daemon: Daemon, dial: Dial, tmp_path: Path) -> None:
    vm = dial()
    trap = tmp_path / "sprung"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.settimeout(20)
        control.connect(str(daemon.root / "run" / "control.sock"))
        control.send(pickle.dumps(Trap(trap)))
        assert b'"ok"' not in control.recv(65536)
    assert not trap.exists()
    assert daemon.console(vm.name)["state"] == "connected"


@pytest.mark.parametrize("door", list(DOORS))
def test_attack_path_in_a_request(door: str, daemon: Daemon, dial: Dial) -> None:
    dial()
    for path in ("/console_log/..%2F..%2Fetc%2Fpasswd", "/console_log/../../etc/passwd", "//etc/passwd"):
        assert PASSWD not in told(DOORS[door](daemon), f"GET {path} HTTP/1.0\r\n\r\n".encode())


@pytest.mark.parametrize("command", ["log", "status", "forget"])
def test_attack_path_in_the_place_of_a_console(command: str, daemon: Daemon) -> None:
    for name in ("../../../../etc/passwd", "/etc/passwd", "../../run/vspcd.pid"):
        done = daemon.ctl(command, name)
        assert done.returncode != 0
        assert PASSWD.decode() not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert (daemon.root / "run" / "vspcd.pid").exists()


def test_attack_all_processes_killed_right_after_a_client_saw_the_output(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    """The log file was empty two seconds later: it has what the client saw."""
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    log = daemon.log_file(vm.name)
    daemon.wait_clients(vm.name, 1)
    vm.send(numbered(0, 100))
    seen = client.read(6400)
    daemon.clean_up()
    assert log.read_bytes() == seen


def test_attack_silent_connection_to_a_console_port(start_daemon: StartDaemon, stack: ExitStack) -> None:
    """Whoever says nothing costs the others nothing: no wait, and no work."""
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial())
    for _ in range(20):
        stack.enter_context(socket.create_connection(daemon.port(vm.name), timeout=10))
    daemon.wait_clients(vm.name, 20)
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    client.send(b"?")
    assert vm.read(1) == b"?"
    throughout(lambda: True, 2)  # they were offered telnet, and have not answered
    before = processes.wake_ups(daemon.worker(vm.name))
    throughout(lambda: True, LOOK)
    until(lambda: processes.wake_ups(daemon.worker(vm.name)) - before < 5, "the worker sleeps", 1)
