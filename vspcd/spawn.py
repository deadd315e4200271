"""Spawning: how the master brings its children into the world.

Does: forks workers and the keeper with just the descriptors that they need.
Owns: the page arena, the log directory's descriptor, the pipe to the keeper.
Never: decides when; waits for a child.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Callable, NamedTuple, Optional

from vspcd.config_schema import Config
from vspcd.core.address import allowed, host_of
from vspcd.portmap.base import Backend
from vspcd.proto.control import NEGOTIATING
from vspcd.table import LegRecord, Worker
from vspcd.unix import process, roster, spool
from vspcd.unix.channel import Channel, pair
from vspcd.unix.page import Arena, Page
from workers import hooks, keeper, tls
from workers.shell import Start
from workers.vmware import VmwareWorker

F_SETPIPE_SZ = 1031  # linux/fcntl.h; Python 3.10 has a name for it


class Inherited(NamedTuple):
    """What lives on from the version before: the arena, the pages in use, both ends of the pipe to the keeper."""

    arena: int
    pages: frozenset[int]
    sync: tuple[int, int]


class Birth(NamedTuple):
    """A worker to be: both ends of its channel, and its page."""

    child: process.Child
    ours: socket.socket
    theirs: socket.socket
    page: int


class Nursery:
    """What every child inherits, made once."""

    def __init__(self, config: Config, inherited: Optional[Inherited] = None) -> None:
        self._arena = Arena() if inherited is None else Arena(inherited.arena, inherited.pages)
        self._run = str(config.dirs.run)
        config.dirs.run.mkdir(parents=True, exist_ok=True)
        self.roster = roster.opened(config.dirs.run)
        self._log_directory = -1
        if config.log.dir is not None:
            config.log.dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._log_directory = os.open(config.log.dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._log_path = "" if config.log.dir is None else str(config.log.dir)
        self._worker = self._template(config)
        self._sync_reader, self._sync_writer = word_pipe() if inherited is None else inherited.sync

    def worker(
        self, config: Config, state: str, leg: Optional[LegRecord] = None, page: Optional[int] = None
    ) -> Worker:
        """Fork a worker, with a VM connection to negotiate with or without; on the page of a dead one when it goes on
        for that.

        Raises OSError or MemoryError when there is no room.
        """
        birth = self._birth(config, leg, page)
        try:
            pid = process.fork(*birth.child, config.workers.memory)
        except OSError:
            self._stillborn(birth, page is None)
            raise
        return self._born(birth, pid, state, leg)

    def workers(
        self, config: Config, state: str, legs: Sequence[LegRecord]
    ) -> tuple[list[Worker], Optional[Exception]]:
        """Fork a worker for each of these connections, one right after the other. The workers of the first ones, up to
        the one that found no room, and why it did not.
        """
        births: list[Birth] = []
        none_left: Optional[Exception] = None
        try:
            for leg in legs:
                births.append(self._birth(config, leg))
        except (OSError, MemoryError) as error:
            none_left = error
        pids, failed = process.fork_all([birth.child for birth in births], config.workers.memory)
        for birth in births[len(pids) :]:
            self._stillborn(birth, True)
        made = [self._born(birth, pid, state, leg) for birth, pid, leg in zip(births, pids, legs)]
        return made, failed or none_left

    def _birth(self, config: Config, leg: Optional[LegRecord], page: Optional[int] = None) -> Birth:
        """All that a worker needs. Raises OSError or MemoryError when there is no room."""
        ours, theirs = pair()
        page = self._arena.take() if page is None else page
        start = Start(
            channel=theirs,
            arena=self._arena.fd,
            page=page,
            sync=self._sync_writer,
            roster=self.roster,
            run=self._run,
            leg=-1 if leg is None else leg.parked.fileno(),
            leg_number=0 if leg is None else leg.number,
            peer="" if leg is None else leg.peer,
            balancer=leg is not None and leg.balancer,
            secured=leg is not None and leg.secured,
            poisoned=leg is not None and leg.poisoned,
            session=None if leg is None else leg.session,
        )
        keep = start.descriptors() | ({self._log_directory} - {-1})
        return Birth(process.Child(partial(self._worker_of(config).live, start), keep), ours, theirs, page)

    def _worker_of(self, config: Config) -> VmwareWorker:
        if self._worker[0] is not config:
            self._worker = self._template(config)
        return self._worker[1]

    def _template(self, config: Config) -> tuple[Config, VmwareWorker]:
        """What each child begins with; it is never begun here."""
        return config, VmwareWorker(settings(config), self._log_directory)

    def _stillborn(self, birth: Birth, fresh: bool) -> None:
        birth.ours.close()
        birth.theirs.close()
        if fresh:
            self._arena.give_back(birth.page)

    def _born(self, birth: Birth, pid: int, state: str, leg: Optional[LegRecord]) -> Worker:
        birth.theirs.close()
        legs = {} if leg is None else {leg.number: leg}
        return Worker(pid, Channel(birth.ours), birth.page, self._arena.page(birth.page), state, legs)

    def keeper(self, open_map: Callable[[], Backend]) -> tuple[int, socket.socket]:
        """Fork the keeper; its pid and our end of its channel. Raises OSError."""
        pages = self._arena.in_use()

        def main(theirs: socket.socket) -> None:
            keeper.main(
                keeper.KeeperStart(
                    *(Channel(theirs), self._sync_reader, self._log_directory, open_map),
                    *(self._arena.fd, pages, self._log_path),
                )
            )

        return _helper(main, {self._sync_reader, self._log_directory, self._arena.fd} - {-1})

    def tls_helper(self, config: Config, clients: bool) -> tuple[int, socket.socket]:
        """Fork a TLS helper; its pid and our end of its channel. Raises OSError."""

        def main(theirs: socket.socket) -> None:
            tls.main(tls.TlsStart(theirs, tls_settings(config, clients), clients, self.roster, self._run))

        return _helper(main, {self.roster}, config.workers.memory)

    def hooks(self, config: Config) -> tuple[int, socket.socket]:
        """Fork the process that runs hooks; its pid and our end of its channel. Raises OSError."""
        begin = {"log_level": config.log_level, "concurrency": config.hooks.concurrency}
        return _helper(lambda theirs: hooks.main(theirs, begin))

    def watcher(self, settings: dict[str, Any]) -> tuple[int, socket.socket]:
        """Fork the process that looks into the logs; its pid and our end of its channel. Raises OSError."""

        def main(theirs: socket.socket) -> None:
            process.name("vspcd: watcher")
            import_module("workers.watcher").main(theirs, settings)

        return _helper(main)

    @property
    def lasting(self) -> Inherited:
        """What the next version goes on with."""
        return Inherited(self._arena.fd, frozenset(), (self._sync_reader, self._sync_writer))

    def page(self, number: int) -> Page:
        """A page that is in use."""
        return self._arena.page(number)

    def adopt(self, pid: int, channel: Channel, page: int, pidfd: int) -> Worker:
        """A worker that another daemon has forked, on a page of ours."""
        return Worker(pid, channel, page, self._arena.page(page), NEGOTIATING, pidfd=pidfd)

    def take_page(self) -> int:
        """A page for a worker that comes with facts of its own. Raises MemoryError."""
        return self._arena.take()

    def give_back(self, page: int) -> None:
        """Nobody has come to use it."""
        self._arena.give_back(page)

    def buried(self, worker: Worker) -> None:
        """The worker is dead and its page read for the last time."""
        self._arena.give_back(worker.page_number)


def _helper(
    main: Callable[[socket.socket], None], keep: Iterable[int] = (), memory: Optional[int] = None
) -> tuple[int, socket.socket]:
    """Fork a child that runs ``main`` with its end of a channel; its pid and our end. Raises OSError."""
    ours, theirs = pair()
    try:
        pid = process.fork(lambda: main(theirs), {theirs.fileno(), *keep}, memory)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def word_pipe() -> tuple[int, int]:
    """The pipe to the keeper; with room for what many workers say while a disk is slow, where that is allowed."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, F_SETPIPE_SZ, keeper.WORDS)
    except OSError:
        pass  # a word that finds no room is said again
    return reader, writer


