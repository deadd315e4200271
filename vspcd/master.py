"""The master: listeners, signals, start and end.

Does: brings the parts together, accepts VMs, reloads the configuration, ends everything in order.
Owns: the loop, the VM and admin listeners, the run directory.
Never: reads a console byte, parses telnet, writes a console log, blocks.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Callable, Optional

import vspcd
from vspcd import adoption, peers, rundir, toolserver, upgrade
from vspcd import config as configuration
from vspcd import inheritance as inheritances
from vspcd.adoption import Adoption
from vspcd.attachments import Attachments
from vspcd.audit import Audit
from vspcd.claims import Claims
from vspcd.config import ConfigError
from vspcd.config_schema import Config
from vspcd.console_listeners import ConsoleListeners, group_number
from vspcd.consoles import Consoles
from vspcd.core.automation import EXPIRED
from vspcd.doors import PROXY, Doors
from vspcd.entrance import Entrance
from vspcd.events import Events
from vspcd.handover import State
from vspcd.inheritance import Inheritance
from vspcd.locks import Locks
from vspcd.notices import Notices
from vspcd.portkeeper import PortKeeper
from vspcd.portmap.backends import Choice, opened
from vspcd.portmap.base import Backend, Entry
from vspcd.queries import Queries
from vspcd.requests import Requests
from vspcd.spawn import Nursery, settings
from vspcd.supervisor import Supervisor
from vspcd.table import Console, Table, Worker, console_of
from vspcd.tlshelpers import TlsHelpers
from vspcd.toolserver import ToolServer
from vspcd.triggers import Triggers
from vspcd.unix import listen, process
from vspcd.unix.failpoint import reached
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.page import Page
from vspcd.upgrade import Upgrades
from vspcd.watchdog import Watchdog
from workers.rehearsal import rehearse

TITLE = "vspcd: master"
STOP_WITHIN = 8.0
EXPIRE_EVERY = (0.2, 300.0)  # seconds, at least and at most
RESERVED, PER_CONSOLE = 64, 2  # descriptors


class Master:
    """``reread`` reads the configuration again, as at the start; it raises ConfigError. ``command``: how the process
    was started, for an upgrade. ``inheritance``: what the version before has left.
    """

    adoption: Adoption
    rehearsed: list[Page]

    def __init__(
        self,
        config: Config,
        log: Log,
        reread: Callable[[], Config],
        command: Optional[list[str]] = None,
        inheritance: Optional[Inheritance] = None,
    ) -> None:
        self.config = config
        self.log = log
        self.began = time.monotonic() if inheritance is None else inheritance.state.began
        self._reread = reread
        self._inheritance = inheritance
        self.loop = Loop()
        self.stopping = False
        self._failure: Optional[str] = None
        self._reload_set = False
        self._entries: Sequence[Entry] = ()
        self.directory = (
            rundir.prepare(config.dirs)
            if inheritance is None
            else rundir.RunDirectory(inheritance.state.directory, inheritance.state.lock)
        )
        self.nursery = Nursery(config, None if inheritance is None else inheritance.lasting)
        self.doors = Doors(self.loop, log, self._came, self._all_came, self._reserved)
        self.table = Table()
        self.notices = Notices(self.loop, self.table)
        self.entrance = Entrance(self)
        self.listeners = ConsoleListeners(
            self.loop, log, config, self.directory.fd, self.entrance.came, self._is_known
        )
        self.supervisor = Supervisor(self.loop, log, config, self.nursery, self.table)
        self.supervisor.died = self._worker_died
        self.consoles = Consoles(self.loop, log, self.supervisor, self.listeners)
        self.events = Events(self.loop, log, self.nursery, config)
        self.consoles.happened = self.events.happened
        self.triggers = Triggers(self.loop, log, self.nursery, config, self.table, self.events)
        self.aides = (self.events.aide, self.triggers.aide)
        self.claims = Claims(self.loop, log, self.supervisor, self.consoles)
        self.audit = Audit(self.loop, log, config)
        self.locks = Locks(self.loop, log, self.supervisor, self.audit)
        self.locks.rights = peers.rights(config.access, log)
        self.attachments = Attachments(
            log, self.supervisor, self.consoles, self.claims, self.locks, self.audit
        )
        self.tls = TlsHelpers(
            self.loop,
            log,
            self.nursery,
            config,
            self._tls_failed,
            self._tls_secured,
            self.claims.tls_probed,
        )
        self.tools: Optional[ToolServer] = None
        self.queries = Queries(self)
        self.upgrades = Upgrades(self, command)
        self.watchdog = Watchdog(self)

    # Start.

    def run(self) -> Optional[str]:
        """Serve until told to stop. Returns what went wrong, None when nothing did. Raises CannotStart."""
        process.name(TITLE)
        process.raise_descriptor_limit()
        if self._inheritance is None:
            self.doors.prepare(self.config)
        for number, call in self._signals().items():
            self.loop.on_signal(number, call)
        self.rehearsed = rehearse(settings(self.config), str(self.config.dirs.run / "rehearsal"))
        process.name(TITLE)
        process.freeze()
        self.claims.tls = self.tls
        if self._inheritance is None:
            self.adoption = Adoption(self, adoption.opened(self.directory.fd), self._all_known)
            self.consoles.keeper = self._keeper(self._map_loaded)
            self.audit.begin(self.consoles.keeper)
        else:
            self._go_on(self._inheritance)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, upgrade.BLOCKED)
        self.loop.run()
        self.directory.leave()
        return self._failure

    def _keeper(self, loaded: Callable[[Sequence[Entry]], None], required: bool = True) -> PortKeeper:
        ports = self.config.ports
        choice = Choice(ports.backend, ports.backend_path, ports.backend_options)

        def open_map() -> Backend:
            return opened(choice, self.config.dirs.state)

        keeper = PortKeeper(self.loop, self.log, self.nursery, open_map, loaded, required)
        keeper.in_doubt = self.consoles.in_doubt
        return keeper

    def _go_on(self, inheritance: Inheritance) -> None:
        """Take the place of another version, with all that it had; nobody who is connected notices."""
        self._inheritance = None
        door = socket.socket(fileno=inheritance.state.adoption)
        self.adoption = Adoption(self, door, None)
        inheritances.take_over(self, inheritance)
        reached("upgrade.taken")
        self.consoles.keeper = self._keeper(self.consoles.compare, required=False)
        self.audit.begin(self.consoles.keeper)
        for console in self.table.consoles.values():
            self.consoles.inherit(console)
        self._open_tools(inheritance.state)
        self._apply_modes()
        self.tls.start()
        self.events.start()
        self.triggers.start(resume=True)
        self.doors.open()
        self._expire()
        self.supervisor.apply(self.config)
        self.tls.reload(self.config)
        self.locks.resume(self.table)
        self.attachments.reconsider()
        self.loop.call_later(0, self._reap)
        self._ready(len(self.table.consoles))
        self.log.info("upgraded", text=inheritances.report(self, inheritance.state))

    def _signals(self) -> dict[int, Callable[[], None]]:
        return {
            signal.SIGCHLD: self._reap,
            signal.SIGHUP: self._hang_up,
            signal.SIGTERM: lambda: self.stop("SIGTERM"),
            signal.SIGINT: lambda: self.stop("SIGINT"),
        }

    def _map_loaded(self, entries: Sequence[Entry]) -> None:
        """The known consoles keep their ports. Those who serve some of them may be alive."""
        self._entries = entries
        for entry in entries:
            self.listeners.remember(self.table.add(console_of(entry)))
        self.adoption.begin()

    def _all_known(self) -> None:
        """All that there is is known: then, and only then, VMs and clients are let in."""
        entries, self._entries = self._entries, ()
        for console in self.table.consoles.values():
            self.listeners.assign(console)
            self.listeners.open(console)
        self.consoles.compare(entries)
        self.locks.resume(self.table)
        self.attachments.reconsider()
        self._open_tools()
        self.tls.start()
        self.events.start()
        self.triggers.start(resume=True)
        self.doors.open()
        self._expire()
        self._ready(len(self.table.consoles))

    def _open_tools(self, inherited: Optional[State] = None) -> None:
        requests = Requests(self)
        listener = self._control_socket() if inherited is None else socket.socket(fileno=inherited.control)
        self.tools = ToolServer(self.loop, self.log, self.directory.fd, listener, requests.handlers)
        for each in () if inherited is None else inherited.conversations:
            answer = None
            if inherited is not None and each.request is not None:
                answer = requests.upgraded(each.request, inheritances.report(self, inherited))
            self.tools.inherit(each, answer)

    def _control_socket(self) -> socket.socket:
        mode = self.config.sockets.mode
        try:
            return toolserver.listener(self.directory.fd, mode, self._group())
        except PermissionError as error:
            # Consoles and their tools go on, for the daemon's own user and group.
            reason = f"{error}; vspcd's user has to be a member of sockets.group"
            self.log.error("socket-mode", socket=toolserver.NAME, reason=reason)
            return toolserver.listener(self.directory.fd, mode, None)

    def _group(self) -> Optional[int]:
        """Whose the sockets are, beside our own user's."""
        try:
            return group_number(self.config.sockets.group)
        except KeyError:
            self.log.error("unknown-group", group=self.config.sockets.group)
            return None

    def _apply_modes(self) -> None:
        """Who may use the sockets that are there, the tools' as well: whoever reaches that one may do most."""
        try:
            if self.tools is not None:
                self.tools.give_access(self.config.sockets.mode, self._group())
        except OSError as error:
            self.log.error("socket-mode", socket=toolserver.NAME, reason=str(error))
        for console in self.table.consoles.values():
            self.listeners.apply_modes(console)

    def _ready(self, consoles: int) -> None:
        addresses = self.doors.addresses()
        self.log.info(
            "ready",
            version=vspcd.__version__,
            pid=os.getpid(),
            proxy=",".join(addresses["proxy"]),
            admin=",".join(addresses["admin"]) or None,
            run=str(self.config.dirs.run),
            consoles=consoles,
        )
        self.notices.ready(addresses["proxy"])

    # Connections.

    def _reserved(self) -> int:
        """Descriptors that VMs may not use up: for clients, for workers that go on, and for consoles about to open."""
        return RESERVED + PER_CONSOLE * (self.claims.admission.pending + self.claims.arriving)

    def _came(self, door: str, sock: socket.socket, peer: str) -> None:
        if door != PROXY:
            self.queries.came(sock, peer)
        else:
            listen.keep_alive(sock)
            self.claims.vm_connected(sock, peer)

    def _all_came(self) -> None:
        self.claims.vms_connected()

    def _tls_secured(self, number: int, name: Optional[str], verified: bool) -> None:
        if not self.entrance.secured(number, name, verified):
            self.claims.tls_secured(number)

    def _tls_failed(self, number: int, reason: str) -> None:
        if not self.entrance.failed(number, reason):
            self.claims.tls_failed(number, reason)
            self.attachments.tls_failed(number, reason)

    def _is_known(self, console: Console) -> bool:
        return not self.stopping and self.table.consoles.get(console.id) is console

    def _worker_died(self, worker: Worker, how: str) -> None:
        self.claims.worker_died(worker, how)
        self.attachments.worker_died(worker, how)

    # Signals.

    def _reap(self) -> None:
        for pid, how in process.reap(self.watchdog.stopped):
            if (
                self.supervisor.reaped(pid, how)
                or self.tls.reaped(pid, how)
                or self.upgrades.reaped(pid, how)
                or any(aide.reaped(pid, how) for aide in self.aides)
            ):
                continue
            if pid != self.consoles.keeper.pid:
                continue
            if self.stopping:
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
        if upgrade.version_on_disk() not in (None, vspcd.__version__):
            self.upgrades.begin("SIGHUP")
            return
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
        self.listeners.config = self.audit.config = self.config
        self.supervisor.apply(self.config)
        self.locks.rights = peers.rights(self.config.access, self.log)
        self.locks.apply()
        self.attachments.reconsider()
        self.tls.reload(self.config)
        self.events.apply(self.config)
        self.triggers.apply(self.config)
        if old.sockets != self.config.sockets:
            self._apply_modes()
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
                self.consoles.forget(self.table.consoles[console], EXPIRED)
        low, high = EXPIRE_EVERY
        self.loop.call_later(min(high, max(low, expire / 4)), self._expire)

    # The end.

    def stop(self, reason: str) -> None:
        """Let everything end: first the doors, then the workers, then the map."""
        if self.stopping:
            return
        self.stopping = True
        self.log.info("stopping", reason=reason)
        self.notices.stopping()
        self.doors.close()
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
        self.triggers.stop()
        self.events.stop()
        self.audit.finish()
        self.consoles.keeper.stop()
        self.adoption.close()
        if self.tools is not None:
            self.tools.close()
