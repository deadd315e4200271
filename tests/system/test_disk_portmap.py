"""A damaged port map is set aside with a loud word, and the daemon starts without what it cannot trust."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import FakeVm

MAP = "portmap.db"


def port_of(daemon: Daemon, console: str) -> int:
    return int(daemon.wait_open(console)["port"])


def flip_in_row(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"web01") >= 1
    path.write_bytes(data.replace(b"web01", b"web07"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def overwrite(path: Path) -> None:
    path.write_bytes(b"not a database" * 300)


@pytest.mark.parametrize("damage", [flip_in_row, truncate, overwrite])
def test_a_daemon_starts_with_a_damaged_map_and_serves(
    start_daemon: StartDaemon, stack: ExitStack, damage: object
) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial(name="web01"))
    vm.close()
    daemon.wait_state(vm.console, "waiting")
    daemon.stop()
    path = daemon.root / "state" / MAP
    damage(path)  # type: ignore[operator]
    bad = path.read_bytes()
    daemon.start()
    daemon.wait_log("set aside", MAP)
    (aside,) = path.parent.glob(f"{MAP}.damaged-*")
    assert aside.read_bytes() == bad
    again = stack.enter_context(FakeVm(daemon.proxy, name="web01", uuid=vm.uuid).handshake())
    port = port_of(daemon, vm.console)
    again.send(b"here")
    daemon.wait_console(vm.console, lambda c: bool(c["bytes_in"] == 4), "is served")
    daemon.stop()
    daemon.start()
    assert port_of(daemon, vm.console) == port  # the new map is a whole one
