"""socat: a process for each console, with one client and its default buffer; it speaks no telnet."""

from __future__ import annotations

import socket

from bench import wire
from bench.servers.base import Server, free_port


class Socat(Server):
    """``TCP-LISTEN`` for the client, ``TCP`` to the VM's side."""

    name = "socat"
    program = "socat"
    several = False
    stands = False
    far_end = "it dials a plain TCP port when its client comes, and passes bytes on as they are"
    tells_version = ("-V", r"socat version (\S+)")

    def start(self) -> None:
        """See Server."""
        self._ports = [free_port() for _ in range(self.setup.consoles)]
        for number, port in enumerate(self._ports):
            self.run(
                self.installed() or "",
                f"TCP4-LISTEN:{port},bind={wire.HOST},reuseaddr",
                f"TCP4:{wire.HOST}:{self.far_port(number)}",
            )
        for port in self._ports:
            wire.until_there(port)

    def client(self, number: int) -> socket.socket:
        """See Server."""
        return wire.connected(self._ports[number])
