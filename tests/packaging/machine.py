"""A machine that is really booted: systemd in a container, on a layer of its own over a tree that is kept.

Owns the container, its layer and whoever streams on its consoles. Never changes the tree below.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

from tests.packaging.rpms import run
from tests.system import processes
from tests.system.clients import SocketClient, TcpClient, UnixClient
from tests.system.daemon import Address, Daemon
from tests.system.vm import FakeVm
from tests.system.wait import Deadline, until

MAKE_TREE = Path(__file__).parent / "make-tree"
NEEDED = ("debootstrap", "systemd-nspawn", "nsenter", "setpriv", "flock")
POWER_OFF = signal.SIGRTMIN + 4  # as systemd(1) says
CLONE_NEWNET = 0x40000000
UP = ("running", "degraded", "starting")
PROXY = ("127.0.0.1", 13370)


def objection() -> Optional[str]:
    """Why no machine can be booted here; None when one can."""
    lacking = [tool for tool in NEEDED if shutil.which(tool) is None]
    if lacking:
        return f"there is no {', '.join(lacking)}"
    return None if os.geteuid() == 0 else "only root can boot a machine"


def tree() -> Path:
    """The tree, made when it is not there."""
    done = subprocess.run([str(MAKE_TREE)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def number_inside(pid: int) -> int:
    """The number that a process has in its container, or its own without one; 0 when it has gone."""
    lines = (processes.read(pid, "status") or "").splitlines()
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), 0)


class Machine:
    """Booted from the tree; what is written is in a layer that goes with it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._layer = [folder / name for name in ("upper", "work")]
        for path in (self.root, *self._layer):
            path.mkdir(parents=True)
        layers = f"lowerdir={tree()},upperdir={self._layer[0]},workdir={self._layer[1]}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        self._console = folder / "boot.log"
        self._container: Optional[subprocess.Popen[bytes]] = None
        self.leader = 0

    def boot(self) -> Machine:
        """Wait until systemd is up."""
        alone = ["setpriv", "--pdeathsig", "KILL"]  # it goes with us, however we go
        command = [*alone, "systemd-nspawn", "-q", "-D", str(self.root), "--boot"]
        with self._console.open("wb") as console:
            self._container = subprocess.Popen(
                [*command, "--register=no", "--keep-unit", "--private-network", "--console=pipe"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.leader = until(self._first, "the container has its first process", 60)
        until(lambda: self.does("systemctl", "is-system-running").stdout.strip() in UP, "systemd is up", 90)
        return self

    def _first(self) -> int:
        assert self._container is not None
        assert self._container.poll() is None, self._console.read_text(errors="replace")
        # nspawn's first child makes the container, has it as its own sibling, and ends.
        inside = [pid for pid in processes.children(self._container.pid) if number_inside(pid) == 1]
        return next(iter(inside), 0)

    def power_off(self) -> None:
        """End it, however it is, and take its layer away."""
        if self._container is not None and self._container.poll() is None:
            if self.leader:
                with suppress(ProcessLookupError):
                    os.kill(self.leader, POWER_OFF)
            try:
                self._container.wait(timeout=40)
            except subprocess.TimeoutExpired:
                processes.kill(self.leader or self._container.pid)
                self._container.wait(timeout=20)
        run("umount", "--lazy", self.root)
        for path in self._layer:
            shutil.rmtree(path, ignore_errors=True)

    # Inside

    def does(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        command = ["nsenter", "-t", str(self.leader), "-a", "--", *map(str, words)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )

    def must(self, *words: object) -> str:
        """What a command prints, which has to succeed."""
        done = self.does(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """A file there, those in its /run too."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def install(self, package: Path) -> str:
        """Install or upgrade; what the scriptlets say. What it requires has other names here."""
        shutil.copy(package, self.path("/var/tmp/"))
        done = self.does("rpm", "-U", "--nodeps", f"/var/tmp/{package.name}")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def shows(self, what: str) -> str:
        """A property of the unit."""
        return self.must("systemctl", "show", "-p", what, "--value", "vspcd").strip()

    def journal(self) -> str:
        return self.does("journalctl", "-u", "vspcd", "--no-pager", "-o", "short-precise").stdout

    def titles(self) -> list[str]:
        """The daemon's processes."""
        return self.does("ps", "-u", "vspc", "-o", "args=").stdout.splitlines()

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes are in the machine's network, and stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.leader}/ns/net") as theirs:
            assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class Service(Daemon):
    """The daemon of a machine, spoken to from outside as the tests speak to any."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.root)
        self.machine = machine

    @property
    def control_socket(self) -> Path:
        return self.machine.path("/run/vspc/control.sock")

    @property
    def pid(self) -> int:
        return int(self.machine.shows("MainPID"))

    @property
    def proxy(self) -> Address:
        return PROXY

    def log(self) -> str:
        return self.machine.journal()

    def dial(self, **what: str) -> FakeVm:
        with self.machine.network():
            return super().dial(**what)

    def ctl(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return self.machine.does("vspcctl", *words)

    def socket_path(self, name: str) -> str:
        return str(self.machine.path(super().socket_path(name)))

    def log_file(self, name: str) -> Path:
        return self.machine.path(str(super().log_file(name)))

    def clients(self, vm: FakeVm) -> list[SocketClient]:
        """One over TCP that speaks first, and so is not offered telnet, and one over the Unix socket."""
        with self.machine.network():
            tcp = TcpClient(self.port(vm.name))
        tcp.send(b"r")
        assert vm.read(1) == b"r"
        unix = UnixClient(self.socket_path(vm.name))
        self.wait_clients(vm.name, 2)
        return [tcp, unix]


class Stream:
    """A VM that talks all the time, and clients that hear it; nothing may be lost, doubled or out of order."""

    def __init__(self, service: Service, vm: FakeVm) -> None:
        self.service = service
        self.vm = vm
        self.clients = service.clients(vm)
        self.said = bytearray()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._talk)]
        self._threads += [threading.Thread(target=self._listen, args=(client,)) for client in self.clients]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        for client in self.clients:
            client.close()

    def _talk(self) -> None:
        piece = bytes(range(256)) * 8
        while not self._over.is_set():
            try:
                self.vm.send(piece)
            except OSError:
                return  # hung up on
            self.said += piece
            self._over.wait(0.002)

    def _listen(self, client: SocketClient) -> None:
        give_up = Deadline("the clients have heard it all", 30)
        while not (self._over.is_set() and len(client.seen) >= len(self.said)) and not client.closed:
            chunk = client.chunk(0.2)
            client.seen += chunk or b""
            client.closed = chunk == b""
            if not self._over.is_set() or chunk:
                give_up = Deadline("the clients have heard it all", 30)
            give_up.left()

    def goes_on(self, more: int = 200_000) -> None:
        """Wait until the clients have heard so much more of it."""
        heard = [len(client.seen) for client in self.clients]
        until(
            lambda: all(len(client.seen) >= before + more for client, before in zip(self.clients, heard)),
            f"{more} bytes more are heard",
        )

    def finish(self) -> None:
        """End it, and compare what was said with what came."""
        self.__exit__()
        assert len(self.said) > 400_000
        for client in self.clients:
            assert client.seen == self.said
        log = self.service.log_file(self.vm.name)
        until(lambda: log.read_bytes() == self.said, "the log has exactly what was said")
