"""What systemd is told: through a socket such as its own, from a loop that turns."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from vspcd.notices import SHARE, Notices
from vspcd.table import Console, LegRecord, Table
from vspcd.unix.loop import Loop

PATIENCE = 0.06
ADDRESSES = ["[::]:13370"]


class Systemd:
    """Its side: a socket, and what came through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()
        self.path.unlink()

    def heard(self) -> Optional[list[str]]:
        """The lines of one message; None when there is none."""
        try:
            return self.socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return None

    def all_heard(self) -> list[str]:
        return [line for message in iter(self.heard, None) for line in message]


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory() as folder:
        made = Systemd(Path(folder, "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(PATIENCE * 1e6)))
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield made
        made.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def turn(loop: Loop, times: int = 1) -> None:
    """Turns, each of which ends with the next timer."""
    for _ in range(times):
        loop.turn()


def fill(other: socket.socket, systemd: Systemd) -> None:
    """Say so much that there is room for nothing more."""
    try:
        while True:
            other.sendto(b"X", str(systemd.path))
    except BlockingIOError:
        return


def console(number: int, connected: bool) -> Console:
    made = Console(uuid=f"{number:032x}", label="")
    if connected:
        made.leg = LegRecord(number, "192.0.2.1:1", socket.socket(), 0.0)
    return made


def test_readiness_comes_with_a_status(systemd: Systemd, loop: Loop) -> None:
    table = Table()
    for number in range(3):
        table.add(console(number, connected=number > 0))
    notices = Notices(loop, table)
    assert systemd.heard() is None
    notices.ready(ADDRESSES)
    ready, status, _watchdog = systemd.heard() or []
    assert ready == "READY=1"
    assert status == "STATUS=3 consoles, 2 connected, 0 clients; VMs dial [::]:13370"


def test_a_start_that_waits_for_others_says_so(systemd: Systemd, loop: Loop) -> None:
    notices = Notices(loop, Table())
    notices.waiting(1234)
    assert systemd.heard() == ["STATUS=Waiting for 1,234 processes of the daemon before"]
    notices.ready(ADDRESSES)
    assert (systemd.heard() or [])[:2] == [
        "READY=1",
        "STATUS=0 consoles, 0 connected, 0 clients; VMs dial [::]:13370",
    ]


def test_status_is_told_when_it_has_changed_and_not_before(systemd: Systemd, loop: Loop) -> None:
    table = Table()
    Notices(loop, table).ready(ADDRESSES)
    systemd.all_heard()
    turn(loop, 4)
    assert set(systemd.all_heard()) == {"WATCHDOG=1"}
    table.add(console(1, connected=True))
    assert systemd.all_heard() == []
    turn(loop, 4)
    statuses = [line for line in systemd.all_heard() if line != "WATCHDOG=1"]
    assert statuses == ["STATUS=1 console, 1 connected, 0 clients; VMs dial [::]:13370"]


def test_thousands_can_be_read() -> None:
    table = Table()
    for number in range(1234):
        table.add(console(number, connected=False))
    assert Notices(Loop(), table).status().startswith("1,234 consoles, 0 connected")


def test_the_watchdog_is_fed_often_enough_while_the_loop_turns_and_never_when_it_does_not(
    systemd: Systemd, loop: Loop
) -> None:
    Notices(loop, Table()).ready(ADDRESSES)
    systemd.all_heard()
    due = loop._timeout()
    assert due is not None
    assert due <= PATIENCE / SHARE
    turn(loop, 10)
    fed = systemd.all_heard().count("WATCHDOG=1")
    assert 9 <= fed <= 10
    time.sleep(2 * PATIENCE)
    assert systemd.all_heard() == []


@pytest.mark.parametrize(("variable", "value"), [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "0")])
def test_a_watchdog_that_is_not_for_us_is_not_fed(
    systemd: Systemd, loop: Loop, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    Notices(loop, Table()).ready(ADDRESSES)
    assert "WATCHDOG=1" not in systemd.all_heard()


def test_without_systemd_nothing_ever_wakes_the_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notices = Notices(loop, Table())
    notices.ready(ADDRESSES)
    notices.stopping()
    assert loop._timeout() is None


def test_the_end_is_told_at_once(systemd: Systemd, loop: Loop) -> None:
    notices = Notices(loop, Table())
    notices.ready(ADDRESSES)
    systemd.all_heard()
    notices.stopping()
    assert (systemd.heard() or [])[:2] == ["STOPPING=1", "STATUS=Ending 0 consoles, 0 connected"]


def test_nobody_waits_for_a_systemd_that_does_not_listen_and_it_hears_of_readiness_later(
    systemd: Systemd, loop: Loop
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        fill(other, systemd)
        began = time.monotonic()
        Notices(loop, Table()).ready(ADDRESSES)
        turn(loop)
        assert time.monotonic() - began < 1
    assert set(systemd.all_heard()) == {"X"}
    turn(loop, 2)
    assert systemd.all_heard()[0] == "READY=1"


def test_a_socket_that_was_made_anew_is_found(systemd: Systemd, loop: Loop) -> None:
    Notices(loop, Table()).ready(ADDRESSES)
    systemd.close()
    turn(loop, 2)
    systemd.open()
    turn(loop, 3)
    assert "WATCHDOG=1" in systemd.all_heard()
