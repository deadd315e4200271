"""The master's parts on a stage: real but for the workers, whose processes do nothing and whose parts we play.

Owns the workers' ends of their channels and the VMs' ends of their connections.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.unix.test_process import status_of
from tests.unix.turning import descriptor_of, turn, until
from tests.workers.bench import UUID, tcp_pair
from vspcd import config as configuration
from vspcd import master as masters
from vspcd.adoption import Adoption, opened
from vspcd.config_schema import Config
from vspcd.portkeeper import PortKeeper
from vspcd.portmap.memory import MemoryBackend
from vspcd.spawn import Inherited, Nursery
from vspcd.table import Console, LegRecord, Worker
from vspcd.unix.channel import Channel, pair
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.process import describe

HOST = "192.0.2.1"


class Player:
    """We, in the part of a worker."""

    def __init__(self, worker: Worker, sock: socket.socket, loop: Loop) -> None:
        self.worker = worker
        self.loop = loop
        self.channel = Channel(sock)
        self.heard: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.channel.serve(loop, self._hear, lambda: loop.forget(self.channel.fileno()))

    def _hear(self, message: dict[str, Any], fds: list[int]) -> None:
        self.heard.append(message)
        self.fds += fds

    def says(self, word: str, **fields: Any) -> None:
        """Speak, and let the master hear it."""
        self.channel.send({"type": word, **fields})
        for _ in range(3):
            turn(self.loop, 0.001)

    def claims(self, uuid: str = UUID, name: Optional[str] = None) -> None:
        self.says("claim", uuid=uuid, label="", name=name, session={})

    def was_told(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if message["type"] == kind]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.channel.close()


def idler(gate: int) -> int:
    """A process that does nothing until the gate closes. A fork of this one, with all that tests hold, takes longer."""
    actions = [(os.POSIX_SPAWN_DUP2, gate, 0)]
    return os.posix_spawnp("cat", ["cat"], os.environ, file_actions=actions)


class Cradle(Nursery):
    """Brings processes into the world that do nothing, and hands their parts to us."""

    loop: Loop

    def __init__(self, config: Config, inherited: Optional[Inherited] = None) -> None:
        super().__init__(config, inherited)
        self.players: list[Player] = []
        self._gate, self._opened = os.pipe()  # whatever becomes of us, those who wait at it end with us

    def worker(
        self, config: Config, state: str, leg: Optional[LegRecord] = None, page: Optional[int] = None
    ) -> Worker:
        ours, theirs = pair()
        page = self._arena.take() if page is None else page
        legs = {} if leg is None else {leg.number: leg}
        pid = idler(self._gate)
        worker = Worker(pid, Channel(ours), page, self._arena.page(page), state, legs)
        self.players.append(Player(worker, theirs, self.loop))
        return worker

    def workers(
        self, config: Config, state: str, legs: Sequence[LegRecord]
    ) -> tuple[list[Worker], Optional[Exception]]:
        return [self.worker(config, state, leg) for leg in legs], None

    def close(self) -> None:
        """Let go of what a nursery has for ever."""
        for fd in (self._gate, self._opened, self._arena.fd, self._log_directory, self.roster):
            os.close(fd)
        for fd in (self._sync_reader, self._sync_writer):
            os.close(fd)


class Stage:
    """The real master, but for its workers."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, *overrides: str) -> None:
        chosen = ["ports.enabled=false", "proxy.listen=[127.0.0.1:0]", "admin.listen=[127.0.0.1:0]"]
        config = configuration.load(None, [*chosen, *overrides], root)
        self.run = config.dirs.run
        self.reread: Callable[[], Config] = lambda: config
        patch.setattr(masters, "Nursery", Cradle)
        log = Log("error", os.open(os.devnull, os.O_WRONLY))
        self.master = masters.Master(config, log, self._read_again)
        self.loop = self.master.loop
        assert isinstance(self.master.nursery, Cradle)
        self.cradle = self.master.nursery
        self.cradle.loop = self.loop
        self.table = self.master.table
        self.supervisor, self.claims = self.master.supervisor, self.master.claims
        self.admission = self.claims.admission
        self._fars: list[socket.socket] = []
        self._start()

    def _read_again(self) -> Config:
        return self.reread()

    def _start(self) -> None:
        """What the master's run does, without its name, its signals and its end."""
        master = self.master
        master.doors.prepare(master.config)
        master.adoption = Adoption(master, opened(master.directory.fd), master._all_known)
        master.consoles.keeper = PortKeeper(
            self.loop, master.log, self.cradle, MemoryBackend, master._map_loaded
        )
        master.audit.begin(master.consoles.keeper)
        master.claims.tls = master.tls
        self.until(lambda: master.tools)

    def dial(self, host: str = HOST) -> tuple[Player, socket.socket]:
        """A VM connects: its worker's part, and the VM's end."""
        near, far = tcp_pair()
        self.claims.vm_connected(near, f"{host}:{far.getsockname()[1]}")
        self.claims.vms_connected()
        far.settimeout(10)
        self._fars.append(far)
        return self.cradle.players[-1], far

    def owner(self) -> tuple[Player, socket.socket]:
        """A worker that serves the console, with a VM."""
        player, far = self.dial()
        player.claims()
        number = next(iter(player.worker.legs))
        player.says("connected", leg=number, session={})
        return player, far

    @property
    def console(self) -> Console:
        (console,) = self.table.consoles.values()
        return console

    def reap(self, player: Player) -> None:
        """Wait for the death of a worker and let the supervisor know."""
        self.supervisor.reaped(player.worker.pid, describe(status_of(player.worker.pid)))

    def dies(self, player: Player, number: int = signal.SIGKILL) -> None:
        """A worker dies, its end of the channel with it."""
        os.kill(player.worker.pid, number)
        player.close()
        self.reap(player)

    def serving(self) -> Player:
        """Whoever serves the console now."""
        return next(player for player in self.cradle.players if player.worker is self.console.worker)

    def dies_for_good(self, player: Player) -> None:
        """A worker dies, and all that go on in its place, until the console is given up."""
        others = [each for each in self.cradle.players if each is not player]
        for _ in range(10):
            self.dies(player, signal.SIGXCPU)
            if self.console.worker is None or self.serving() in others:
                return
            player = self.serving()
        raise AssertionError("the console is never given up")

    def killed(self, player: Player) -> bool:
        """Whether the supervisor has killed the worker."""
        done = os.waitid(os.P_PID, player.worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return done is not None

    def bury_helpers(self) -> None:
        """The TLS helpers die, and the master learns of it."""
        for pid in tuple(self.master.tls.helpers):
            os.kill(pid, signal.SIGKILL)
            status_of(pid)
            self.master.tls.reaped(pid, "was killed")

    def until(self, condition: Callable[[], object]) -> None:
        until(self.loop, condition)

    def close(self) -> None:
        """End everything."""
        for player in self.cradle.players:
            if player.worker.pid in self.table.workers:
                self.dies(player, signal.SIGXCPU)  # of which few are enough to give a console up
            player.close()
        self.bury_helpers()
        keeper = self.master.consoles.keeper
        if keeper.pid:
            os.kill(keeper.pid, signal.SIGKILL)  # a good end would sync the whole file system
            status_of(keeper.pid)
        assert self.master.tools is not None
        self.master.tools.close()
        self.master.adoption.close()
        for sock in (*self._fars, *(door.sock for door in self.master.doors.doors)):
            sock.close()
        self.loop.close()
        self.cradle.close()
        lock = descriptor_of(self.run / "vspcd.pid")
        for fd in (self.master.directory.fd, self.master.log._fd, lock):
            os.close(fd)


def ended(far: socket.socket) -> bool:
    """Whether the VM's connection is closed, for both sides and by everybody."""
    try:
        return far.recv(1) == b""
    except ConnectionError:
        return True
