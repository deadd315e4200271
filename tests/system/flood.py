"""Floods from a process of their own: connections that come and go, and a VM that says all it can.

    python -m tests.system.flood knock ADDRESS
    python -m tests.system.flood pour HOST:PORT NAME

ADDRESS is HOST:PORT, or a path, which is dialled as a stream or, when it ends in control.sock, for packets. Runs until
it is killed; writes a line when it has begun.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import NoReturn

from tests.system import processes
from tests.system.payload import numbered
from tests.system.vm import FakeVm

AT_ONCE = 50
PIECE = numbered(0, 4096)


class Flood:
    """One of them, as a context."""

    def __init__(self, *words: str) -> None:
        self._command = [sys.executable, "-m", "tests.system.flood", *words]

    def __enter__(self) -> Flood:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"begun\n"
        return self

    def __exit__(self, *_: object) -> None:
        processes.kill(self._process.pid)
        self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def dialled(address: str) -> socket.socket:
    if not address.startswith("/"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)
    packets = address.endswith("control.sock")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(address)
    return sock


def knock(address: str) -> NoReturn:
    """Connections, some at a time, that say nothing and are closed."""
    while True:
        socks = []
        for _ in range(AT_ONCE):
            try:
                socks.append(dialled(address))
            except OSError:
                continue  # the queue is full
        for sock in socks:
            sock.close()


def pour(address: str, name: str) -> NoReturn:
    """A VM that never ceases to speak."""
    host, _, port = address.rpartition(":")
    vm = FakeVm((host, int(port)), name=name).handshake()
    vm.socket.settimeout(None)
    while True:
        vm.socket.sendall(PIECE)


if __name__ == "__main__":
    print("begun", flush=True)
    if sys.argv[1] == "knock":
        knock(sys.argv[2])
    pour(*sys.argv[2:4])
