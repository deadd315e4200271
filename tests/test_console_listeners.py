"""The consoles' own sockets and ports when something is in their way: each is tried again, and nothing else suffers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stage import Stage
from tests.unix.turning import turn
from vspcd import console_listeners as listeners
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
