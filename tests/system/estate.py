"""An estate that dials in at once: many VMs, each of which goes on as soon as it is answered, from one epoll loop.

Costs little processor time, so that what is measured is the daemon. Speaks like ``tests.system.vm``; looks for what it
waits for in the bytes as they are. Owns its sockets.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.system.vm import (
    ALL_KNOWN,
    AUTHENTICATION,
    BINARY,
    COM_PORT,
    DO,
    DO_PROXY,
    DONT,
    ECHO,
    GET_NAME,
    GET_VC_UUID,
    KNOWN_1,
    NAME,
    SGA,
    VC_UUID,
    VMWARE,
    WILL,
    WILL_PROXY,
    option,
    uuid_text,
    vmware,
)
from tests.system.wait import PATIENCE, Deadline

READ = 4096


class Port(NamedTuple):
    """A serial port that dials in, and the address of its host."""

    name: str
    uuid: str
    source: str


class Turn(NamedTuple):
    """What the VM says once it has heard all of this."""

    hears: tuple[bytes, ...]
    says: bytes


def turns(port: Port) -> list[Turn]:
    """The recorded order."""
    return [
        Turn((), option(WILL, AUTHENTICATION)),
        Turn((option(WILL, BINARY), option(WILL, SGA), option(WILL, ECHO)), option(DO, BINARY)),
        Turn(
            (option(DO, BINARY), option(DO, SGA), option(DO, VMWARE)),
            option(DO, SGA, ECHO) + option(WILL, BINARY, SGA),
        ),
        Turn(
            (option(DONT, AUTHENTICATION),),
            option(WILL, VMWARE) + vmware(KNOWN_1, ALL_KNOWN) + vmware(DO_PROXY, b"SvSPC.py"),
        ),
        Turn((vmware(GET_VC_UUID), vmware(GET_NAME)), vmware(VC_UUID, uuid_text(port.uuid))),
        Turn((vmware(WILL_PROXY),), vmware(NAME, port.name.encode()) + option(WILL, COM_PORT)),
        Turn((option(DO, COM_PORT),), b""),
    ]


class Caller:
    """One of them. ``heard``: all that was said to it."""

    def __init__(self, proxy: tuple[str, int], port: Port) -> None:
        self.port = port
        self.heard = b""
        self._turns = turns(port)
        self.socket = socket.create_connection(proxy, timeout=PATIENCE, source_address=(port.source, 0))
        self.socket.setblocking(False)
        self.go_on()

    def go_on(self) -> bool:
        """Say what is next, as far as what it waits for has come; whether it is through."""
        while self._turns and all(word in self.heard for word in self._turns[0].hears):
            says = self._turns.pop(0).says
            if says:
                self.socket.send(says)
        return not self._turns

    def read(self) -> bool:
        """What has come; whether the recorded order is through."""
        chunk = self.socket.recv(READ)
        assert chunk, f"{self.port.name} was hung up on, heard {self.heard!r}"
        self.heard += chunk
        return self.go_on()


def dial_in(proxy: tuple[str, int], ports: Sequence[Port], seconds: float) -> list[Caller]:
    """Let all of them dial in; returns when the last one is through."""
    callers: list[Caller] = []
    deadline = Deadline(f"{len(ports)} VMs are through", seconds)
    with select.epoll() as epoll:
        by_number: dict[int, Caller] = {}
        for port in ports:
            caller = Caller(proxy, port)
            callers.append(caller)
            by_number[caller.socket.fileno()] = caller
            epoll.register(caller.socket, select.EPOLLIN)
        while by_number:
            for number, _ in epoll.poll(deadline.left()):
                if by_number[number].read():
                    epoll.unregister(number)
                    del by_number[number]
    return callers


def close_all(callers: Iterable[Caller]) -> None:
    for caller in callers:
        caller.socket.close()
