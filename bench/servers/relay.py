"""The bare relay of bench/relay.c: the limit. With logs, it appends what the VM says to a file before it sends it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Optional

from bench import wire
from bench.servers.base import Server


class Relay(Server):
    """One process for all consoles, one loop."""

    name = "relay"
    logs = True
    dials = False
    far_end = "the VM dials in, says its name and then its bytes"
    order = wire.DIALS_RELAY

    @classmethod
    def installed(cls) -> Optional[str]:
        """It is built at run time."""
        return "relay"

    def start(self) -> None:
        """See Server."""
        logs = self.folder / "logs"
        logs.mkdir()
        process = self.run(self.setup.programs.relay, *([str(logs)] if self.setup.logged else []), pipe=True)
        assert process.stdout is not None
        with process.stdout as told:
            self._vm_port, self._client_port = map(int, told.readline().split())

    def vm_port(self) -> int:
        """See Server."""
        return self._vm_port

    def client(self, number: int) -> socket.socket:
        """See Server."""
        sock = wire.connected(self._client_port)
        wire.answered(sock, wire.name_of(number).encode() + b"\n", b"ok\n")
        return sock

    def log(self, number: int) -> Path:
        """See Server."""
        return self.folder / "logs" / f"{wire.name_of(number)}.log"
