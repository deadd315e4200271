"""How long a console is silent when its process is killed, beside nothing else.

``python -m tests.crash.recovery [KILLS]``: the VM says a line each millisecond and a client types one; the worker is
killed from outside. What is measured is the time from the kill until a client has what was said after it, and until the
VM has what was typed after it. Nothing is judged but that no byte is missing: times are for reading.
"""

from __future__ import annotations

import select
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.daemon import Daemon
from tests.system.vm import FakeVm

PAUSE = 0.2
"""Seconds between kills: more than a console needs to be at rest again."""
PATIENCE = 20.0


class Gap(NamedTuple):
    """Milliseconds without the console, in each direction."""

    output: float
    typing: float


class Ear:
    """What has arrived at one end, compared with what was said at the other."""

    def __init__(self) -> None:
        self.said = 0
        self.heard = 0

    def say(self) -> bytes:
        self.said += 1
        return b"%07d\n" % self.said

    def hear(self, data: bytes) -> None:
        for line in data.splitlines():
            self.heard += 1
            assert int(line) == self.heard, f"line {self.heard} is {line!r}"


class Recovery:
    """One daemon, one VM, a client that listens and one that types."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._vm: FakeVm = daemon.dial()
        self._name = self._vm.name
        self._listener = UnixClient(daemon.socket_path(self._name))
        self._typist = TcpClient(daemon.port(self._name))
        self._typist.send(b"x")
        self._vm.read(1)
        daemon.wait_clients(self._name, 2)
        self._output, self._typing = Ear(), Ear()
        self._halves = {self._vm.socket: b"", self._listener.socket: b""}

    def turn(self) -> None:
        """A line each way, and what has arrived."""
        self._vm.socket.sendall(self._output.say())
        self._typist.socket.sendall(self._typing.say())
        until = time.monotonic() + 0.001
        while (left := until - time.monotonic()) > 0:
            for sock in select.select(list(self._halves), [], [], left)[0]:
                data = self._halves[sock] + sock.recv(65536)
                whole, _, self._halves[sock] = data.rpartition(b"\n")
                (self._typing if sock is self._vm.socket else self._output).hear(whole)
        self._typist.socket.setblocking(False)
        try:
            self._typist.socket.recv(65536)
        except BlockingIOError:
            pass
        self._typist.socket.setblocking(True)

    def go_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def kill(self) -> Gap:
        """Kill the worker: how long until what is said and typed from then on arrives."""
        pid = self._daemon.worker(self._name)
        self.go_on(PAUSE)
        output, typing = self._output.said + 1, self._typing.said + 1
        begun = time.monotonic()
        processes.kill(pid)
        times: dict[str, float] = {}
        while len(times) < 2:
            self.turn()
            now = time.monotonic()
            if self._output.heard >= output:
                times.setdefault("output", 1000 * (now - begun))
            if self._typing.heard >= typing:
                times.setdefault("typing", 1000 * (now - begun))
            assert now - begun < PATIENCE, "the console does not go on"
        return Gap(times["output"], times["typing"])


def measured(kills: int) -> list[Gap]:
    """So many kills, one after the other."""
    with tempfile.TemporaryDirectory(prefix="vspcd-") as folder:
        daemon = Daemon(Path(folder))
        try:
            recovery = Recovery(daemon.start())
            return [recovery.kill() for _ in range(kills)]
        finally:
            daemon.clean_up()


def table(gaps: list[Gap]) -> str:
    """Percentiles in milliseconds."""
    rows = [
        "| until what is said after the kill arrives | p50 | p90 | p99 | at most |",
        "|---|---|---|---|---|",
    ]
    for what, times in (
        ("at the client", sorted(gap.output for gap in gaps)),
        ("at the VM", sorted(gap.typing for gap in gaps)),
    ):
        parts = [times[min(int(len(times) * part), len(times) - 1)] for part in (0.5, 0.9, 0.99, 1)]
        rows.append(f"| {what} | " + " | ".join(f"{part:.1f} ms" for part in parts) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(measured(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
