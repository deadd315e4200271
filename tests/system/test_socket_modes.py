"""Who may use the sockets: mode and group of those that are there follow the configuration."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon

OTHER_GROUP = (
    12345 if os.geteuid() == 0 else next((each for each in os.getgroups() if each != os.getegid()), 0)
)


def access(daemon: Daemon, console: str) -> set[tuple[str, int]]:
    """Mode and group of the console's socket and of the tools'."""
    found = [
        Path(path).stat() for path in (daemon.socket_path(console), daemon.root / "run" / "control.sock")
    ]
    return {(oct(stat.S_IMODE(each.st_mode)), each.st_gid) for each in found}


def reloads(daemon: Daemon) -> None:
    done = daemon.ctl("reload")
    assert done.returncode == 0, done.stderr


def upgrades(daemon: Daemon) -> None:
    done = daemon.ctl("upgrade", timeout=90)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not OTHER_GROUP, reason="needs a second group that a file can be given to")
@pytest.mark.parametrize("apply", [reloads, upgrades])
def test_modes_and_groups_of_all_sockets_follow_the_configuration(
    apply: Callable[[Daemon], None], root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    config = root / "vspcd.yaml"
    config.write_text("sockets: {mode: '0660'}\n")
    daemon = start_daemon(config=config)
    vm = stack.enter_context(daemon.dial(name="web01"))
    own = os.getegid()
    assert access(daemon, vm.console) == {("0o660", own)}
    config.write_text(f"sockets: {{mode: '0640', group: '{OTHER_GROUP}'}}\n")
    apply(daemon)
    assert access(daemon, vm.console) == {("0o640", OTHER_GROUP)}
    config.write_text("sockets: {mode: '0600'}\n")
    apply(daemon)
    assert access(daemon, vm.console) == {("0o600", own)}
