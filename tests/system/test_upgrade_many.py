"""A hundred upgrades under load, and a killed master with many consoles: nothing is lost, and new clients get in."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack

import pytest

from tests.system.clients import TcpClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import FakeVm
from tests.system.wait import Deadline, Late, until

UPGRADES = 100
DEATHS = 20
VMS = 10
ATTACHED_WITHIN = 3.0


class Load:
    """One VM that talks, and a client that listens, until it is over."""

    def __init__(self, daemon: Daemon, number: int, stack: ExitStack) -> None:
        self.vm = stack.enter_context(daemon.dial(name=f"vm{number}"))
        self.client = stack.enter_context(TcpClient(daemon.port(self.vm.name)))
        self.client.send(b"r")
        self.vm.read(1)
        self.log = daemon.log_file(self.vm.name)
        self.said = bytearray()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=each) for each in (self._talk, self._listen)]
        for thread in self.threads:
            thread.start()

    def _talk(self) -> None:
        number = 0
        while not self.over.wait(0.01):
            piece = bytes(range(256)) + b"%d\r\n" % number
            number += 1
            self.vm.send(piece)
            self.said += piece

    def _listen(self) -> None:
        deadline = None
        while not (self.over.is_set() and len(self.client.seen) >= len(self.said)):
            if self.over.is_set():
                deadline = deadline or time.monotonic() + 20
                if time.monotonic() > deadline:
                    return
            self.client.seen += self.client.chunk(0.2) or b""

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def is_whole(self) -> bool:
        """Whether the client and the log have every byte once."""
        return self.client.seen == self.said and self.log.read_bytes() == self.said


def attach(path: str, vm: FakeVm) -> float:
    """How long a new client needs until the VM hears it; it tries again while nobody listens."""
    since, deadline = time.monotonic(), Deadline(f"a new client reaches {vm.name}")
    while True:
        deadline.left()
        try:
            with TcpClient(("127.0.0.1", int(path))) as client:
                client.send(b"?")
                while client.chunk(0.01) is None and deadline.left():
                    if heard(vm):
                        return time.monotonic() - since
        except ConnectionError:
            time.sleep(0.01)


def heard(vm: FakeVm) -> bool:
    """Whether the VM has been typed to."""
    try:
        vm.receive(Deadline("a VM is typed to", 0.01))
    except Late:
        pass
    said = bool(vm.data)
    vm.data.clear()
    return said


def measured(daemon: Daemon, stack: ExitStack, times: int, disturb: str) -> list[float]:
    """Attach to a quiet console all the while; how long each took."""
    quiet = stack.enter_context(daemon.dial(name="quiet"))
    port = str(daemon.port("quiet")[1])
    took: list[float] = []
    over = threading.Event()

    def attach_on() -> None:
        while not over.is_set():
            took.append(attach(port, quiet))
            over.wait(0.3)  # a client that has gone lingers for 10 s, and there may be 64

    thread = threading.Thread(target=attach_on)
    thread.start()
    try:
        for _ in range(times):
            if disturb == "upgrade":
                assert daemon.ctl("upgrade", timeout=90).returncode == 0
            else:
                daemon.signal(signal.SIGKILL)
                daemon.wait_end()
                daemon.start()
    finally:
        over.set()
        thread.join(60)
    return sorted(took)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("disturb", "times"), [("upgrade", UPGRADES), ("kill", DEATHS)])
def test_nothing_is_lost_and_new_clients_get_in(
    start_daemon: StartDaemon, stack: ExitStack, disturb: str, times: int
) -> None:
    daemon = start_daemon()
    loads = [Load(daemon, number, stack) for number in range(VMS)]
    workers = {load.vm.name: daemon.worker(load.vm.name) for load in loads}
    try:
        took = measured(daemon, stack, times, disturb)
    finally:
        for load in loads:
            load.end()
    figures = (
        f"p50 {took[len(took) // 2]:.3f} s, p99 {took[len(took) * 99 // 100]:.3f} s, worst {took[-1]:.3f} s"
    )
    size = sum(len(load.said) for load in loads)
    print(f"{disturb} {times} times, {size} bytes, {len(took)} new clients: {figures}")
    until(lambda: all(load.is_whole() for load in loads), "log and clients have every byte once")
    assert {load.vm.name: daemon.worker(load.vm.name) for load in loads} == workers
    assert took[len(took) * 99 // 100] < ATTACHED_WITHIN
