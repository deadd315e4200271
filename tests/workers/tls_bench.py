"""A TLS helper on the bench: the real process, with us as its master, its workers and its peers.

Owns the helper, the certificates it is given, and the far ends of all its sockets.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Optional, Union

import psutil

from tests.system import wait
from tests.unix.turning import until
from vspcd.proto import control
from vspcd.unix.channel import Channel, pair
from vspcd.unix.loop import Loop
from vspcd.unix.pair import loopback_pair

PATIENCE = 30.0
FULL = 0.5  # seconds without room
LIFE = """
import json, socket, sys
from workers.tls import TlsStart, main
main(TlsStart(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])))
"""


def openssl(*words: Union[str, Path]) -> str:
    """What an openssl command prints."""
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def self_signed(directory: Path, name: str, *more: str) -> tuple[Path, Path]:
    """A certificate and its key."""
    certificate, key = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    subject = ["-subj", f"/CN={name}", "-days", "30", *more]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject)
    return certificate, key


class TlsBench:
    """One helper, and what it has said so far in ``said``."""

    def __init__(self, certificate: Optional[Path], key: Optional[Path], **changed: Any) -> None:
        tls = {"certificate": certificate, "key": key, "client_ca": None, "min_version": "1.2"}
        self.settings: dict[str, Any] = {
            "tls": {k: v and str(v) for k, v in {**tls, **changed}.items() if k in tls},
            "log_level": "debug",
            "handshake_timeout": changed.get("handshake_timeout", 10.0),
        }
        ours, theirs = pair()
        words = [sys.executable, "-c", LIFE, str(theirs.fileno()), json.dumps(self.settings)]
        self.process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        self.loop = Loop()
        self.said: list[dict[str, Any]] = []
        self.closed = False
        self.channel = Channel(ours)
        self.channel.serve(self.loop, self._heard, self._gone)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.legs = 0
        self._held: list[socket.socket] = []

    def _heard(self, message: dict[str, Any], fds: list[int]) -> None:
        control.check(message, control.TLS, control.OWNER, len(fds))
        self.said.append(message)

    def _gone(self) -> None:
        self.closed = True
        self.channel.close()

    def wait(self, kind: str, leg: Optional[int] = None, seconds: float = PATIENCE) -> dict[str, Any]:
        """The message of this kind, and about this leg; the latest one."""

        def fitting() -> list[dict[str, Any]]:
            return [m for m in self.said if m["type"] == kind and m.get("leg") == leg]

        until(self.loop, fitting, f"{kind} about {leg}; said: {self.said}", seconds)
        return fitting()[-1]

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send({"type": kind, **fields})

    def adopt(self) -> socket.socket:
        """Give the next connection to the helper; our end of its plaintext. Keeps duplicates, as the master does."""
        self.listener.settimeout(PATIENCE)
        peer, _ = self.listener.accept()
        ours, theirs = loopback_pair()
        self.legs += 1
        self.channel.send(
            {"type": "adopt", "leg": self.legs, "peer": "192.0.2.1:1"}, [peer.fileno(), theirs.fileno()]
        )
        ours.settimeout(PATIENCE)
        self._held += [peer, theirs, ours]
        return ours

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """A connection that is adopted: the peer's end, the worker's end."""
        peer = socket.create_connection(self.address, PATIENCE)
        self._held.append(peer)
        return peer, self.adopt()

    def memory(self) -> int:
        """Bytes that the helper has for itself."""
        return int(psutil.Process(self.process.pid).memory_full_info().uss)

    def close(self) -> str:
        """End the helper as a master's death does; what it wrote to its log."""
        self.channel.close()
        try:
            _, log = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
        for sock in [*self._held, self.listener]:
            sock.close()
        self.loop.close()
        assert self.process.returncode == 0, log
        return str(log.decode())


class Client:
    """``openssl s_client`` on a bench; its plaintext is on ``stdin`` and ``stdout``."""

    def __init__(self, bench: TlsBench, *words: Union[str, Path], quiet: str = "-quiet") -> None:
        host, port = bench.address
        command = ["openssl", "s_client", quiet, "-connect", f"{host}:{port}", *map(str, words)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def order(self, command: bytes) -> None:
        """One of its commands, which is such only when it is read by itself."""
        self.stdin.write(command)
        wait.until(lambda: not any(fcntl.ioctl(self.stdin, termios.FIONREAD, bytes(4))), "openssl reads it")

    def read_until(self, text: bytes) -> None:
        """Read what it prints, up to this text."""
        printed = b""
        while text not in printed:
            assert select.select([self.stdout], [], [], PATIENCE)[0], printed
            piece = self.stdout.read(65536)
            assert piece, printed
            printed += piece

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class End:
    """One end of a stream for ``pump``: what it is to send, what it got, and how much it reads at a time."""

    def __init__(self, reader: int, writer: int, outgoing: bytes = b"", gulp: int = 65536) -> None:
        self.reader, self.writer = reader, writer
        self.outgoing = memoryview(outgoing)
        self.incoming = bytearray()
        self.gulp = gulp
        self.ended = False
        for fd in (reader, writer):
            os.set_blocking(fd, False)

    def step(self, readable: list[int], writable: list[int]) -> None:
        if self.reader in readable:
            data = os.read(self.reader, self.gulp)
            self.incoming += data
            self.ended = not data
        if self.writer in writable:
            self.outgoing = self.outgoing[os.write(self.writer, self.outgoing[:65536]) :]


def pump(*ends: End, expect: int) -> None:
    """Serve the ends until each has got so many bytes, or its end."""
    deadline = time.monotonic() + PATIENCE * 2
    while any(len(end.incoming) < expect and not end.ended for end in ends):
        assert time.monotonic() < deadline, [len(end.incoming) for end in ends]
        readers = [end.reader for end in ends if not end.ended]
        writers = [end.writer for end in ends if end.outgoing]
        readable, writable, _ = select.select(readers, writers, [], 1)
        for end in ends:
            end.step(readable, writable)


def stuffed(fd: int) -> int:
    """How much a descriptor takes until it has taken nothing for half a second."""
    os.set_blocking(fd, False)
    sent = 0
    while select.select([], [fd], [], FULL)[1]:
        sent += os.write(fd, bytes(65536))
    return sent


def received(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or all there are before the end."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(min(size - len(data), 65536))):
        data += piece
    return bytes(data)


def all_of(sock: socket.socket) -> bytes:
    """Everything up to the end."""
    return received(sock, 1 << 40)
