"""The consoles' own sockets and ports when something is in their way: each is tried again, and nothing else suffers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.stage import Stage
from tests.unix.turning import turn
from vspcd import config as configuration
from vspcd import console_listeners as listeners
from vspcd import consoles
from vspcd.portmap.base import Entry
from vspcd.table import Console
from vspcd.unix import listen

SOON = 0.02


class PortStage(Stage):
    """A stage whose consoles have ports, and whose log can be read."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, *overrides: str) -> None:
        super().__init__(root, patch, "ports.enabled=true", "ports.first=0", *overrides)
        patch.setattr(listeners, "RETRY_AFTER", SOON)
        self.log = root / "told"
        told = os.open(self.log, os.O_WRONLY | os.O_CREAT)
        os.dup2(told, self.master.log._fd)
        os.close(told)

    def told(self, event: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if f" {event} " in line]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PortStage]:
    made = PortStage(tmp_path, monkeypatch)
    yield made
    made.close()


def in_the_way(stage: Stage, uuid: str = "5" * 32) -> Path:
    """Where the console's socket should be there is a directory, which is not removed."""
    path = stage.run / f"{Console(uuid, '').id}.sock"
    path.mkdir()
    return path


def new_console(stage: Stage, uuid: str = "5" * 32) -> Console:
    return stage.master.consoles.known({"uuid": uuid, "label": "", "name": "web01"})


def counted(patch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls of a function of ``listen``."""
    calls: list[Any] = []
    real = getattr(listen, name)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    patch.setattr(listen, name, call)
    return calls


def test_a_socket_that_cannot_be_opened_is_tried_again_and_the_port_serves(
    stage: PortStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacle, attempts = in_the_way(stage), counted(monkeypatch, "unix")
    console = new_console(stage)
    stage.until(lambda: len(attempts) > 3)
    assert console.port_open
    socket.create_connection(("127.0.0.1", console.port), 5).close()
    obstacle.rmdir()
    stage.until(lambda: console.unix is not None)
    assert len(console.acceptors) == 2


def test_what_fails_again_and_again_is_tried_once_at_a_time(
    stage: PortStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way(stage)
    monkeypatch.setattr(listen, "tcp", refuse)
    attempts = counted(monkeypatch, "unix")
    new_console(stage)
    end = time.monotonic() + 20 * SOON
    while time.monotonic() < end:
        turn(stage.loop, 0.001)
    assert 3 < len(attempts) < 30


def refuse(_host: str, _port: int) -> socket.socket:
    raise OSError(24, "Too many open files")


def taken_ports(count: int) -> list[socket.socket]:
    """So many sockets in a row of ports that they keep from everybody else."""
    for first in range(20000, 30000, count):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            for sock in held:
                sock.close()
        else:
            return held
    raise AssertionError("so many ports in a row are never free")


def recorded(stage: Stage, patch: pytest.MonkeyPatch, ports: list[int]) -> None:
    """Note the ports that are kept."""
    keeper = stage.master.consoles.keeper
    put = keeper.put

    def note(entry: Entry, kept: Optional[Callable[[], None]] = None) -> None:
        ports.append(entry.port)
        put(entry, kept)

    patch.setattr(keeper, "put", note)


def test_however_many_ports_others_hold_the_next_free_one_is_found_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "ATTEMPTS", 4)
    held, kept = taken_ports(30), list[int]()
    first = held[0].getsockname()[1]
    stage = PortStage(tmp_path, monkeypatch, f"ports.first={first}")
    try:
        recorded(stage, monkeypatch, kept)
        console = new_console(stage)
        stage.until(lambda: console.port_open)
        assert console.port >= first + len(held)
        assert stage.told("no-port") == []
        assert kept[-1] == console.port
    finally:
        stage.close()
        for sock in held:
            sock.close()


def test_a_console_without_a_port_gets_one_as_soon_as_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 65535))
        stage = PortStage(tmp_path, monkeypatch, "ports.first=65535")
        try:
            console, late = new_console(stage), new_console(stage, "6" * 32)
            recorded(stage, monkeypatch, kept)
            stage.until(lambda: len(stage.told("no-port")) >= 4)
            assert "ports.first" in stage.told("no-port")[0]
            assert console.unix is not None
            other.close()
            stage.until(lambda: console.port_open or late.port_open)
            assert kept == [65535]
            winner, loser = (console, late) if console.port_open else (late, console)
            stage.master.consoles.forget(winner)
            stage.until(lambda: loser.port_open)
            attempts = counted(monkeypatch, "tcp")
            later(stage)
            assert attempts == []
        finally:
            stage.close()


def test_a_console_that_waits_for_the_map_is_not_opened_when_everything_ends(
    stage: PortStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consoles, "UNKNOWN_PORT_AFTER", SOON)
    stage.owner()  # whose worker is waited for
    os.kill(stage.master.consoles.keeper.pid, signal.SIGSTOP)
    console = new_console(stage)
    stage.master.stop("test")
    later(stage)
    assert console.unix is console.tcp is None
    assert not (stage.run / f"{console.id}.sock").exists()
    assert stage.told("port-map-slow") == []
    os.kill(stage.master.consoles.keeper.pid, signal.SIGCONT)
    stage.until(lambda: stage.master.consoles.keeper.settled)
    assert console.unix is None


def test_the_map_is_not_blamed_for_a_socket_that_fails(
    stage: PortStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consoles, "UNKNOWN_PORT_AFTER", SOON)
    monkeypatch.setattr(stage.master.consoles.keeper, "put", lambda _entry, kept: kept())
    in_the_way(stage)
    new_console(stage)
    later(stage)
    assert stage.told("no-socket")
    assert stage.told("port-map-slow") == []


def later(stage: Stage) -> None:
    """Several times what anything waits for."""
    end = time.monotonic() + 5 * SOON
    while time.monotonic() < end:
        turn(stage.loop, 0.001)


@pytest.mark.parametrize("spelling", ["*", "", "localhost", "127.0.0.1", "[::1]", "0:0:0:0:0:0:0:1", "::"])
def test_an_address_is_known_again_on_the_socket_that_has_it(spelling: str) -> None:
    """Another version keeps the ports that listen where they should."""
    address = configuration.load(None, [f"ports.address='{spelling}'"]).ports.address
    with listen.tcp(address, 0) as sock:
        assert sock.getsockname()[0] == address
