"""vspcctl status: the daemon's health, the VMs that it refused, and the table of consoles.

Does: gathers the answer's packets into the one object that --json prints, and shows it to people.
Owns: the layout of what people see.
Never: shows a VM's words unescaped; changes anything.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from vspcd import __version__
from vspcd.core.names import Ambiguous, NotFound, resolve, visible
from vspcd.ctl import table, usage
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.failure import NO_CONSOLE, OK, Failure

MEASURED_LIMIT = 50
"""Workers whose memory is read without --memory: it costs the kernel half a millisecond each."""
REFUSED_SHOWN = 5

Record = dict[str, Any]


class Named(NamedTuple):
    """A console as name resolution wants it."""

    id: str
    uuid: str
    label: Optional[str]
    name: Optional[str]


COLUMNS = (
    table.Column("NAME"),
    table.Column("UUID", 5, short=8),
    table.Column("STATE"),
    table.Column("SINCE", 3, right=True),
    table.Column("PEER", 6),
    table.Column("PORT", right=True),
    table.Column("CLIENTS", 1, right=True),
    table.Column("IN", 2, right=True),
    table.Column("OUT", 4, right=True),
    table.Column("PID", 7, right=True),
    table.Column("MEM", 8, right=True),
    table.Column("CPU", 9, right=True),
)
STATE_COLOURS = {"connected": "green", "waiting": "yellow"}


def run(arguments: Namespace) -> int:
    status = fetch(socket_path(arguments.socket, arguments.root), arguments.name)
    add_usage(status["consoles"], measure_all=arguments.memory)
    if arguments.json:
        print(json.dumps(status, indent=2))
        return OK
    width, colours = table.terminal_width(1), table.colours_wanted(1)
    lines = _details(status["consoles"][0]) if arguments.name else _overview(status, width, colours)
    sys.stdout.write("".join(line + "\n" for line in lines))
    return OK


def fetch(path: str, name: Optional[str] = None) -> Record:
    """The status as one object, the packets' lists joined; with the console ``name`` alone if given."""
    status: Record = {"consoles": [], "refused": []}
    with Client(path) as client:
        for packet in client.ask({"type": "status", **({"console": name} if name else {})}):
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
        processor = usage.processor_time(pid) if pid else None
        console["worker"] = {**(console.get("worker") or {}), "pid": pid, "uss": memory, "cpu": processor}


def _overview(status: Record, width: Optional[int], colours: bool) -> Iterator[str]:
    yield from _health(status, colours)
    yield from _refused(status["refused"], width, colours)
    yield ""
    if not status["consoles"]:
        yield "No VM has connected yet."
        return
    consoles = sorted(status["consoles"], key=lambda c: (c.get("name") or "~", c["id"]))
    layout = table.lay_out(COLUMNS, [_row(console, time.time()) for console in consoles], width)
    yield table.painted(layout.lines[0], "bold", colours)
    for console, line in zip(consoles, layout.lines[1:]):
        yield _coloured(line, str(console["state"]), colours)
    if not layout.complete:
        yield table.painted("Not everything fits; see vspcctl status NAME, or --json.", "dim", colours)
    if len(consoles) > MEASURED_LIMIT and any((c.get("worker") or {}).get("uss") is None for c in consoles):
        yield table.painted("Memory of so many workers is measured with --memory.", "dim", colours)


def _health(status: Record, colours: bool) -> Iterator[str]:
    version, consoles = visible(str(status.get("version"))), status["consoles"]
    connected = sum(console["state"] == "connected" for console in consoles)
    clients = sum(len(console.get("clients") or ()) for console in consoles)
    yield f"vspcd {version}, up {table.age(status.get('uptime'))}, pid {status.get('pid')}"
    if version != __version__:
        yield table.painted(f"This vspcctl is of version {__version__}.", "yellow", colours)
    if status.get("root"):
        yield f"Root: {visible(str(status['root']))}"
    for kind, addresses in (status.get("listeners") or {}).items():
        shown = visible(", ".join(map(str, addresses)))
        yield f"{visible(kind).capitalize()} listens on: {shown or table.painted('nothing', 'red', colours)}"
    waiting = len(consoles) - connected
    yield f"Consoles: {len(consoles)} ({connected} connected, {waiting} waiting), clients: {clients}"
    totals = {
        key: value for key, value in (status.get("totals") or {}).items() if isinstance(value, (int, float))
    }
    others = {
        key: value
        for key, value in totals.items()
        if key not in ("consoles", "connected", "clients", "waiting")
    }
    if others:
        yield "Totals: " + ", ".join(f"{_words(k)} {_total(k, v)}" for k, v in others.items())


