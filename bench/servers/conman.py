"""conman: one process for all consoles. Its clients introduce themselves in two lines, then get the bytes."""

from __future__ import annotations

import socket
from pathlib import Path

from bench import wire
from bench.servers.base import Server, free_port


class Conman(Server):
    """A console is ``host:port``, where it speaks telnet. The log's options are those that make it exact."""

    name = "conman"
    program = "conmand"
    logs = True
    far_end = "it dials a plain TCP port, as that of a terminal server, and speaks telnet there"
    tells_version = ("-V", r"conman-(\S+)")

    def start(self) -> None:
        """See Server."""
        consoles = "".join(self._console(number) for number in range(self.setup.consoles))
        configuration = self.folder / "conman.conf"
        configuration.write_text(
            "server loopback=on\nserver tcpwrappers=off\n"
            f'server logdir="{self.folder}"\nserver pidfile="{self.folder}/conman.pid"\n' + consoles
        )
        self._port = free_port()
        self.run(self.installed() or "", "-F", "-c", str(configuration), "-p", str(self._port))
        wire.until_there(self._port)

    def _console(self, number: int) -> str:
        name = wire.name_of(number)
        log = f' log="{name}.log" logopts="nosanitize,notimestamp,nolock"' if self.setup.logged else ""
        return f'console name="{name}" dev="{wire.HOST}:{self.far_port(number)}"{log}\n'

    def client(self, number: int) -> socket.socket:
        """All of them may type."""
        sock = wire.connected(self._port)
        wire.answered(sock, b"HELLO USER='bench' TTY='pts/0'\n", b"OK\n")
        name = wire.name_of(number).encode()
        # Who has joined is told behind the line.
        sock.sendall(b"CONNECT OPTION=JOIN CONSOLE='" + name + b"'\n")
        heard = wire.received(sock, "conman's answer")
        if not heard.startswith(b"OK "):
            raise wire.Unheard(f"conman answers {heard!r}")
        return sock

    def log(self, number: int) -> Path:
        """See Server."""
        return self.folder / f"{wire.name_of(number)}.log"