def is_balancer(config: Config, peer: str) -> bool:
    """Whether connections from there begin with a PROXY protocol header."""
    return bool(config.proxy.balancers) and allowed(host_of(peer), config.proxy.balancers)


def settings(config: Config) -> dict[str, Any]:
    """What workers need to know of the configuration, as plain data."""
    return {
        "services": list(config.proxy.uri),
        "tls": {
            "mode": config.tls.mode,
            "usable": config.tls.mode != "off" and config.tls.certificate is not None,
        },
        "handshake_timeout": config.proxy.handshake_timeout,
        "log_level": config.log_level,
        "log": {
            "enabled": config.log.dir is not None,
            "max_size": config.log.max_size,
            "keep": config.log.keep,
            "sync": config.log.sync,
            "dir": "" if config.log.dir is None else str(config.log.dir),
            "spool": config.log.spool,
            "spool_dir": str(config.dirs.run / spool.FOLDER),
            "quota": config.log.quota,
            "reserve": config.log.reserve.size,
            "reserve_percent": config.log.reserve.percent,
        },
        "vmotion": {"timeout": config.vmotion.timeout, "limit": config.vmotion.limit},
        "identity": {"fallback": config.identity.fallback},
        "audit": {"typing": list(config.audit.typing)},
        "clients": {"replay": config.clients.replay, "max_lag": config.clients.max_lag},
    }


def tls_settings(config: Config, clients: bool) -> dict[str, Any]:
    """What a helper needs to know of the configuration, as plain data. Clients' certificates are others than VMs'."""
    tls = config.tls

    def path(value: object) -> Optional[str]:
        return None if value is None else str(value)

    return {
        "log_level": config.log_level,
        "handshake_timeout": config.proxy.handshake_timeout,
        "tls": {
            "certificate": path(tls.certificate),
            "key": path(tls.key),
            "client_ca": path(config.ports.client_ca if clients else tls.client_ca),
            "min_version": tls.min_version,
        },
    }
