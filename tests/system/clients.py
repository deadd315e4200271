"""People and programs on a console: a raw Unix socket, raw TCP, a telnet client, and commands on a pty.

Owns their sockets, processes and terminals. Every read has a deadline. Never shares code with the product.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Optional, TypeVar, Union

from tests.system import processes
from tests.system.daemon import Daemon
from tests.system.vm import (
    BINARY,
    DO,
    DONT,
    ECHO,
    IAC,
    READ,
    SGA,
    WILL,
    WONT,
    Command,
    FakeVm,
    Option,
    Sub,
    doubled,
    take,
)
from tests.system.wait import PATIENCE, Deadline, Late

C = TypeVar("C", bound="Client")

AGREED = {BINARY, ECHO, SGA}


class Client:
    """What all clients share: bytes in with deadlines. `seen` is what was read and not yet taken."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.closed = False

    def chunk(self, seconds: float) -> Optional[bytes]:
        """Some bytes; b'' at the end; None when nothing came in time."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(self, deadline: Deadline) -> None:
        chunk = self.chunk(deadline.left())
        if chunk is None:
            raise Late(f"{deadline.what}: read only {bytes(self.seen[-2000:])!r}")
        self.closed = not chunk
        self.absorb(chunk)

    def absorb(self, chunk: bytes) -> None:
        self.seen += chunk

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        deadline = Deadline(f"a client reads {count} bytes")
        while len(self.seen) < count:
            assert not self.closed, f"hung up after {len(self.seen)} bytes: {bytes(self.seen[-2000:])!r}"
            self.fill(deadline)
        return self.take(count)

    def read_until(self, words: Union[bytes, re.Pattern[bytes]], seconds: float = PATIENCE) -> bytes:
        """All bytes up to the end of the first match of words."""
        pattern = re.compile(re.escape(words)) if isinstance(words, bytes) else words
        deadline = Deadline(f"a client sees {pattern.pattern!r}", seconds)
        while True:
            found = pattern.search(self.seen)
            if found:
                return self.take(found.end())
            assert not self.closed, f"hung up before {pattern.pattern!r}: {bytes(self.seen[-2000:])!r}"
            self.fill(deadline)

    def read_to_end(self, seconds: float = PATIENCE) -> bytes:
        deadline = Deadline("a client is hung up on", seconds)
        while not self.closed:
            self.fill(deadline)
        return self.take(len(self.seen))

    def take(self, count: int) -> bytes:
        taken = bytes(self.seen[:count])
        del self.seen[:count]
        return taken

    def quiet(self, seconds: float) -> bytes:
        """What arrives within a while: for what must not arrive."""
        chunk = self.chunk(seconds)
        if chunk:
            self.absorb(chunk)
        return self.take(len(self.seen))


class SocketClient(Client):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.socket = connection

    def chunk(self, seconds: float) -> Optional[bytes]:
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(READ)
        except socket.timeout:
            return None
        except ConnectionResetError:
            return b""

    def send(self, data: bytes) -> None:
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()


class UnixClient(SocketClient):
    """A program on the console's Unix socket."""

    def __init__(self, path: str) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        connection.connect(path)
        super().__init__(connection)


SEGMENT = 536  # bytes; what every network carries


class TcpClient(SocketClient):
    """A program that speaks no telnet on the console's port, as gdb does."""

    def __init__(self, address: tuple[str, int], receive_buffer: Optional[int] = None) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            # Segments larger than its window would go out at the pace of the sender's persist timer: 5 a second.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        connection.settimeout(PATIENCE)
        connection.connect(address)
        super().__init__(connection)


class TelnetClient(TcpClient):
    """A telnet client that opens the negotiation and agrees to binary, both ways."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self._wire = bytearray()
        self.agreed: set[Option] = set()
        self.say(Option(DO, SGA), Option(WILL, BINARY), Option(DO, BINARY))

    def say(self, *options: Option) -> None:
        super().send(b"".join(bytes([IAC, *wanted]) for wanted in options))

    def send(self, data: bytes) -> None:
        super().send(doubled(data))

    def absorb(self, chunk: bytes) -> None:
        self._wire += chunk
        while True:
            token = take(self._wire)
            if token is None:
                return
            if isinstance(token, bytes):
                self.seen += token
            elif isinstance(token, Option):
                self._answer(token)
            else:
                assert isinstance(token, (Command, Sub))

    def _answer(self, said: Option) -> None:
        if said in self.agreed:
            return
        self.agreed.add(said)
        asked_already = said in (Option(WILL, SGA), Option(DO, BINARY), Option(WILL, BINARY))
        if not asked_already and said.verb in (WILL, DO):
            agree, refuse = (DO, DONT) if said.verb == WILL else (WILL, WONT)
            self.say(Option(agree if said.option in AGREED else refuse, said.option))

    def negotiated(self) -> TelnetClient:
        """Waits until binary is agreed both ways."""
        deadline = Deadline("a telnet client negotiates binary")
        while not {Option(DO, BINARY), Option(WILL, BINARY)} <= self.agreed:
            self.fill(deadline)
        return self


def become_controlling() -> None:
    """Makes standard input the terminal of this session, so that ^C and ^Z reach the command."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class PtyClient(Client):
    """A command on a terminal of its own, in a session of its own."""

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80) -> None:
        super().__init__()
        self.master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.terminal_before = self.terminal()
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=become_controlling,  # noqa: PLW1509 (the tests have no threads)
            env={**os.environ, "TERM": "vt100"},
        )

    def chunk(self, seconds: float) -> Optional[bytes]:
        """Our own copy of the terminal keeps it open, so its end is that of the command."""
        end = time.monotonic() + seconds
        while True:
            ended = self._ended()
            if select.select([self.master], [], [], 0 if ended else 0.05)[0]:
                return os.read(self.master, READ)
            if ended:
                return b""
            if time.monotonic() > end:
                return None

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def terminal(self) -> list[object]:
        """The settings of the terminal, to be compared."""
        return list(termios.tcgetattr(self._slave))

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit status; output goes on being read, so that the command is never stuck on it."""
        deadline = Deadline(f"{self.process.args!r} ends", seconds)
        while not self._ended():
            chunk = self.chunk(min(0.1, deadline.left()))
            self.absorb(chunk or b"")
        return self.process.returncode

    def close(self) -> None:
        processes.kill_session(self.process.pid)
        self.process.wait(timeout=20)
        os.close(self.master)
        os.close(self._slave)


def one_of_each(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> tuple[TcpClient, TelnetClient, UnixClient]:
    """A client of each kind on the console of a VM."""
    raw = stack.enter_context(TcpClient(daemon.port(vm.name)))
    raw.send(b"r")  # who speaks first is not offered telnet
    assert vm.read(1) == b"r"
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    unix = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 3)
    return raw, telnet, unix
