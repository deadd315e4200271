"""conserver: a master, and a process for every 16 consoles. Its clients speak its own protocol, then get the bytes."""

from __future__ import annotations

import socket
from pathlib import Path

from bench import wire
from bench.servers.base import Server, free_port

ROOM = 80  # ports in a row, of which each of its processes takes one


class Conserver(Server):
    """``type host`` with ``protocol telnet``, which is its default for a console server's port."""

    name = "conserver"
    program = "conserver"
    logs = True
    far_end = "it dials a plain TCP port, as that of a terminal server, and speaks telnet there"
    tells_version = ("-V", r"version (\S+)")

    def start(self) -> None:
        """See Server."""
        consoles = "".join(self._console(number) for number in range(self.setup.consoles))
        configuration = self.folder / "conserver.cf"
        configuration.write_text(
            "config * { sslrequired no; }\ndefault * { rw *; master localhost; }\n"
            "access * { trusted 127.0.0.1; }\n" + consoles
        )
        passwords = self.folder / "conserver.passwd"
        passwords.touch()
        self._port = free_port(ROOM)
        self.run(
            *(self.installed() or "", "-C", str(configuration), "-P", str(passwords), "-M", wire.HOST),
            *("-p", str(self._port), "-b", str(self._port + 1)),
        )
        if self.setup.consoles <= 16:
            wire.until_there(self._port)

    def _console(self, number: int) -> str:
        log = f" logfile {self.log(number)};" if self.setup.logged else ""
        return (
            f"console {wire.name_of(number)} {{ type host; host {wire.HOST}; port {self.far_port(number)};"
            f" protocol telnet;{log} }}\n"
        )

    def client(self, number: int) -> socket.socket:
        """The first one may type; the others watch."""
        with self._called(self._port) as master:
            port = int(wire.answered(master, self._call(number), b"\r\n"))
        sock = self._called(port)
        wire.answered(sock, self._call(number), b"]\r\n")
        wire.answered(sock, b"\x05c;", b"]\r\n")
        return sock

    def _called(self, port: int) -> socket.socket:
        sock = wire.connected(port)
        wire.answered(sock, b"", b"ok\r\n")
        wire.answered(sock, b"login bench\r\n", b"ok\r\n")
        return sock

    @staticmethod
    def _call(number: int) -> bytes:
        return b"call " + wire.name_of(number).encode() + b"\r\n"

    def log(self, number: int) -> Path:
        """See Server."""
        return self.folder / f"{wire.name_of(number)}.log"
