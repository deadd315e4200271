"""Hooks with the real daemon: what starts them, and that no hook does harm to consoles or the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import VSPCD, Daemon
from tests.system.vm import FakeVm
from tests.system.wait import until

TITLE = "vspcd: hooks"
ALL = "connected, disconnected, renamed, moved, expired, forgotten, attached, detached, quarantined, parked"


def script(root: Path, text: str) -> Path:
    path = root / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def noting(root: Path) -> Path:
    """A hook that writes down each event's facts."""
    return script(root, f'read -r facts; printf "%s\\n" "$facts" >> {root}/events')


def rule(path: Path, events: str = ALL, more: str = "") -> str:
    return f"hooks.rules=[{{events: [{events}], run: {path}{more}}}]"


def at_work(vm: FakeVm, client: UnixClient) -> UnixClient:
    """Wait until the console's worker has the client: what the VM says from now on reaches it."""
    client.send(b"!")
    vm.until(lambda: vm.data.endswith(b"!"), "the client is on the console")
    return client


def events(root: Path) -> list[dict[str, Any]]:
    path = root / "events"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def wait_event(root: Path, event: str) -> dict[str, Any]:
    return until(
        lambda: next((each for each in events(root) if each["event"] == event), None), f"{event} has its hook"
    )


@contextmanager
def opened(gate: Path) -> Iterator[Callable[[str], int]]:
    """The writing end of a FIFO, for those who read it now and later."""
    fd = os.open(gate, os.O_RDWR)
    try:
        yield lambda text: os.write(fd, text.encode())
    finally:
        os.close(fd)


def helper(daemon: Daemon) -> int:
    """The hooks process of a daemon."""
    found = until(
        lambda: [pid for pid in processes.children(daemon.pid) if processes.title(pid) == TITLE],
        "the hooks process is there",
    )
    return found[0]


