"""The log of a console holds what the VM said, whatever rotates it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

from tests.system.clients import UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import numbered
from tests.system.wait import until

KIB = 1024


def parts(log: Path) -> list[Path]:
    """The log and its rotated predecessors, the oldest first."""
    rotated = [path for path in log.parent.glob(f"{log.name}.*") if path.suffix[1:].isdigit()]
    return [*sorted(rotated, key=lambda path: -int(path.suffix[1:])), log]


def joined(log: Path) -> bytes:
    return b"".join(map(content, parts(log)))


def content(path: Path) -> bytes:
    """What is in a file, which may just have been given another name."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_log_is_rotated_at_its_size(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("log.max_size=64K", "log.keep=20")
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.name)
    said = numbered(0, 6400)
    for at in range(0, len(said), 8 * KIB):
        vm.send(said[at : at + 8 * KIB])
    until(lambda: joined(log) == said, "the logs together hold all that was said")
    assert [path for path in parts(log) if path.stat().st_size > 64 * KIB] == []
    assert len(parts(log)) >= 7


def test_oldest_rotated_logs_are_dropped(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("log.max_size=64K", "log.keep=2")
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.name)
    said = numbered(0, 6400)
    vm.send(said)
    daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == len(said)), "is heard")
    until(lambda: joined(log)[-64:] == said[-64:], "the last line is in the log")
    assert [path.name for path in parts(log)] == [f"{log.name}.2", f"{log.name}.1", log.name]
    assert said.endswith(joined(log))


def test_rename_and_sighup_lose_nothing(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    log = daemon.log_file(vm.name)
    said = numbered(0, 4000)
    moved = []
    for turn in range(4):
        vm.send(said[turn * 64000 : (turn + 1) * 64000])
        until(lambda: log.exists() and log.stat().st_size > 0, "something is in the log")
        moved.append(log.with_suffix(f".moved{turn}"))
        log.rename(moved[-1])
        daemon.signal(signal.SIGHUP)
        until(log.exists, "the log is opened again")
    until(lambda: b"".join(path.read_bytes() for path in [*moved, log]) == said, "nothing is lost")


def test_sighup_reopens_the_log_of_a_console_whose_vm_is_silent(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    log = daemon.log_file(vm.name)
    until(log.exists, "the log is open")
    log.rename(log.with_suffix(".old"))
    daemon.signal(signal.SIGHUP)
    until(log.exists, "the log is opened again")


def test_without_logs_nothing_is_written_and_the_console_works(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("log.dir=off")
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    vm.send(b"only said")
    assert client.read(9) == b"only said"
    assert daemon.console(vm.name)["log"] is None
    assert [path for path in (daemon.root / "log").rglob("*") if path.is_file()] == []


def test_log_is_written_before_a_client_sees_the_bytes(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    log = daemon.log_file(vm.name)
    daemon.wait_clients(vm.name, 1)
    for number in range(200):
        vm.send(numbered(number, 1))
        client.read(64)
        assert log.stat().st_size == 64 * (number + 1)


def test_log_shows_through_vspcctl(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.send(b"one\r\ntwo\r\nthree\r\n")
    daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 17), "is heard")
    done = daemon.ctl("log", vm.name, "-n", "2")
    assert (done.returncode, done.stdout.split()) == (0, ["two", "three"])


def test_console_bytes_never_reach_the_daemons_own_log(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    vm.send(b"the-secret-word")
    client.read(15)
    client.send(b"the-secret-answer")
    vm.read(17)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    assert "the-secret" not in daemon.log()
