"""vspcctl status: asks the daemon for its state and adds what /proc tells of the workers.

Does: gathers the answer's packets into the one object that --json prints; ``worker.uss`` is in bytes,
``worker.cpu`` in seconds of processor time used so far, each null when it cannot be read.
Owns: nothing.
Never: lays out anything for people; overview and details do.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from vspcd.core.names import Ambiguous, NotFound, resolve, visible
from vspcd.ctl import table, usage
from vspcd.ctl.client import ANSWER_DEADLINE, Client, socket_path
from vspcd.ctl.failure import NO_CONSOLE, OK, Failure
from vspcd.unix import cputime

MEASURED_LIMIT = 50
"""Workers whose memory is read without --memory: it costs the kernel half a millisecond each."""

Record = dict[str, Any]

NAMED = ("id", "uuid", "label", "name")
"""What names a console."""

FIELDS = (
    *(*NAMED, "state", "since", "peer", "tls", "port", "worker", "bytes_in", "bytes_out", "clients"),
    *("not_logged", "log_trouble", "quarantined", "parked_until"),
)
"""What the overview tells of a console."""


class Named(NamedTuple):
    """A console as name resolution wants it."""

    id: str
    uuid: str
    label: Optional[str]
    name: Optional[str]


def run(arguments: Namespace) -> int:
    fields = None if arguments.json or arguments.name else FIELDS
    status = fetch(socket_path(arguments.socket, arguments.root), arguments.name, fields)
    add_usage(status["consoles"], measure_all=arguments.memory)
    if arguments.json:
        print(json.dumps(status, indent=2) if arguments.name else by_line(status))
        return OK
    width, colours = table.terminal_width(1), table.colours_wanted(1)
    lines = _lines(status, width, one_console=bool(arguments.name))
    sys.stdout.write("".join(table.rendered(line, width, colours) + "\n" for line in lines))
    return OK


def by_line(status: Record) -> str:
    """JSON with each console on a line of its own: with all indented, 1,000 take the standard library 40 ms."""
    parts = []
    for key, value in status.items():
        text = json.dumps(value)
        if value and isinstance(value, list):
            text = "[\n    {}\n  ]".format(",\n    ".join(map(json.dumps, value)))
        parts.append(f"{json.dumps(key)}: {text}")
    return "{{\n  {}\n}}".format(",\n  ".join(parts))


def _lines(status: Record, width: Optional[int], one_console: bool) -> Iterable[table.Line]:
    from vspcd.ctl import details, overview

    return details.lines(status["consoles"][0], width) if one_console else overview.lines(status, width)


def fetch(
    path: str,
    name: Optional[str] = None,
    fields: Optional[Sequence[str]] = None,
    deadline: float = ANSWER_DEADLINE,
) -> Record:
    """The status as one object, the packets' lists joined; with the console ``name`` alone if given.

    ``fields``: what is needed of each console, ``id`` among it; None: everything. A daemon of another version may tell
    more, or leave out what it does not know.
    """
    status: Record = {"consoles": [], "refused": []}
    with Client(path, deadline) as client:
        for packet in _answer(client, {"console": name} if name else {}, fields):
            for key, value in packet.items():
                if key in ("consoles", "refused"):
                    status[key] += value
                elif key not in ("type", "end"):
                    status[key] = value
    for list_last in ("consoles", "refused"):
        status[list_last] = status.pop(list_last)
    if name and len(status["consoles"]) != 1:
        status["consoles"] = [find(name, status["consoles"])]
    return status


def _answer(client: Client, request: Record, fields: Optional[Sequence[str]]) -> list[Record]:
    """The packets. An older daemon that knows of no ``fields`` is asked for everything."""
    request = {"type": "status", **request}
    if fields is not None:
        try:
            return client.ask({**request, "fields": list(fields)})
        except Failure as failure:
            if failure.code != "bad-request":
                raise
    return client.ask(request)


def find(query: str, consoles: Iterable[Record]) -> Record:
    """The console that ``query`` means. Raises Failure when none or several are."""
    known = {str(console["id"]): console for console in consoles}
    try:
        return known[resolve(query, [named(console) for console in known.values()]).id]
    except (NotFound, Ambiguous) as error:
        raise Failure(str(error), NO_CONSOLE) from None


def named(console: Record) -> Named:
    return Named(console["id"], console["uuid"], console.get("label"), console.get("name"))


def add_usage(consoles: list[Record], measure_all: bool) -> None:
    """Fill in each worker's ``uss`` (bytes) and ``cpu`` (seconds); None where it was not read."""
    measure = measure_all or len(consoles) <= MEASURED_LIMIT
    for console in consoles:
        pid = (console.get("worker") or {}).get("pid")
        memory = usage.unique_memory(pid) if pid and measure else None
        processor = cputime.known_of(pid) if pid else None
        cpu = None if processor is None else round(processor, 3)
        console["worker"] = {**(console.get("worker") or {}), "pid": pid, "uss": memory, "cpu": cpu}


def shown_name(console: Record) -> str:
    """The name as it may be shown, with the port's label; ``-`` when the VM has told none."""
    name = visible(str(console.get("name") or "")) or "-"
    return f"{name}.{visible(console['label'])}" if console.get("label") else name
