"""What log.sync promises, and what is kept of a console that has no log."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.disks import joined
from tests.system.payload import numbered
from tests.system.wait import until

KIB = 1024


@pytest.fixture
def points(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of armed failpoints."""
    folder = root / "points"
    folder.mkdir()
    monkeypatch.setenv("VSPCD_FAILPOINTS", str(folder))
    return folder


def is_stopped(pid: int) -> bool:
    return (processes.read(pid, "stat") or "").rpartition(")")[2].split()[:1] == ["T"]


@pytest.mark.parametrize("point", ["log.sync", "log.synced"])
def test_with_sync_always_a_client_sees_nothing_before_the_disk_has_it(
    points: Path, start_daemon: StartDaemon, stack: ExitStack, point: str
) -> None:
    daemon = start_daemon("log.sync=always")
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.console)))
    daemon.wait_clients(vm.console, 1)
    worker = daemon.worker(vm.console)
    (points / point).write_text("stop")
    vm.send(b"on the disk first")
    until(lambda: is_stopped(worker), "the worker stands still around its sync")
    assert joined(daemon.log_file(vm.console)) == b"on the disk first"
    assert client.quiet(0.3) == b""
    os.kill(worker, signal.SIGCONT)
    assert client.read(17) == b"on the disk first"


@pytest.mark.parametrize("sync", ["interval", "never"])
def test_otherwise_nobody_waits_for_the_disk(
    points: Path, start_daemon: StartDaemon, stack: ExitStack, sync: str
) -> None:
    daemon = start_daemon(f"log.sync={sync}")
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.console)))
    daemon.wait_clients(vm.console, 1)
    (points / "log.sync").write_text("stop")
    vm.send(b"seen at once")
    assert client.read(12) == b"seen at once"
    assert (points / "log.sync").exists()


def test_without_a_log_a_lagging_client_loses_nothing_by_the_death_of_the_worker(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("log.dir=off")
    vm = stack.enter_context(daemon.dial())
    sleeper = stack.enter_context(TcpClient(daemon.port(vm.console), receive_buffer=4096))
    sleeper.send(b"!")
    assert vm.read(1) == b"!"
    reader = stack.enter_context(UnixClient(daemon.socket_path(vm.console)))
    daemon.wait_clients(vm.console, 2)
    said = b""
    while max(client["lag"] for client in daemon.console(vm.console)["clients"]) < 150 * KIB:
        more = numbered(len(said) // 64, KIB)
        said += more
        vm.send(more)
        assert reader.read(len(more)) == more
    pid = daemon.worker(vm.console)
    processes.kill(pid)
    until(lambda: (daemon.console(vm.console)["worker"] or {"pid": pid})["pid"] != pid, "another goes on")
    assert sleeper.read(len(said)) == said
    assert daemon.console(vm.console)["log"] is None


def test_without_a_log_what_is_kept_for_clients_is_small_and_goes_with_the_console(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("log.dir=off")
    kept = daemon.root / "run" / "journal"
    vm = stack.enter_context(daemon.dial())
    vm.send(numbered(0, 64 * KIB))
    daemon.wait_console(vm.console, lambda c: bool(c["bytes_in"] == 64 * 64 * KIB), "is heard")
    sizes = [path.stat().st_size for path in kept.iterdir()]
    assert 256 * KIB <= sum(sizes) <= 512 * KIB
    assert kept.stat().st_mode & 0o777 == 0o700
    vm.close()
    until(lambda: not list(kept.iterdir()), "nothing is kept when nobody is there")
