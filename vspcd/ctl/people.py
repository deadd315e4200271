"""The commands about people on the consoles: who, lock, unlock, kick.

Owns: the columns of ``who``.
Never: decides who may do what; the daemon does.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl import table
from vspcd.ctl.client import Client, said, socket_path
from vspcd.ctl.failure import OK
from vspcd.ctl.outcome import spoken
from vspcd.ctl.status import Record, shown_name

COLUMNS = (
    table.Column("CONSOLE"),
    table.Column("ID", right=True),
    table.Column("USER"),
    table.Column("KIND", 2),
    table.Column("FROM", 3),
    table.Column("MODE"),
    table.Column("SINCE", 4, right=True),
    table.Column("IDLE", 5, right=True),
    table.Column("LAG", 1, right=True),
)


def who(arguments: Namespace) -> int:
    """Everybody on a console, or on all of them."""
    clients: list[Record] = []
    with Client(_path(arguments)) as client:
        for packet in client.packets({"type": "who", "console": arguments.name}):
            clients += packet["clients"]
    if arguments.json:
        print(json.dumps({"clients": clients}, indent=2))
        return OK
    if not clients:
        print("Nobody is on a console." if arguments.name is None else "Nobody is on it.")
        return OK
    width, colours = table.terminal_width(1), table.colours_wanted(1)
    heading, *rows = listed(clients, width)
    lines = [table.Line(heading, "bold"), *map(table.Line, rows)]
    sys.stdout.write("".join(table.rendered(line, width, colours) + "\n" for line in lines))
    return OK


def listed(clients: list[Record], width: Optional[int]) -> list[str]:
    """A heading, and a line for everybody."""
    now = time.time()
    ordered = sorted(clients, key=lambda one: (one.get("name") or "", one["console"], one["id"]))
    return table.lay_out(COLUMNS, [_row(one, now) for one in ordered], width).lines


def _row(one: Record, now: float) -> tuple[str, ...]:
    name = shown_name(one) if one.get("name") else str(one["console"])
    since, idle = one.get("since"), one.get("idle")
    return (
        name,
        str(one["id"]),
        visible(str(one.get("user") or "-")),
        visible(str(one.get("kind"))),
        visible(str(one.get("from"))),
        _mode(one),
        table.age(now - since) if since else "-",
        "-" if idle is None else table.age(idle),
        table.size(one.get("lag")),
    )


def _mode(one: Record) -> str:
    """How somebody is on a console: with the lock, or kept from typing by one."""
    if one.get("lock"):
        return "lock"
    mode, asked = str(one.get("mode")), one.get("asked")
    return visible(mode if asked in (None, mode) else f"{mode} (wants {asked})")


def lock(arguments: Namespace) -> int:
    """The lock is for a session that there is already: this one, or the user's only one."""
    kind = "takeover" if arguments.take_over else "lock"
    request: dict[str, Any] = {"client": arguments.id, "reason": arguments.reason}
    if not arguments.take_over:
        request["exclusive"] = arguments.exclusive
    return _tell(arguments, kind, request)


def unlock(arguments: Namespace) -> int:
    return _tell(arguments, "unlock", {"client": None})


def kick(arguments: Namespace) -> int:
    return _tell(arguments, "kick", {"client": arguments.id, "reason": arguments.reason})


def _tell(arguments: Namespace, kind: str, request: dict[str, Any]) -> int:
    asked = {"type": kind, "console": arguments.name, **request}
    return spoken(_told(_path(arguments), asked), arguments.json)


def _told(path: str, request: dict[str, Any]) -> Iterator[str]:
    with Client(path) as client:
        yield said(client.ask(request)[-1]) or "done"


def _path(arguments: Namespace) -> str:
    return socket_path(arguments.socket, arguments.root)


def described(lock: Optional[Record]) -> str:
    """Who has a lock on a console, in words; empty when nobody has."""
    if not lock:
        return ""
    since = time.strftime("%H:%M", time.localtime(lock["since"]))
    reason = f": {lock['reason']}" if lock.get("reason") else ""
    return visible(f"{lock['owner']} ({lock['via']}, since {since}){reason}")
