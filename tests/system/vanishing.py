"""Hosts that vanish: their kernel takes nothing in and says nothing any more, and no connection is closed.

Two ways: a filter on the VM's own socket, which needs no rights; and, for root, a network namespace of its own
whose way back is cut off. Owns the namespace and its link to this one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from tests.system.vmotion_vm import MovingVm
from tests.system.wait import throughout, until

SO_ATTACH_FILTER = 26
DROP_ALL = b"\x06\x00\x00\x00\x00\x00\x00\x00"  # one instruction of classic BPF: return 0 bytes
DELAYED_ACK = 0.3
SETNS_NETWORK = 0x40000000
FAR_LINK = "eth0"
HOST_SIDE, VM_SIDE = "10.213.%d.1", "10.213.%d.2"

Vanish = Callable[[], None]


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other side's kernel has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def deafen(sock: socket.socket) -> None:
    """The kernel drops what comes for this socket, and so acknowledges nothing.

    It must have nothing to say any more: it would say it again and again, which a host that has vanished does not.
    """
    until(lambda: unacknowledged(sock) == 0, "all that was sent has arrived")
    instruction = ctypes.create_string_buffer(DROP_ALL)
    program = ctypes.create_string_buffer(16)
    ctypes.c_ushort.from_buffer(program).value = 1
    ctypes.c_void_p.from_buffer(program, 8).value = ctypes.addressof(instruction)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program.raw)
    throughout(lambda: True, DELAYED_ACK)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Namespace:
    """A network namespace with one link to this one; ``near`` and ``far`` are the addresses of its ends."""

    def __init__(self, number: int) -> None:
        self.name = f"vspcd-{os.getpid()}-{number}"
        self.link = f"vs{os.getpid() % 100000}x{number}"
        subnet = (os.getpid() + number) % 254 + 1
        self.near, self.far = HOST_SIDE % subnet, VM_SIDE % subnet

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", FAR_LINK, "netns", self.name)
        ip("address", "add", f"{self.near}/30", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("-n", self.name, "address", "add", f"{self.far}/30", "dev", FAR_LINK)
        ip("-n", self.name, "link", "set", FAR_LINK, "up")

    def vanish(self) -> None:
        """Nothing comes back from there any more; what is sent there goes nowhere."""
        ip("-n", self.name, "route", "add", "blackhole", f"{self.near}/32")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self.link], check=False, capture_output=True, timeout=20)
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True, timeout=20)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made here belong to that namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            enter(libc, there)
            yield
        finally:
            enter(libc, home)
            os.close(home)
            os.close(there)


def enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, SETNS_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def dial_inside(namespace: Namespace, port: int, **what: str) -> MovingVm:
    """A VM whose host is that namespace."""
    with namespace.inside():
        return MovingVm((namespace.near, port), source=namespace.far, **what)
