"""ser2net: one process, which dials the VM's side when the first client comes, and keeps no log without one."""

from __future__ import annotations

import socket

from bench import wire
from bench.servers.base import Server, free_port


class Ser2net(Server):
    """A ``telnet,tcp`` connector for the VM's side, a plain ``tcp`` accepter for clients.

    Without ``chardelay``, by which it waits a millisecond for more before it passes on what came.
    """

    name = "ser2net"
    program = "ser2net"
    stands = False
    far_end = "it dials a plain TCP port when a client comes, and speaks telnet there"
    tells_version = ("-v", r"version (\S+)")

    def start(self) -> None:
        """See Server."""
        self._ports = [free_port() for _ in range(self.setup.consoles)]
        configuration = self.folder / "ser2net.yaml"
        configuration.write_text(
            "".join(
                f"connection: &{wire.name_of(number)}\n"
                f"  accepter: tcp,{wire.HOST},{port}\n"
                f"  connector: telnet,tcp,{wire.HOST},{self.far_port(number)}\n"
                "  options:\n    max-connections: 64\n    chardelay: false\n"
                for number, port in enumerate(self._ports)
            )
        )
        self.run(self.installed() or "", "-n", "-u", "-c", str(configuration))
        for port in self._ports:
            wire.until_there(port)

    def client(self, number: int) -> socket.socket:
        """See Server."""
        return wire.connected(self._ports[number])
