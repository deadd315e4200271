"""What all contestants have in common.

Does: starts their processes in sessions of their own, ends them, and plays the far end for those that dial the VM's
side. Owns: the processes, the listeners that they dial, the sockets of open lines. Never: leaves a process or a port
behind; knows a protocol.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from bench import figures, wire
from bench.build import Programs

QUEUE = 4096
EPHEMERAL = 32768  # where Linux begins to give ports to connections; below it nobody takes ours
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setup:
    """What a server is to serve. ``folder`` is on a tmpfs; ``logged``: with logs."""

    folder: Path
    programs: Programs
    logged: bool
    consoles: int


class Line(ExitStack):
    """One console with its VM and clients, all connected and quiet. A context: its end closes them."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[socket.socket] = []

    def vm_is(self, sock: socket.socket) -> None:
        """The VM's side."""
        self.vm = self._kept(sock)

    def joins(self, sock: socket.socket) -> None:
        """Another client; the first one may type."""
        self.clients.append(self._kept(sock))

    def _kept(self, sock: socket.socket) -> socket.socket:
        self.enter_context(closing(sock))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = random.randrange(20000, EPHEMERAL - count)
        try:
            for port in range(first, first + count):
                with socket.create_server((wire.HOST, port)):
                    pass
        except OSError:
            continue
        return first


class Server:
    """One contestant. A context: its end stops it.

    The class says what it can do: ``logs``; ``several`` clients on one console; ``stands`` with VMs and no client, so
    that it can hold many; whether it ``dials`` the VM's side. ``far_end`` describes that for readers.
    ``tells_version``: the option that makes it print its version, and where that stands in the words.
    """

    name = ""
    program = ""
    logs = False
    several = True
    stands = True
    dials = True
    far_end = ""
    tells_version = ("", "")
    order: Sequence[wire.Word] = ()  # what a VM says that dials in

    @classmethod
    def installed(cls) -> Optional[str]:
        """Its program, None when the system has none."""
        return shutil.which(cls.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

    @classmethod
    def version(cls) -> str:
        """In its own words."""
        option, pattern = cls.tells_version
        told = subprocess.run(
            [cls.installed() or "", option], capture_output=True, text=True, check=False, cwd=REPOSITORY
        )
        found = re.search(pattern, told.stdout + told.stderr)
        return found.group(1) if found else ""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.folder = setup.folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listeners: list[socket.socket] = []

    # Its life.

    def __enter__(self) -> Server:
        if self.dials:
            count = 1 if self.setup.consoles > 16 else self.setup.consoles
            self._listeners = [
                socket.create_server((wire.HOST, 0), backlog=QUEUE, reuse_port=False) for _ in range(count)
            ]
        self.began = time.monotonic()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Run it, until it takes connections."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all of its processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Those that it has not taken with it.
            for pid in figures.members(process.pid):
                os.kill(pid, signal.SIGKILL)
        for listener in self._listeners:
            listener.close()

    def run(
        self, *command: str, environment: Optional[Mapping[str, str]] = None, pipe: bool = False
    ) -> subprocess.Popen[bytes]:
        """One process, in a session of its own; what it says goes to a file, but for what is ``pipe``d."""
        with (self.folder / f"{self.name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                start_new_session=True,
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
            )
        self._processes.append(process)
        return process

    def pids(self) -> list[int]:
        """Of all its processes, at this moment."""
        return [pid for process in self._processes for pid in figures.members(process.pid)]

    def said(self) -> str:
        """What it has written, for whoever looks for a reason."""
        output = self.folder / f"{self.name}.out"
        return output.read_text(errors="replace")[-2000:] if output.exists() else ""

    # Its consoles.

    def far_port(self, number: int) -> int:
        """Where this console's VM waits to be dialled."""
        return int(self._listeners[number % len(self._listeners)].getsockname()[1])

    def far_listener(self) -> socket.socket:
        """Where many VMs wait to be dialled."""
        return self._listeners[0]

    def dialled_vm(self, number: int) -> socket.socket:
        """The VM's side once it was dialled."""
        listener = self._listeners[number % len(self._listeners)]
        listener.settimeout(wire.PATIENCE)
        try:
            return listener.accept()[0]
        except socket.timeout:
            raise wire.Unheard(f"{self.name} has not dialled {wire.name_of(number)}: {self.said()}") from None

    def vm_port(self) -> int:
        """Where VMs dial in."""
        raise NotImplementedError

    def client(self, number: int) -> socket.socket:
        """A connection that gets what this console's VM says."""
        raise NotImplementedError

    def log(self, number: int) -> Path:
        """Its console's log."""
        raise NotImplementedError

    def until_open(self) -> None:
        """Wait until all consoles take clients. Most servers need no such moment."""

    def open(self, number: int, clients: int) -> Line:
        """A console with its VM and so many clients; the way is proved."""
        line = Line()
        try:
            if self.dials and not self.stands:
                # It dials when the first client is there.
                for _ in range(clients):
                    line.joins(self.client(number))
                line.vm_is(self.dialled_vm(number))
            else:
                line.vm_is(
                    self.dialled_vm(number)
                    if self.dials
                    else wire.dialled(self.vm_port(), self.order, number)
                )
                self.until_open()
                for _ in range(clients):
                    line.joins(self.client(number))
            wire.prove(line.vm, line.clients)
        except BaseException:
            line.close()
            raise
        return line


def until_exists(path: Path, seconds: float = wire.PATIENCE) -> Path:
    """Wait for a file. Raises Unheard."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise wire.Unheard(f"there is no {path}")
        time.sleep(0.02)
    return path
