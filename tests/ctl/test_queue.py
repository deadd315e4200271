"""The control socket's queue is full: vspcctl waits for a place, for a while."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vspcd.ctl.client import Client
from vspcd.ctl.failure import Failure

PATIENCE = 20.0


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A daemon that accepts nobody yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(tmp_path / "control.sock"))
        sock.listen(0)
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture
def first(listener: socket.socket) -> Iterator[socket.socket]:
    """Whoever has the only place in the queue."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(listener.getsockname())
        yield sock


def test_a_tool_gets_the_place_that_becomes_free(listener: socket.socket, first: socket.socket) -> None:
    command = [sys.executable, "-m", "vspcd.ctl.main", "--socket", listener.getsockname(), "status"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tool:
        with pytest.raises(subprocess.TimeoutExpired):
            tool.wait(1)
        listener.accept()[0].close()
        served, _ = listener.accept()
        assert select.select([served], [], [], PATIENCE)[0]
        assert b'"status"' in served.recv(65536)
        served.close()


def test_a_tool_that_gets_no_place_says_that_the_daemon_is_busy(
    listener: socket.socket, first: socket.socket
) -> None:
    with pytest.raises(Failure, match="too busy"), Client(listener.getsockname(), 0.3):
        pass