def _total(key: str, value: float) -> str:
    return table.size(value) if key.startswith("bytes") else f"{value:g}" if value < 1e6 else f"{value:.0f}"


def _words(key: str) -> str:
    return visible(key).replace("_", " ")


def _refused(refused: list[Record], width: Optional[int], colours: bool) -> Iterator[str]:
    if not refused:
        return
    yield table.painted(f"Refused VMs: {len(refused)}", "red", colours)
    latest = sorted(refused, key=lambda one: _moment(one.get("when")), reverse=True)
    for one in latest[:REFUSED_SHOWN]:
        line = f"  {visible(str(one.get('peer')))} {_ago(one.get('when'))}: {visible(str(one.get('reason')))}"
        yield from _wrapped(line, width)
    if len(refused) > REFUSED_SHOWN:
        yield f"  and {len(refused) - REFUSED_SHOWN} before (all of them: --json)"


def _wrapped(line: str, width: Optional[int]) -> list[str]:
    if width is None or table.display_width(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(line, max(width, 20), subsequent_indent="    ", drop_whitespace=False)


def _row(console: Record, now: float) -> tuple[str, ...]:
    worker = console.get("worker") or {}
    return (
        shown_name(console),
        console["uuid"] + (f".{console['label']}" if console.get("label") else ""),
        visible(str(console["state"])),
        table.age(now - console["since"]) if console.get("since") else "-",
        visible(str(console.get("peer") or "-")),
        str(console.get("port") or "-"),
        str(len(console.get("clients") or ())),
        table.size(console.get("bytes_in")),
        table.size(console.get("bytes_out")),
        str(worker.get("pid") or "-"),
        table.size(worker.get("uss")),
        table.cpu_time(worker.get("cpu")),
    )


def shown_name(console: Record) -> str:
    """The name as it may be shown, with the port's label; ``-`` when the VM has told none."""
    name = visible(str(console.get("name") or "")) or "-"
    return f"{name}.{visible(console['label'])}" if console.get("label") else name


def _coloured(line: str, state: str, colours: bool) -> str:
    """The line with its state in colour; a name stands before it without a space ahead."""
    before, word, after = line.partition(f" {state}")
    colour = STATE_COLOURS.get(state)
    return before + " " + table.painted(state, colour, colours) + after if word and colour else line


def _details(console: Record) -> Iterator[str]:
    """Everything about one console, one fact a line."""
    worker, now = console.get("worker") or {}, time.time()
    facts: dict[str, str] = {
        "Name": shown_name(console),
        "State": f"{console['state']}, {_ago(console.get('since'))}"
        if console.get("since")
        else console["state"],
        "Worker": f"pid {worker.get('pid')}, memory {table.size(worker.get('uss'))}, "
        f"CPU {table.cpu_time(worker.get('cpu'))}"
        if worker.get("pid")
        else "none",
        "From the VM": f"{table.size(console.get('bytes_in'))} ({console.get('bytes_in')} bytes)",
        "To the VM": f"{table.size(console.get('bytes_out'))} ({console.get('bytes_out')} bytes)",
    }
    for key, value in console.items():
        if key not in ("name", "state", "since", "worker", "bytes_in", "bytes_out", "clients"):
            facts[_heading(key)] = _value(key, value, now)
    width = max(map(len, facts))
    yield from (f"{key + ':':{width + 1}} {visible(text)}" for key, text in facts.items())
    clients = console.get("clients") or []
    yield f"{'Clients:':{width + 1}} {len(clients) or 'none'}"
    if clients:
        heads = [table.Column(h) for h in ("ID", "KIND", "FROM", "MODE")] + [table.Column("LAG", right=True)]
        rows = [
            [visible(str(c.get(k, "-"))) for k in ("id", "kind", "from", "mode")] + [table.size(c.get("lag"))]
            for c in clients
        ]
        yield from ("  " + line for line in table.lay_out(heads, rows, None).lines)


def _heading(key: str) -> str:
    words = _words(key).replace("uuid", "UUID")
    return {"id": "ID", "peer": "VM's host", "log": "Log file"}.get(key, words[:1].upper() + words[1:])


def _value(key: str, value: Any, now: float) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(k))} {v}" for k, v in value.items())
    if key == "last_seen" and isinstance(value, (int, float)):
        return _ago(value, now)
    return str(value)


def _moment(when: Any) -> float:
    return float(when) if isinstance(when, (int, float)) else 0.0


def _ago(when: Any, now: Optional[float] = None) -> str:
    if not isinstance(when, (int, float)):
        return visible(str(when or "-"))
    passed = table.age((now or time.time()) - when)
    return f"{passed} ago ({time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))})"
