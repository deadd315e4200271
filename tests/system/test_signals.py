"""A storm of SIGHUPs: it counts as a few, and nobody notices."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.payload import numbered
from tests.system.pressure import cpu_share, exchange
from tests.system.wait import until

STORM = 500
COUNTS_ONCE = 0.05  # seconds
IDLE = 0.1  # of one core


def test_a_storm_of_sighups_costs_few_reloads_and_no_byte(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    pid = daemon.worker(vm.name)
    said = numbered(0, STORM)
    begun = time.monotonic()
    for number in range(STORM):
        daemon.signal(signal.SIGHUP)
        line = said[64 * number : 64 * number + 64]
        vm.send(line)
        assert client.read(64) == line
    took = time.monotonic() - begun
    daemon.wait_log("config-reloaded")
    until(lambda: daemon.log_file(vm.name).read_bytes() == said, "all is logged")
    assert daemon.log().count("config-reloaded") <= took / COUNTS_ONCE + 2
    assert daemon.worker(vm.name) == pid


def test_after_a_storm_of_sighups_everything_sleeps(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    for _ in range(STORM):
        daemon.signal(signal.SIGHUP)
    daemon.wait_log("config-reloaded")
    exchange(client, vm)
    assert cpu_share(daemon.pid, 1.0) < IDLE


def test_a_storm_of_sighups_with_a_mistake_in_the_file_changes_nothing(
    start_daemon: StartDaemon, root: Path, stack: ExitStack
) -> None:
    path = root / "vspcd.yaml"
    path.write_text("clients:\n  max: 1\n")
    daemon = start_daemon(config=path)
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    path.write_text("clients:\n  max: 1\n  maximum: 4\n")
    for _ in range(STORM):
        daemon.signal(signal.SIGHUP)
    assert "vspcd.yaml:3:" in daemon.wait_log("config-rejected", "clients.maximum")
    exchange(client, vm)
    late = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    assert late.read_to_end() == b""
