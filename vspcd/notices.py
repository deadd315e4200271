"""What the service manager (systemd) is told: that the daemon is ready, how many consoles it has, that its loop turns.

Does: says READY and STOPPING; says WATCHDOG from a timer of the loop, and a STATUS line when it has changed.
Owns: the notification socket.
Never: waits for the service manager; does anything where there is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Optional

import sdnotify

from vspcd.table import Table
from vspcd.unix.loop import Loop

EVERY = 5.0
SHARE = 3
"""The watchdog is fed this often in its time, so that a lost message or a late turn is not the end."""


class Notices:
    """The environment is as the service manager has set it, see sd_notify(3) and sd_watchdog_enabled(3)."""

    def __init__(self, loop: Loop, table: Table) -> None:
        self._loop = loop
        self._table = table
        self._wanted = bool(os.environ.get("NOTIFY_SOCKET"))
        self._notifier: Optional[sdnotify.SystemdNotifier] = None
        self._addresses = ""
        self._owed = ""  # what could not be said yet
        self._said = ""
        patience = _watchdog()
        self._fed = patience is not None
        self._every = EVERY if patience is None else min(EVERY, patience / SHARE)
        self._stopping = False

    def waiting(self, processes: int) -> None:
        """The last daemon has died; those who have gone on come to this one first."""
        if self._wanted:
            self._say(f"STATUS=Waiting for {_many(processes, 'process', 'processes')} of the daemon before")

    def ready(self, addresses: Sequence[str]) -> None:
        """The doors are open; from now on the watchdog is fed."""
        if self._wanted:
            self._addresses = ", ".join(addresses)
            self._owed = "READY=1"
            self._turn()

    def stopping(self) -> None:
        """Everything ends now."""
        if self._wanted:
            self._stopping = True
            self._owed = "STOPPING=1"
            self._tell()

    def status(self) -> str:
        """One line for ``systemctl status``."""
        consoles = self._table.consoles.values()
        connected = sum(console.leg is not None for console in consoles)
        if self._stopping:
            return f"Ending {_many(len(consoles), 'console')}, {connected:,} connected"
        clients = sum(len(console.clients) for console in consoles)
        shown = f"{_many(len(consoles), 'console')}, {connected:,} connected, {_many(clients, 'client')}"
        return f"{shown}; VMs dial {self._addresses}"

    def _turn(self) -> None:
        self._tell()
        self._loop.call_later(self._every, self._turn)

    def _tell(self) -> None:
        """Say what has changed, and that the loop turns."""
        status = self.status()
        lines = [self._owed] if self._owed else []
        lines += [f"STATUS={status}"] if status != self._said else []
        lines += ["WATCHDOG=1"] if self._fed else []
        if lines and self._say("\n".join(lines)):
            self._owed, self._said = "", status

    def _say(self, text: str) -> bool:
        """Whether it was said. What was not is said at the next turn, through a new socket if this one is dead."""
        try:
            if self._notifier is None:
                self._notifier = sdnotify.SystemdNotifier(debug=True)  # which lets errors through
                self._notifier.socket.setblocking(False)
            self._notifier.notify(text)
        except BlockingIOError:
            return False
        except OSError:
            self._notifier = None
            return False
        return True


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"


def _watchdog() -> Optional[float]:
    """Seconds after which the service manager loses patience with this process; None when it never does."""
    told = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(told) / 1e6 if told.isdecimal() and int(told) and meant == str(os.getpid()) else None
