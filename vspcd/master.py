"""The master: listeners, signals, start and end.

Does: brings the parts together, accepts VMs, reloads the configuration, ends everything in order.
Owns: the loop, the VM and admin listeners, the run directory.
Never: reads a console byte, parses telnet, writes a console log, blocks.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Callable, Optional

import sdnotify

import vspcd
from vspcd import config as configuration
from vspcd.attachments import Attachments
from vspcd.claims import Claims
from vspcd.config import ConfigError
from vspcd.config_schema import Config
from vspcd.console_listeners import ConsoleListeners, group_number
from vspcd.consoles import Consoles
from vspcd.core.address import endpoint
from vspcd.portkeeper import PortKeeper
from vspcd.portmap.base import Entry
from vspcd.portmap.sqlite import SqliteBackend
from vspcd.requests import Requests
from vspcd.spawn import Nursery
from vspcd.supervisor import Supervisor
from vspcd.table import Console, Table, Worker, console_of, say
from vspcd.tlshelpers import TlsHelpers
from vspcd.toolserver import ToolServer
from vspcd.unix import listen, process
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

STOP_WITHIN = 8.0
PID_FILE = "vspcd.pid"
EXPIRE_EVERY = (0.2, 300.0)  # seconds, at least and at most
RESERVED, PER_CONSOLE = 64, 2  # descriptors
NOT_YET = "vspcd: this version does not speak vSPC.py's query protocol; use vspcctl\r\n"


class CannotStart(Exception):
    """The daemon cannot start; the text says why."""


class Master:
    """``reread`` reads the configuration again, as at the start; it raises ConfigError."""

    def __init__(self, config: Config, log: Log, reread: Callable[[], Config]) -> None:
        self.config = config
        self.log = log
        self._reread = reread
        self.loop = Loop()
        self._stopping = False
        self._failure: Optional[str] = None
        self._listening: dict[str, list[socket.socket]] = {"proxy": [], "admin": []}
        self._acceptors: list[Acceptor] = []
        self._reload_set = False
        self._notifier = sdnotify.SystemdNotifier()
        self._directory = self._prepare_directories()
        self.nursery = Nursery(config)
        self.table = Table()
        self.listeners = ConsoleListeners(
            self.loop, log, config, self._directory, self._client_came, self._is_known
        )
        self.supervisor = Supervisor(self.loop, log, config, self.nursery, self.table)
        self.supervisor.died = self._worker_died
        self.consoles = Consoles(self.loop, log, self.supervisor, self.listeners)
        self.claims = Claims(self.loop, log, self.supervisor, self.consoles)
        self.attachments = Attachments(log, self.supervisor, self.consoles, self.claims)
        self.tls = TlsHelpers(
            self.loop,
            log,
            self.nursery,
            config,
            self._tls_failed,
            self.claims.tls_secured,
            self.claims.tls_probed,
        )
        self.tools: Optional[ToolServer] = None

    # Start.

    def _prepare_directories(self) -> int:
        dirs = self.config.dirs
        try:
            for path in (dirs.run, dirs.state, dirs.log):
                path.mkdir(mode=0o755 if path == dirs.run else 0o750, parents=True, exist_ok=True)
            directory = os.open(dirs.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock(directory)
        except OSError as error:
            place = dirs.run / PID_FILE if error.filename == PID_FILE else error.filename or dirs.run
            hint = "; run it as root, or with --root DIR" if isinstance(error, PermissionError) else ""
            raise CannotStart(f"{place}: {error.strerror}{hint}") from None
        return directory

    def _lock(self, directory: int) -> None:
        """One daemon per run directory. The lock goes with the process, whatever ends it."""
        fd = os.open(PID_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(fd, 20).decode("ascii", "replace").strip()
            raise CannotStart(f"vspcd runs already in {self.config.dirs.run} (pid {pid})") from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())

    def _unlock(self) -> None:
        listen.remove(self._directory, PID_FILE)

    def run(self) -> Optional[str]:
        """Serve until told to stop. Returns what went wrong, None when nothing did. Raises CannotStart."""
        process.name("vspcd: master")
        process.raise_descriptor_limit()
        self._open_listeners()
        for number, call in self._signals().items():
            self.loop.on_signal(number, call)
        process.freeze()
        self.consoles.keeper = PortKeeper(self.loop, self.log, self.nursery, self._open_map, self._map_loaded)
        self.claims.tls = self.tls
        self.loop.run()
        self._unlock()
        return self._failure

    def _open_map(self) -> SqliteBackend:
        return SqliteBackend(self.config.dirs.state / "portmap.db")

    def _open_listeners(self) -> None:
        for name, addresses in (("proxy", self.config.proxy.listen), ("admin", self.config.admin.listen)):
            for host, port in addresses:
                try:
                    self._listening[name].append(listen.tcp(host, port))
                except OSError as error:
                    raise CannotStart(
                        f"{name}.listen: cannot listen on {endpoint((host, port))}: {error.strerror}"
                    ) from None

    def _signals(self) -> dict[int, Callable[[], None]]:
        return {
            signal.SIGCHLD: self._reap,
            signal.SIGHUP: self._hang_up,
            signal.SIGTERM: lambda: self.stop("SIGTERM"),
            signal.SIGINT: lambda: self.stop("SIGINT"),
        }

    def _map_loaded(self, entries: Sequence[Entry]) -> None:
        """The known consoles keep their ports; then, and only then, VMs and clients are let in."""
        consoles = [self.table.add(console_of(entry)) for entry in entries]
        for console in consoles:
            self.listeners.remember(console)
        for console in consoles:
            port = console.port
            self.listeners.assign(console)
            self.listeners.open(console)
            if console.port != port:
                self.consoles.keeper.put(console.entry())
        self._open_tools()
        self._start_tls()
        for name, take in (("proxy", self._vm_came), ("admin", self._admin_came)):
            for sock in self._listening[name]:
                self._acceptors.append(Acceptor(self.loop, self.log, name, sock, take, self._reserved))
        self._expire()
        self._ready(len(consoles))

    def _start_tls(self) -> None:
        try:
            self.tls.start()
        except OSError as error:
            self.log.error("no-tls-helper", reason=str(error))

    def _open_tools(self) -> None:
        requests = Requests(
            self.supervisor,
            self.consoles,
            self.claims,
            self.attachments,
            os.getpid(),
            self._addresses,
            self.reload,
            self.stop,
            self._tls_facts,
        )
        sockets = self.config.sockets
        try:
            group = group_number(sockets.group)
        except KeyError:
            self.log.error("unknown-group", group=sockets.group)
            group = None
        self.tools = ToolServer(self.loop, self.log, self._directory, sockets.mode, group, requests.handlers)

    def _ready(self, consoles: int) -> None:
        addresses = self._addresses()
        self.log.info(
            "ready",
            version=vspcd.__version__,
            pid=os.getpid(),
            proxy=",".join(addresses["proxy"]),
            admin=",".join(addresses["admin"]) or None,
            run=str(self.config.dirs.run),
            consoles=consoles,
        )
        self._notifier.notify(f"READY=1\nSTATUS=Listening for VMs on {', '.join(addresses['proxy'])}")

    def _addresses(self) -> dict[str, list[str]]:
        return {
            name: [endpoint(sock.getsockname()) for sock in socks] for name, socks in self._listening.items()
        }

    # Connections.

    def _reserved(self) -> int:
        """Descriptors that VMs may not use up: for clients, for workers that go on, and for consoles about to open."""
        return RESERVED + PER_CONSOLE * self.claims.admission.pending

    def _vm_came(self, sock: socket.socket, peer: str) -> None:
        listen.keep_alive(sock)
        self.claims.vm_connected(sock, peer)

    def _admin_came(self, sock: socket.socket, peer: str) -> None:
        self.log.warning("admin-not-served", peer=peer)
        say(sock, NOT_YET)
        sock.close()

    def _tls_facts(self) -> Optional[dict[str, object]]:
        return self.tls.certificate

    def _tls_failed(self, number: int, reason: str) -> None:
        self.claims.tls_failed(number, reason)
        self.attachments.tls_failed(number, reason)

    def _is_known(self, console: Console) -> bool:
        return not self._stopping and self.table.consoles.get(console.id) is console

    def _worker_died(self, worker: Worker, how: str) -> None:
        self.claims.worker_died(worker, how)
        self.attachments.worker_died(worker, how)

    def _client_came(self, console: Console, kind: str, sock: socket.socket, origin: str) -> None:
        number = next(self.table.numbers)
        if kind == "telnet" and self.config.ports.tls:
            try:
                sock = self.tls.secure(number, origin, sock, clients=True)
            except OSError as error:
                self.log.error("client-refused", console=console.id, client=origin, reason=str(error))
                sock.close()
                return
        self.attachments.attach(console, kind, sock, origin, "rw", self.config.clients.replay, number)

    # Signals.

    def _reap(self) -> None:
        for pid, how in process.reap():
            if self.supervisor.reaped(pid, how) or self.tls.reaped(pid, how):
                continue
            if pid != self.consoles.keeper.pid:
                continue
            if self._stopping:
                self.loop.stop()  # its last batch is on the disk
            elif not self.consoles.keeper.died(how):
                self._failure = f"the port map could not be loaded: its keeper {how}"
                self.loop.stop()

    def _hang_up(self) -> None:
        """SIGHUP: logs may have been rotated, the configuration may have changed. A storm of them counts once."""
        if not self._reload_set:
            self._reload_set = True
            self.loop.call_later(0.05, self._after_hang_up)

    def _after_hang_up(self) -> None:
        self._reload_set = False
        self.supervisor.reopen_logs()
        try:
            self.reload()
        except ConfigError as error:
            for problem in error.problems:
                self.log.error("config-rejected", problem=problem)

    def reload(self) -> list[str]:
        """Read the configuration again: what changed, in words. Raises ConfigError, and the old one stays."""
        new = self._reread()
        changes = configuration.differences(self.config, new)
        old, self.config = self.config, configuration.reloaded(self.config, new)
        self.log.level = self.config.log_level
        self.listeners.config = self.config
        self.supervisor.apply(self.config)
        self.tls.reload(self.config)
        if old.sockets != self.config.sockets:
            for console in self.table.consoles.values():
                self.listeners.apply_modes(console)
        for change in changes:
            self.log.info("config-changed", change=change)
        self.log.info("config-reloaded", changes=len(changes))
        return changes

    def _expire(self) -> None:
        """Forget consoles that nobody has used for long."""
        expire = self.config.ports.expire
        expired = self.listeners.ports.expire(
            time.monotonic(), expire, lambda console: self.table.consoles[console].in_use
        )
        for console in expired:
            if console in self.table.consoles:
                self.consoles.forget(self.table.consoles[console])
        low, high = EXPIRE_EVERY
        self.loop.call_later(min(high, max(low, expire / 4)), self._expire)

    # The end.

    def stop(self, reason: str) -> None:
        """Let everything end: first the doors, then the workers, then the map."""
        if self._stopping:
            return
        self._stopping = True
        self.log.info("stopping", reason=reason)
        self._notifier.notify("STOPPING=1")
        for acceptor in self._acceptors:
            acceptor.close()
        for console in self.table.consoles.values():
            self.listeners.close(console)
            if console.leg is not None:
                console.last_seen = time.time()
                self.consoles.keeper.put(console.entry())
        self.loop.call_later(STOP_WITHIN, self.loop.stop)
        self.supervisor.quit_all("vspcd is stopping", self._workers_gone)

    def _workers_gone(self) -> None:
        """The keeper ends once it has written its last batch, and the daemon with it."""
        self.tls.stop()
        self.consoles.keeper.stop()
        if self.tools is not None:
            self.tools.close()
