"""How the system looks from outside: names in ps, what each process holds, and that it sleeps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import Dial
from tests.system.daemon import Daemon
from tests.system.wait import throughout, until

LISTENING = "0A"


def listening_inodes() -> set[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING}


def test_processes_are_named_for_what_they_do(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    pid = daemon.worker(vm.name)
    assert processes.title(daemon.pid) == "vspcd: master"
    until(lambda: processes.title(pid) == f"vspcd: web01 [{vm.uuid}]", "the worker is named for its VM")


def test_every_process_has_a_name(daemon: Daemon, dial: Dial) -> None:
    dial()
    until(
        lambda: all(title.startswith("vspcd: ") for title in daemon.titles().values()),
        "all processes are named",
    )


def test_worker_shares_no_socket_with_another_worker(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    for vm in vms:
        stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
        daemon.wait_clients(vm.name, 1)
    held = [processes.socket_inodes(daemon.worker(vm.name)) for vm in vms]
    assert held[0] & held[1] == held[1] & held[2] == held[0] & held[2] == set()


def test_worker_holds_no_listener(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    assert processes.socket_inodes(daemon.worker(vm.name)) & listening_inodes() == set()


def test_worker_holds_no_file_but_its_own_log_and_the_roster(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    root = str(daemon.root)
    held = processes.open_files(daemon.worker(vm.name)).values()
    below = {path for path in held if path.startswith(root) and path != str(daemon.output)}
    below.remove(f"{root}/run/workers")
    assert {path for path in below if vm.uuid not in path and Path(path).is_file()} == set()


def test_worker_count_of_descriptors_does_not_grow_with_other_vms(daemon: Daemon, dial: Dial) -> None:
    first = dial(name="first")
    before = len(processes.open_files(daemon.worker(first.name)))
    vms = [dial(name=f"vm{number}") for number in range(10)]
    assert len(processes.open_files(daemon.worker(vms[-1].name))) <= before


ROUND = 4.0
"""Seconds between two looks of the master for what hangs."""


def test_idle_system_does_not_wake_up(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    for vm in vms:
        client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
        daemon.wait_clients(vm.name, 1)
        vm.send(b"x" * 100)
        client.read(100)
    pids = daemon.members()
    until(lambda: is_quiet(pids), "work that was put off is done")
    began, before = time.monotonic(), {pid: processes.wake_ups(pid) for pid in pids}
    throughout(lambda: True, 2)
    woken = {processes.title(pid): processes.wake_ups(pid) - count for pid, count in before.items()}
    rounds = 1 + (time.monotonic() - began) // ROUND
    assert {title: count for title, count in woken.items() if count > rounds} == {}


def is_quiet(pids: list[int]) -> bool:
    before = [processes.wake_ups(pid) for pid in pids]
    throughout(lambda: True, 1.2)
    return [processes.wake_ups(pid) for pid in pids] == before


def test_nothing_is_left_after_the_stop(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    daemon.stop()
    assert list((daemon.root / "run").iterdir()) == []
    client.read_to_end()
    vm.wait_closed()


def test_vm_is_hung_up_on_when_the_daemon_stops(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    assert daemon.ctl("stop").returncode == 0
    vm.wait_closed()
    assert daemon.wait_end() == 0


def test_worker_that_dies_takes_nobody_along(daemon: Daemon, dial: Dial) -> None:
    victim, other = dial(name="victim"), dial(name="other")
    pid = daemon.worker(other.name)
    processes.kill(daemon.worker(victim.name))
    daemon.wait_log("victim")
    other.send(b"still here")
    daemon.wait_console(other.name, lambda c: bool(c["bytes_in"] == 10), "is heard")
    assert daemon.worker(other.name) == pid


def test_console_works_again_after_its_worker_died(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    processes.kill(daemon.worker(vm.name))
    again = dial(uuid=vm.uuid)
    again.send(b"here again")
    daemon.wait_state(vm.name, "connected")
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes().endswith(b"here again"), "it is heard")
