"""What vspcctl status NAME shows: everything about one console, one fact a line, then its clients and moves.

Owns: the order and the headings of the facts.
Never: shows a VM's words unescaped; leaves out a field that it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional

from vspcd.core.address import host_of
from vspcd.core.names import visible
from vspcd.ctl import table
from vspcd.ctl.people import described
from vspcd.ctl.status import Record, shown_name
from vspcd.ctl.table import Line

HEADINGS = {
    "id": "ID",
    "uuid": "UUID",
    "bios_uuid": "BIOS UUID",
    "location_uuid": "Location UUID",
    "line": "Serial line",
    "peer": "VM's host",
    "tls": "TLS",
    "log": "Log file",
}
TOLD_FIRST = frozenset({"name", "state", "since", "worker", "bytes_in", "bytes_out"})
TABLES = frozenset({"clients", "moves"})
CLIENT_COLUMNS = (
    table.Column("ID", 1),
    table.Column("KIND"),
    table.Column("FROM"),
    table.Column("MODE"),
    table.Column("SINCE", 2),
    table.Column("LAG"),
)
MOVE_COLUMNS = (
    table.Column("WHEN"),
    table.Column("FROM", 1),
    table.Column("TO"),
    table.Column("GOAHEAD ms", 2, right=True),
    table.Column("TOTAL ms", 3, right=True),
    table.Column("HELD", 4, right=True),
    table.Column("OUTCOME", short=20),
)
MOVED = "moved"
INDENT = "  "


def lines(console: Record, terminal: Optional[int]) -> Iterator[Line]:
    """Its facts, then its clients and its moves; both tables are fitted into the terminal's width, if any."""
    now = time.time()
    clients, moves = console.get("clients") or [], console.get("moves") or []
    facts = {
        **_first_facts(console, now),
        **_other_facts(console, now),
        "Clients": str(len(clients) or "none"),
    }
    width = max(map(len, facts)) + 1
    yield from (_fact(key, text, width) for key, text in facts.items())
    yield from _table(CLIENT_COLUMNS, [_client(client, now) for client in clients], terminal)
    yield _fact("Moves", str(len(moves) or "none"), width)
    failed = {at for at, move in enumerate(moves, 1) if move.get("outcome") != MOVED}
    rows = [_move(move, now) for move in moves]
    for at, line in enumerate(_table(MOVE_COLUMNS, rows, terminal)):
        yield line._replace(colour="yellow") if at in failed else line


def _fact(heading: str, text: str, width: int) -> Line:
    return Line(f"{heading + ':':{width}} {visible(text)}")


def _table(
    columns: Sequence[table.Column], rows: Sequence[Sequence[str]], width: Optional[int]
) -> Iterator[Line]:
    """Heading and rows below a fact; nothing without rows."""
    if not rows:
        return
    layout = table.lay_out(columns, rows, None if width is None else width - len(INDENT))
    yield from (Line(INDENT + row) for row in layout.lines)
    if not layout.complete:
        yield Line(INDENT + "Not everything fits; all of it: --json.", "dim")


def _first_facts(console: Record, now: float) -> dict[str, str]:
    since, worker = console.get("since"), console.get("worker") or {}
    memory, processor = table.size(worker.get("uss")), table.cpu_time(worker.get("cpu"))
    pid = worker.get("pid")
    return {
        "Name": shown_name(console),
        "State": str(console["state"]) + (f", since {table.moment(since, now)}" if since else ""),
        "Worker": f"pid {pid}, memory {memory}, CPU {processor}" if pid else "none",
        "From the VM": _bytes(console.get("bytes_in")),
        "To the VM": _bytes(console.get("bytes_out")),
    }


def _other_facts(console: Record, now: float) -> dict[str, str]:
    others = {key: value for key, value in console.items() if key not in TOLD_FIRST | TABLES}
    return {_heading(key): _value(key, value, now) for key, value in others.items()}


def _client(client: Record, now: float) -> tuple[str, ...]:
    facts = (visible(str(client.get(key, "-"))) for key in ("id", "kind", "from", "mode"))
    since = client.get("since")
    return (*facts, table.age(now - since) if since else "-", table.size(client.get("lag")))


def _move(move: Record, now: float) -> tuple[str, ...]:
    hosts = (visible(host_of(str(move.get(key) or ""))) or "-" for key in ("from", "to"))
    goahead, whole = (_milliseconds(move.get(key)) for key in ("goahead_ms", "done_ms"))
    held, outcome = table.size(move.get("held")), visible(str(move.get("outcome") or "-"))
    return (_clock(move.get("when"), now), *hosts, goahead, whole, held, outcome)


def _milliseconds(count: Any) -> str:
    return f"{count:.1f}" if isinstance(count, (int, float)) else "-"


def _clock(when: Any, now: float) -> str:
    """The time of day, or the date as well when that was not today."""
    if not isinstance(when, (int, float)):
        return "-"
    then, today = time.localtime(when), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def _bytes(count: Any) -> str:
    if count is None:
        return "-"
    return f"{count} bytes" + (f" ({table.size(count)})" if count >= 1000 else "")


def _quarantined(one: Record, now: float) -> str:
    return f"{_bytes(one.get('bytes'))} in {one.get('file')}, {table.moment(one.get('when'), now)}"


def _heading(key: str) -> str:
    words = table.words(visible(key))
    return HEADINGS.get(key, words[:1].upper() + words[1:])


def _value(key: str, value: Any, now: float) -> str:
    if value is None or value == "":
        return "-"
    if key in FORMS:
        return FORMS[key](value, now)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def line_settings(line: Any) -> str:
    """A serial line's settings in the usual form, such as ``115200 8N1``, and what is out of the ordinary."""
    if not isinstance(line, dict):
        return "-"
    parity, flow = str(line.get("parity", "?"))[:1].upper(), line.get("flow")
    told = [f"{line.get('baud')} {line.get('data_size')}{parity}{line.get('stop_size')}"]
    told += [f"flow {flow}"] if flow not in (None, "none") else []
    told += [table.words(signal) for signal in ("break_on", "dtr", "rts") if line.get(signal)]
    return visible(", ".join(told))


FORMS: Mapping[str, Callable[[Any, float], str]] = {
    "lock": lambda value, _now: described(value) or "none",
    "last_seen": table.moment,
    "line": lambda value, _now: line_settings(value),
    "not_logged": lambda value, _now: _bytes(value),
    "in_doubt": lambda value, _now: _bytes(value),
    "quarantined": lambda value, now: "; ".join(_quarantined(one, now) for one in value) or "none",
    "parked_until": lambda value, now: f"{_clock(value, now)}, or vspcctl unpark",
}
"""How the values of some fields are written."""
