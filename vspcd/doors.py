"""The doors: the listeners that VMs and admin queries come in by.

Does: opens them at the start or takes them over from the version before, lets connections in, shuts them.
Owns: the listening sockets and their acceptors.
Never: serves a connection; ``take(name, socket, peer)`` gets it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Callable, NamedTuple

from vspcd.config_schema import Config
from vspcd.config_values import Address
from vspcd.core.address import endpoint
from vspcd.rundir import CannotStart
from vspcd.unix import listen
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

PROXY, ADMIN = "proxy", "admin"

Take = Callable[[str, socket.socket, str], None]


class Door(NamedTuple):
    """A listener and the address that the configuration has for it; its port there may be 0."""

    name: str
    address: Address
    sock: socket.socket


class Doors:
    """``take`` may raise NoRoom, and so may ``taken()``, which is called when all that have come were taken.
    ``reserved()``: descriptors that who comes in may not use up.
    """

    def __init__(
        self, loop: Loop, log: Log, take: Take, taken: Callable[[], None], reserved: Callable[[], int]
    ) -> None:
        self.doors: list[Door] = []
        self._loop = loop
        self._log = log
        self._take = take
        self._taken = taken
        self._reserved = reserved
        self._acceptors: list[Acceptor] = []

    def prepare(self, config: Config) -> None:
        """Listen; nobody is let in yet. Raises CannotStart."""
        for name, address in wanted(config):
            try:
                self.doors.append(Door(name, address, listen.tcp(*address)))
            except OSError as error:
                raise CannotStart(
                    f"{name}.listen: cannot listen on {endpoint(address)}: {error.strerror}"
                ) from None

    def inherit(self, config: Config, inherited: Sequence[Door]) -> None:
        """Go on with these listeners, as far as the configuration still has them."""
        left = list(inherited)
        for name, address in wanted(config):
            found = next((door for door in left if door[:2] == (name, address)), None)
            if found is not None:
                left.remove(found)
                self.doors.append(found)
            else:
                self._open(name, address)
        for door in left:
            if door.name == PROXY and not self.sockets(PROXY):
                self._log.error("listener-kept", listener=PROXY, address=endpoint(door.sock.getsockname()))
                self.doors.append(door)
            else:
                door.sock.close()

    def _open(self, name: str, address: Address) -> None:
        try:
            self.doors.append(Door(name, address, listen.tcp(*address)))
        except OSError as error:
            self._log.error("no-listener", listener=name, address=endpoint(address), reason=error.strerror)

    def sockets(self, name: str) -> list[socket.socket]:
        """The listeners of that name."""
        return [door.sock for door in self.doors if door.name == name]

    def open(self) -> None:
        """Let connections in."""
        for door in self.doors:
            self._acceptors.append(self._accept(door))

    def _accept(self, door: Door) -> Acceptor:
        return Acceptor(
            self._loop,
            self._log,
            door.name,
            door.sock,
            lambda sock, peer: self._take(door.name, sock, peer),
            self._reserved,
            self._taken,
        )

    def close(self) -> None:
        """Let nobody in any more."""
        for acceptor in self._acceptors:
            acceptor.close()

    def addresses(self) -> dict[str, list[str]]:
        """Where they listen, by name."""
        return {
            name: [endpoint(sock.getsockname()) for sock in self.sockets(name)] for name in (PROXY, ADMIN)
        }


def wanted(config: Config) -> list[tuple[str, Address]]:
    """The listeners that the configuration has."""
    return [(PROXY, each) for each in config.proxy.listen] + [(ADMIN, each) for each in config.admin.listen]
