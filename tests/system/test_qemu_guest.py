"""A real Linux guest whose ttyS0 is a VM's serial port behind the simulated ESXi host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.clients import PtyClient
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.guest import UP, Guest
from tests.system.lending import Lender
from tests.system.simulator import Simulator

BOOT_SECONDS = 90


@pytest.fixture(scope="module")
def daemon(lender: Lender) -> Daemon:
    return lender.lend()


@pytest.fixture(scope="module")
def console(daemon: Daemon) -> Iterator[PtyClient]:
    """vspcctl on the console of a guest that has booted, once: it takes most of the time."""
    with ExitStack() as stack:
        guest = stack.enter_context(Guest(daemon.root))
        stack.enter_context(Simulator(daemon, "guest", "--connect", f"unix:{guest.serial}"))
        client = stack.enter_context(PtyClient([VSPCCTL, "--root", str(daemon.root), "console", "guest"]))
        client.read_until(UP.encode(), BOOT_SECONDS)
        client.read_until(b"# ")
        yield client


def test_guest_shell_answers_through_vspcctl(console: PtyClient) -> None:
    console.send(b"echo $(($(cat /proc/sys/kernel/pid_max) * 0 + 42)) on $(uname -s) $(tty)\r")
    console.read_until(b"\n42 on Linux /dev/ttyS0")


def test_output_of_the_guest_is_in_the_log(daemon: Daemon, console: PtyClient) -> None:
    console.send(b"seq 1 1000; echo that was $((500 + 500))\r")
    console.read_until(b"\nthat was 1000")
    log = daemon.log_file("guest").read_bytes()
    assert b"".join(b"%d\r\n" % number for number in range(1, 1001)) in log
