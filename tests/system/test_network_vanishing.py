"""A host vanishes from its network without a word: noticed within a minute, whether anything is sent to it or not.

For root, which alone can make a network of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import UnixClient
from tests.system.daemon import Daemon
from tests.system.test_identity import OpenDaemon
from tests.system.vanishing import Namespace, dial_inside
from tests.system.wait import throughout, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iptables") is None, reason="needs root and iptables"
)
NOTICED = 60.0


class Network(Namespace):
    """One whose packets can be dropped both ways, as by a switch that has failed."""

    def vanish(self) -> None:
        for way in ("-i", "-o"):
            chain = "INPUT" if way == "-i" else "OUTPUT"
            self._rule("-I", chain, way)

    def _rule(self, action: str, chain: str, way: str) -> None:
        command = [
            "ip",
            "netns",
            "exec",
            self.name,
            "iptables",
            "-w",
            action,
            chain,
            way,
            "eth0",
            "-j",
            "DROP",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.fixture
def network(stack: ExitStack) -> Network:
    network = Network(3)
    stack.callback(network.remove)
    network.make()
    return network


@pytest.fixture
def daemon(network: Network, root: Path, stack: ExitStack) -> Daemon:
    daemon = OpenDaemon(root, f"proxy.listen=[{network.near}:0]", "log.dir=.")
    stack.callback(daemon.clean_up)
    return daemon.start()


@pytest.mark.long
@pytest.mark.parametrize("typed", [b"", b"into the void"], ids=["in silence", "typed to"])
def test_a_host_that_vanished_is_noticed_within_a_minute(
    typed: bytes,
    network: Network,
    daemon: Daemon,
    stack: ExitStack,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    vm = stack.enter_context(dial_inside(network, daemon.proxy[1], name="web01"))
    vm.handshake()
    daemon.wait_open("web01")
    client = stack.enter_context(UnixClient(daemon.socket_path("web01")))
    throughout(lambda: True, 0.5)
    network.vanish()
    begun = time.monotonic()
    client.send(typed)
    until(lambda: daemon.console("web01")["state"] == "waiting", "the VM is gone", NOTICED + 15)
    took = time.monotonic() - begun
    record_property("noticed_s", round(took, 1))
    with capsys.disabled():
        sys.stderr.write(f"\nvanished host noticed after {took:.1f} s (demand: {NOTICED:.0f} s)\n")
    assert took <= NOTICED
    assert not client.closed
