"""A worker that takes all the memory it can get: it dies alone, and another one goes on where it was."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.daemon import VSPCD, Daemon
from tests.system.pressure import exchange, peak_bytes
from tests.system.vm import FakeVm
from tests.system.wait import until

MIB = 1 << 20
ROOM = 16 * MIB
BEGINS_WITH = 48 * MIB  # what a worker shares with the master, and a little
POINT = "leg.peeked"


class GreedyDaemon(Daemon):
    """The real daemon, whose workers can be told to eat memory."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, f"workers.memory={ROOM}")
        self._points = root / "points"
        self._points.mkdir()

    def command(self) -> list[str]:
        command = super().command()
        assert command[0] == VSPCD
        return ["env", f"VSPCD_FAILPOINTS={self._points}", *command]

    def eat(self) -> None:
        """Whichever worker looks at its VM next eats all it can."""
        (self._points / POINT).write_text("eat")

    def eaten(self) -> bool:
        return not (self._points / POINT).exists()


class Scene(NamedTuple):
    vm: FakeVm
    raw: TcpClient
    unix: UnixClient


@pytest.fixture
def daemon(root: Path, stack: ExitStack) -> GreedyDaemon:
    daemon = GreedyDaemon(root)
    stack.callback(daemon.clean_up)
    daemon.start()
    return daemon


@pytest.fixture
def scene(daemon: GreedyDaemon, stack: ExitStack) -> Scene:
    vm = stack.enter_context(daemon.dial())
    raw = stack.enter_context(TcpClient(daemon.port(vm.name)))
    exchange(raw, vm)
    unix = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 2)
    return Scene(vm, raw, unix)


def runs_wild(daemon: GreedyDaemon, vm: FakeVm, words: bytes) -> int:
    """The console's worker sees these words, eats, and is replaced; its pid."""
    pid = daemon.worker(vm.name)
    daemon.eat()
    vm.send(words)
    until(daemon.eaten, "the worker runs wild")
    until(lambda: (daemon.console(vm.name)["worker"] or {"pid": pid})["pid"] != pid, "another one goes on")
    return pid


def test_nothing_is_lost_of_what_it_ran_wild_over(daemon: GreedyDaemon, scene: Scene) -> None:
    runs_wild(daemon, scene.vm, b"what it ran wild over")
    assert scene.raw.read(21) == b"what it ran wild over"
    assert scene.unix.read(21) == b"what it ran wild over"
    assert daemon.log_file(scene.vm.name).read_bytes().endswith(b"what it ran wild over")
    exchange(scene.raw, scene.vm, b"and goes on")


def test_the_reason_is_in_the_log(daemon: GreedyDaemon, scene: Scene) -> None:
    pid = runs_wild(daemon, scene.vm, b"x")
    daemon.wait_log("worker-replaced", f"pid={pid}", "ran out of memory")


def test_it_never_has_more_than_it_may(daemon: GreedyDaemon, scene: Scene, stack: ExitStack) -> None:
    """Watched by its peak until it is gone."""
    pid = daemon.worker(scene.vm.name)
    peaks = [peak_bytes(pid)]
    daemon.eat()
    scene.vm.send(b"x")
    while processes.title(pid):
        try:
            peaks.append(peak_bytes(pid))
        except StopIteration:
            break  # it has gone in between
    assert max(peaks) < BEGINS_WITH + ROOM


def test_another_console_feels_nothing(daemon: GreedyDaemon, scene: Scene, stack: ExitStack) -> None:
    other = stack.enter_context(daemon.dial(name="other"))
    client = stack.enter_context(UnixClient(daemon.socket_path("other")))
    daemon.wait_clients("other", 1)
    daemon.eat()
    scene.vm.send(b"x")
    times = [exchange(client, other) for _ in range(200)]
    assert daemon.eaten()
    assert max(times) < 1


def test_with_the_limit_at_work_all_clients_are_served(daemon: GreedyDaemon, stack: ExitStack) -> None:
    """The smallest limit that can be set is enough for a console with as many clients as it may have."""
    vm = stack.enter_context(daemon.dial())
    address = daemon.port(vm.name)
    clients = [stack.enter_context(TcpClient(address, receive_buffer=4096)) for _ in range(64)]
    for client in clients:
        client.send(b"!")
    assert vm.read(64) == b"!" * 64
    pid = daemon.worker(vm.name)
    piece = b"0123456789abcdef" * 4096
    for _ in range(64):
        vm.send(piece)
    for client in clients:
        assert client.read(64 * len(piece)) == piece * 64
    assert daemon.worker(vm.name) == pid
