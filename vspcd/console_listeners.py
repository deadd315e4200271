"""The consoles' own listeners: a Unix socket and, when the configuration wants one, a TCP port each.

Does: opens and closes them, moves a console whose port something else holds, accepts clients.
Owns: the listening sockets and the allocation of port numbers.
Never: serves a client; ``on_client(console, kind, socket, peer)`` gets it, with no peer on a Unix socket.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import time
from typing import Callable, Optional

from vspcd.config_schema import Config
from vspcd.portmap.ports import Ports, PortsExhausted, PortTaken
from vspcd.table import Console
from vspcd.unix import listen
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

OnClient = Callable[[Console, str, socket.socket, str], None]

NO_PORT, NO_SOCKET = "no-port", "no-socket"
ATTEMPTS = 100
RETRY_AFTER = 5.0
RESERVED = 16
"""Descriptors that clients may not use up: for vspcctl, and for workers that go on for others."""

LAST_GROUP = 2**32 - 2  # the one above means "no change" to chown
TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})


class ConsoleListeners:
    """``directory`` is an open descriptor of the run directory; ``is_known`` tells forgotten consoles."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        config: Config,
        directory: int,
        on_client: OnClient,
        is_known: Callable[[Console], bool],
    ) -> None:
        self.config = config
        self._loop = loop
        self._log = log
        self._directory = directory
        self._on_client = on_client
        self.is_known = is_known
        self.changed = self.open  # a console has got a port late, which the map has to learn
        self._retried: dict[str, Console] = {}  # what is missing of them is tried again
        self._failures: dict[tuple[str, str], int] = {}
        self._looked = 0.0
        self.ports = Ports(config.ports.first)

    def remember(self, console: Console) -> None:
        """A console that the port map knows keeps its port."""
        if console.port:
            try:
                self.ports.fix(console.id, console.port)
            except (PortTaken, ValueError) as error:
                self._log.warning("port-dropped", console=console.id, port=console.port, reason=str(error))
                console.port = 0
        # Its age counts from now on: it may have been in use until the end of the last daemon, which had no time to
        # note that, and the clock may have jumped since.
        self.ports.seen(console.id, time.monotonic())

    def assign(self, console: Console) -> None:
        """Bind the console's port, so that nobody else can take it; it listens from ``open`` on.

        Where that takes long, or cannot be, it goes on later, and ``changed`` is called when there is one.
        """
        if not self.config.ports.enabled or console.tcp is not None:
            return
        wanted = 0
        for _ in range(ATTEMPTS):
            try:
                wanted = self.ports.assign(console.id)
                if self._bound(console, listen.tcp(self.config.ports.address, wanted)):
                    self._failures.pop((console.id, NO_PORT), None)
                    return
            except PortsExhausted as error:
                self._look_again()
                self._failed(console, NO_PORT, f"{error}; lower ports.first, or free some of them")
                return
            except OSError as error:
                if error.errno not in TAKEN or not wanted:
                    self._failed(
                        console, NO_PORT, f"{error.strerror}; ports.address is {self.config.ports.address}"
                    )
                    return
                self._move(console, wanted, error)
        self._again(console, 0.0 if wanted else RETRY_AFTER)  # others have their turn in between

    def _look_again(self) -> None:
        """Some of the ports that others held may be free; all of them are tried no more often than this."""
        now = time.monotonic()
        if now - self._looked >= RETRY_AFTER:
            self._looked = now
            self.ports.retry_busy()

    def _failed(self, console: Console, event: str, reason: str) -> None:
        """Out of ports, descriptors or the like: say so, and try again later."""
        count = self._failures[console.id, event] = self._failures.get((console.id, event), 0) + 1
        if count & (count - 1) == 0:
            # The 1st, 2nd, 4th, 8th … time: it may last for hours.
            self._log.error(event, console=console.id, reason=reason, again_in=RETRY_AFTER, count=count)
        self._again(console, RETRY_AFTER)

    def _again(self, console: Console, seconds: float) -> None:
        """Try later what is missing, while the console is known."""
        if self._retried.get(console.id) is console:
            return

        def again() -> None:
            if self._retried.get(console.id) is console:
                del self._retried[console.id]
            if not self.is_known(console):
                return
            port = console.port
            self.assign(console)
            if console.port == port:
                self.open(console)
            else:
                self.changed(console)

        self._retried[console.id] = console
        self._loop.call_later(seconds, again)

    def _move(self, console: Console, taken: int, error: OSError) -> None:
        self.ports.busy(taken)
        if console.port == taken:
            self._log.error(
                "port-moved", console=console.id, name=console.name, port=taken,
                reason=f"something else holds it ({os.strerror(error.errno or 0)}); the next free one is taken",
            )  # fmt: skip

    def _bound(self, console: Console, tcp: socket.socket) -> bool:
        """Whether the port can be the console's: the system may have chosen one that another console has."""
        port = tcp.getsockname()[1]
        try:
            self.ports.fix(console.id, port)
        except PortTaken:
            tcp.close()
            return False
        console.tcp = tcp
        if console.port not in (0, port):
            self._log.warning("port-changed", console=console.id, old=console.port, new=port)
        console.port = port
        return True

    def open(self, console: Console) -> None:
        """Accept clients on the console's socket and port."""
        if console.unix is None:
            self._open_unix(console)
        if console.tcp is not None and not console.port_open:
            console.acceptors.append(self._accept(console, "telnet", console.tcp))

    def inherit(self, console: Console) -> None:
        """Go on with the listeners of the version before, as far as the configuration still has them."""
        ports = self.config.ports
        if console.tcp is not None and not (ports.enabled and console.tcp.getsockname()[0] == ports.address):
            console.tcp.close()
            console.tcp = None
        if console.unix is not None:
            console.acceptors.append(self._accept(console, "raw", console.unix))
            self.assign(console)
            self.open(console)

    def _open_unix(self, console: Console) -> None:
        settings = self.config.sockets
        try:
            console.unix = listen.unix(
                self._directory, f"{console.id}.sock", settings.mode, group_number(settings.group)
            )
        except (OSError, KeyError) as error:
            self._failed(console, NO_SOCKET, str(error))
        else:
            self._failures.pop((console.id, NO_SOCKET), None)
            console.acceptors.append(self._accept(console, "raw", console.unix))

    def _accept(self, console: Console, kind: str, listener: socket.socket) -> Acceptor:
        def take(sock: socket.socket, peer: str) -> None:
            if kind == "telnet":
                listen.keep_alive(sock)
            self._on_client(console, kind, sock, peer)

        return Acceptor(self._loop, self._log, f"{kind} of {console.id}", listener, take, lambda: RESERVED)

    def apply_modes(self, console: Console) -> None:
        """Give the console's socket the configured mode and group."""
        if console.unix is None:
            return  # it gets them when it is opened
        sockets = self.config.sockets
        try:
            group = group_number(sockets.group)
            listen.give_access(self._directory, f"{console.id}.sock", sockets.mode, group)
        except (OSError, KeyError) as error:
            self._log.error("socket-mode", console=console.id, reason=str(error))

    def close(self, console: Console) -> None:
        """Nobody can come any more."""
        for event in (NO_PORT, NO_SOCKET):
            self._failures.pop((console.id, event), None)
        for acceptor in console.acceptors:
            acceptor.close()
        console.acceptors.clear()
        if console.tcp is not None:
            console.tcp.close()
        if console.unix is not None:
            listen.remove(self._directory, f"{console.id}.sock")
        console.tcp = console.unix = None


def group_number(group: Optional[str]) -> Optional[int]:
    """The number of a group by name or number. KeyError when there is none of that name, or no such number."""
    if group is None:
        return None
    if not (group.isascii() and group.isdigit()):
        return grp.getgrnam(group).gr_gid
    if len(group) > len(str(LAST_GROUP)) or int(group) > LAST_GROUP:
        raise KeyError(f"{group[:20]} is above {LAST_GROUP}")
    return int(group)