def test_each_event_of_a_console_has_its_hook(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(rule(noting(root)), "ports.expire=300ms")
    vm = daemon.dial(name="web01")
    address = vm.address
    wait_event(root, "connected")
    with UnixClient(daemon.socket_path("web01")):
        wait_event(root, "attached")
    wait_event(root, "detached")
    vm.rename("web02")
    wait_event(root, "renamed")
    vm.close()
    wait_event(root, "disconnected")
    wait_event(root, "expired")
    found = {each["event"]: each for each in events(root)}
    assert all(each["console"] == vm.console for each in found.values())
    assert (found["renamed"]["old"], found["renamed"]["name"]) == ("web01", "web02")
    assert found["connected"]["peer"] == address
    assert (found["attached"]["kind"], found["attached"]["uid"]) == ("raw", os.getuid())
    assert "closed" in found["disconnected"]["reason"]


def test_forgetting_by_hand_is_no_expiry(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(rule(noting(root)))
    daemon.dial(name="web01").close()
    daemon.wait_state("web01", "waiting")
    until(lambda: daemon.ctl("forget", "web01").returncode == 0, "it is forgotten")
    wait_event(root, "forgotten")
    assert "expired" not in [each["event"] for each in events(root)]


def test_a_hook_is_for_its_consoles_and_events_alone(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(rule(noting(root), "connected, disconnected", ", consoles: ['db*', '!db2']"))
    for name in ("web01", "db2", "db1"):
        with daemon.dial(name=name):
            pass
        daemon.wait_state(name, "waiting")
    until(lambda: len(events(root)) == 2, "two events have their hooks")
    assert [(each["event"], each["name"]) for each in events(root)] == [
        ("connected", "db1"),
        ("disconnected", "db1"),
    ]


def test_a_name_that_looks_like_a_command_is_data(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(rule(script(root, f'read facts; echo "$VSPC_NAME" > {root}/name'), "connected"))
    name = f"$(touch {root}/harm);`touch {root}/harm`"
    with daemon.dial(name=name):
        until(lambda: (root / "name").exists() and (root / "name").read_text(), "the hook has run")
    assert (root / "name").read_text() == name + "\n"
    assert not (root / "harm").exists()


def test_hooks_that_hang_fork_and_print_leave_the_consoles_alone(
    root: Path, start_daemon: StartDaemon
) -> None:
    hang = script(root, f"yes | head -c 10485760; sleep 600 & echo $! >> {root}/pids; sleep 600")
    daemon = start_daemon(rule(hang, "connected", ", timeout: 1s"), "hooks.concurrency=2")
    with daemon.dial(name="web01") as vm, UnixClient(daemon.socket_path("web01")) as client:
        until((root / "pids").exists, "the hook runs")
        at_work(vm, client)
        vm.send(b"still here\r\n")
        client.read_until(b"still here\r\n")
        daemon.wait_log("hook-failed", "more than 1 s")
    for pid in (root / "pids").read_text().split():
        until(lambda pid=pid: processes.state(int(pid)) in (None, "Z"), "its child is dead")  # type: ignore[misc]


def test_a_flood_of_events_is_bounded_and_counted(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        rule(script(root, "sleep 600"), "attached, detached", ", timeout: 2s"), "hooks.queue=5"
    )
    with daemon.dial(name="web01") as vm:
        for _ in range(20):
            with UnixClient(daemon.socket_path("web01")) as client:
                daemon.wait_clients("web01", 1)
                at_work(vm, client)
            daemon.wait_clients("web01", 0)
        daemon.wait_log("hooks-behind", "limit=5")
        daemon.wait_log("hook-events-dropped", "count=35")


def test_events_live_through_the_death_of_the_process_that_runs_hooks(
    root: Path, start_daemon: StartDaemon
) -> None:
    gate = root / "gate"
    os.mkfifo(gate)
    waiting = script(
        root, f'read facts; echo "$$" >> {root}/pids; read x < {gate}; echo "$facts" >> {root}/events'
    )
    daemon = start_daemon(rule(waiting, "connected, disconnected"), "hooks.concurrency=1")
    with daemon.dial(name="web01"):
        until((root / "pids").exists, "the first one runs")
    daemon.wait_state("web01", "waiting")
    before = helper(daemon)
    processes.kill(before)
    daemon.wait_log("hooks-process-died", "SIGKILL")
    until(lambda: helper(daemon) != before, "there is another one")
    with opened(gate) as write:
        write("\n\n")
        wait_event(root, "disconnected")
    assert [each["event"] for each in events(root)] == ["connected", "disconnected"]
    assert len((root / "pids").read_text().split()) == 2


@pytest.mark.parametrize("number", [signal.SIGSTOP])
def test_a_hooks_process_that_hangs_is_replaced(
    root: Path, start_daemon: StartDaemon, number: signal.Signals
) -> None:
    daemon = start_daemon(rule(noting(root), "connected"))
    os.kill(helper(daemon), number)
    with daemon.dial(name="web01"):
        daemon.wait_log("hooks-process-killed", "hung")
        wait_event(root, "connected")


def test_an_upgrade_and_the_masters_death_lose_no_event(root: Path, start_daemon: StartDaemon) -> None:
    gate = root / "gate"
    os.mkfifo(gate)
    slow = script(root, f'read facts; read x < {gate}; echo "$facts" >> {root}/events')
    daemon = start_daemon(rule(slow, "connected"))
    with daemon.dial(name="web01"), daemon.dial(name="web02"):
        assert daemon.ctl("upgrade").returncode == 0
        with daemon.dial(name="web03"):
            daemon.wait_state("web03", "connected")
            processes.kill(daemon.pid)
            daemon.wait_end()
            daemon.start()
            with opened(gate) as write:
                write("\n\n\n")
                until(lambda: len(events(root)) == 3, "all have had their hook")
    assert sorted(each["name"] for each in events(root)) == ["web01", "web02", "web03"]


def test_a_reload_brings_hooks_and_takes_them_away(root: Path, start_daemon: StartDaemon) -> None:
    config = root / "vspcd.yaml"
    config.write_text("")
    daemon = start_daemon(config=config)
    config.write_text(f"hooks: {{rules: [{{events: connected, run: {noting(root)}}}]}}")
    assert daemon.ctl("reload").returncode == 0
    with daemon.dial(name="web01"):
        wait_event(root, "connected")
    config.write_text("")
    assert daemon.ctl("reload").returncode == 0
    with daemon.dial(name="web02"):
        daemon.wait_state("web02", "connected")
    assert [each["name"] for each in events(root)] == ["web01"]


def test_a_stop_does_not_wait_for_hooks_that_hang(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        rule(script(root, f"echo $$ > {root}/pid; sleep 600"), "connected", ", timeout: 10m")
    )
    with daemon.dial(name="web01"):
        until(lambda: (root / "pid").exists() and (root / "pid").read_text(), "the hook runs")
        daemon.stop()
    pid = int((root / "pid").read_text())
    until(lambda: processes.state(pid) in (None, "Z"), "the hook is dead")
    daemon.wait_log("hooks-not-finished")


def test_a_check_finds_a_wrong_hook(root: Path) -> None:
    found = subprocess.run(
        [VSPCD, "--root", str(root), "--check", "-o", "hooks.rules=[{events: gone, run: x}]"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 2
    assert "'gone' is no event" in found.stderr
