"""State of another version: a newer one is refused or set aside, with what to do; an older one is understood.

``docs/state.md`` lists the files. What is not here is tested beside the code of its file.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.wait import until

NEWER = 1000
TRIGGER = (
    'triggers=[{"name": "panic", "pattern": "panic", "every": "1h", "gather": "1s", "run": ["/bin/true"]}]'
)


def test_a_newer_port_map_ends_the_start_with_what_to_do(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.stop()
    path = daemon.root / "state" / "portmap.db"
    with sqlite3.connect(path) as base:
        base.execute(f"PRAGMA user_version = {NEWER}")
    base.close()
    before = path.read_bytes()
    assert daemon.spawn().wait(timeout=20) == 1
    said = daemon.log()
    assert f"has version {NEWER}, and this vspcd knows versions up to" in said
    assert "upgrade, or move the file away" in said
    assert path.read_bytes() == before


def test_a_version_that_is_older_than_the_port_map_is_no_upgrade(daemon: Daemon) -> None:
    """The keeper has the map open, so its header is looked at beside it."""
    with open(daemon.root / "state" / "portmap.db", "r+b") as file:
        os.pwrite(file.fileno(), NEWER.to_bytes(4, "big"), 60)
    done = daemon.ctl("upgrade", timeout=90)
    assert done.returncode == 1
    assert f"has version {NEWER}" in done.stderr
    assert "upgrade, or move the file away" in done.stderr
    daemon.wait_log("upgrade-refused", f"has version {NEWER}")


def test_a_spool_of_another_version_is_kept_and_told_of(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon()
    with daemon.dial(name="web01") as vm:
        console, uuid = vm.console, vm.uuid
    daemon.wait_state(console, "waiting")
    daemon.stop()
    spool = daemon.root / "run" / "journal" / f"{console}.spool"
    spool.parent.mkdir(exist_ok=True)
    left = b"vspcd-spool-3 {}\nwhat the VM said"
    spool.write_bytes(left)
    daemon.start()
    vm = stack.enter_context(daemon.dial(name="web01", uuid=uuid))
    daemon.wait_log("log-trouble", console, "vspcd-spool-3, this one knows vspcd-spool-2", "other-version")
    assert Path(f"{spool}.other-version").read_bytes() == left
    vm.send(b"goes on")
    until(lambda: daemon.log_file(console).read_bytes() == b"goes on", "the log has it")


def places_of(daemon: Daemon) -> Path:
    return daemon.root / "run" / "triggers.places"


def test_newer_places_of_triggers_are_told_of_and_written_anew(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = started_over(start_daemon, stack, f'{{"version": {NEWER}, "seats": []}}')
    daemon.wait_log(
        "trigger-places-unknown", f"has version {NEWER}, and this vspcd knows 1", "what comes from now on"
    )
    until(lambda: json.loads(places_of(daemon).read_text())["version"] == 1, "the places are ours")


def test_places_of_triggers_without_a_version_are_understood(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = started_over(start_daemon, stack, None)
    daemon.wait_log("triggered", "trigger=panic", "console=")
    assert "trigger-places-unknown" not in daemon.log()


def started_over(start_daemon: StartDaemon, stack: ExitStack, left: object) -> Daemon:
    """A daemon that has found these places after its death; None: its own, without a version."""
    daemon = start_daemon(TRIGGER)
    vm = stack.enter_context(daemon.dial(name="web01"))
    vm.send(b"nothing yet\r\n")
    until(
        lambda: places_of(daemon).exists() and vm.console in places_of(daemon).read_text(), "places are kept"
    )
    for pid in daemon.members():
        os.kill(pid, signal.SIGKILL)
    daemon.wait_end()
    log = daemon.root / "log" / f"{vm.console}.log"
    if left is None:
        left = json.dumps({vm.console: [log.stat().st_ino, log.stat().st_size]})
        with log.open("ab") as file:
            file.write(b"a panic that nobody has seen\r\n")
    places_of(daemon).write_text(str(left))
    daemon.start()
    return daemon
