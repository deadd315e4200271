"""What tools are told of a console: each field of ``vspcctl status --json``, and how the master knows it.

Does: describes a console, with all of the fields or with those that a tool has asked for.
Owns: nothing.
Never: asks a worker for its figures (they are in its page), reads /proc for thousands of processes (the tool does).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Callable, Optional

from vspcd.config_schema import Config
from vspcd.locks import shown
from vspcd.table import Console
from vspcd.unix.logdoubt import Doubts, trouble_of
from vspcd.unix.page import HEAD, NOT_LOGGED


class Description:
    """How consoles are described. ``wanted``: with these fields alone, as far as there are such; None: with all."""

    def __init__(self, config: Config, wanted: Optional[Iterable[str]] = None) -> None:
        self._config = config
        names: Iterable[str] = FIELDS if wanted is None else dict.fromkeys(wanted)
        self._fields = [(name, FIELDS[name]) for name in names if name in FIELDS]

    def of(self, console: Console) -> dict[str, Any]:
        """One console."""
        config = self._config
        return {name: value(console, config) for name, value in self._fields}


def _state(console: Console) -> str:
    if console.leg is not None:
        return "connected"
    return "parked" if console.parked_for else "waiting"


def _log(console: Console, config: Config) -> Optional[str]:
    return None if config.log.dir is None else f"{config.log.dir}/{console.id}.log"


def _socket(console: Console, config: Config) -> Optional[str]:
    return None if console.unix is None else f"{config.dirs.run}/{console.id}.sock"


def _worker(console: Console) -> Optional[dict[str, Any]]:
    return None if console.worker is None else {"pid": console.worker.pid, "uss": None, "cpu": None}


def _clients(console: Console) -> Sequence[dict[str, Any]]:
    if console.worker is None or not console.clients:
        return []
    figures = console.worker.page.clients()
    head = console.worker.page.words[HEAD]
    return [
        {
            "id": client.number,
            "kind": client.kind,
            "from": client.origin,
            "mode": client.mode,
            "lag": max(0, head - figures[client.number].cursor) if client.number in figures else None,
            "since": client.since,
        }
        for client in console.clients.values()
    ]


FIELDS: Mapping[str, Callable[[Console, Config], Any]] = MappingProxyType(
    {
        "id": lambda console, _: console.id,
        "uuid": lambda console, _: console.id.partition(".")[0],
        "label": lambda console, _: console.label or None,
        "name": lambda console, _: console.name,
        "state": lambda console, _: _state(console),
        "since": lambda console, _: console.since,
        "last_seen": lambda console, _: console.last_seen if console.leg is None else time.time(),
        "peer": lambda console, _: None if console.leg is None else console.leg.peer,
        "tls": lambda console, _: console.leg is not None and console.leg.secured,
        "port": lambda console, _: console.port if console.port_open else None,
        "socket": _socket,
        "log": _log,
        "worker": lambda console, _: _worker(console),
        "bytes_in": lambda console, _: console.bytes_in,
        "bytes_out": lambda console, _: console.bytes_out,
        "not_logged": lambda console, _: console.worker.page.words[NOT_LOGGED] if console.worker else 0,
        "in_doubt": lambda console, _: Doubts(console.worker.page).bytes if console.worker else 0,
        "log_trouble": lambda console, _: (
            (trouble_of(console.worker.page) or None) if console.worker else None
        ),
        "quarantined": lambda console, _: console.quarantined,
        "parked_until": lambda console, _: time.time() + console.parked_for if console.parked_for else None,
        "bios_uuid": lambda console, _: console.bios_uuid,
        "location_uuid": lambda console, _: console.location_uuid,
        "line": lambda console, _: console.line,
        "moves": lambda console, _: console.moves,
        "lock": lambda console, _: shown(console.lock),
        "clients": lambda console, _: _clients(console),
    }
)
"""In the order in which they are shown."""
