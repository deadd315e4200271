"""What vspcctl status NAME shows: everything about one console, one fact a line.

Owns: the order and the headings of the facts.
Never: shows a VM's words unescaped; leaves out a field that it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from vspcd.core.names import visible
from vspcd.ctl import table
from vspcd.ctl.status import Record, shown_name
from vspcd.ctl.table import Line

HEADINGS = {
    "id": "ID",
    "uuid": "UUID",
    "bios_uuid": "BIOS UUID",
    "location_uuid": "Location UUID",
    "line": "Serial line",
    "peer": "VM's host",
    "log": "Log file",
}
TOLD_FIRST = frozenset({"name", "state", "since", "worker", "bytes_in", "bytes_out"})
CLIENT_HEADINGS = ("ID", "KIND", "FROM", "MODE", "SINCE", "LAG")


def lines(console: Record) -> Iterator[Line]:
    """Its facts, then its clients."""
    now = time.time()
    clients = console.get("clients") or []
    facts = {
        **_first_facts(console, now),
        **_other_facts(console, now),
        "Clients": str(len(clients) or "none"),
    }
    width = max(map(len, facts)) + 1
    yield from (Line(f"{key + ':':{width}} {visible(text)}") for key, text in facts.items())
    if clients:
        columns = [table.Column(heading) for heading in CLIENT_HEADINGS]
        rows = [_client(client, now) for client in clients]
        yield from (Line("  " + row) for row in table.lay_out(columns, rows, None).lines)


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
    others = {key: value for key, value in console.items() if key not in TOLD_FIRST and key != "clients"}
    return {_heading(key): _value(key, value, now) for key, value in others.items()}


def _client(client: Record, now: float) -> tuple[str, ...]:
    facts = (visible(str(client.get(key, "-"))) for key in ("id", "kind", "from", "mode"))
    since = client.get("since")
    return (*facts, table.age(now - since) if since else "-", table.size(client.get("lag")))


def _bytes(count: Any) -> str:
    if count is None:
        return "-"
    return f"{count} bytes" + (f" ({table.size(count)})" if count >= 1000 else "")


def _heading(key: str) -> str:
    words = table.words(visible(key))
    return HEADINGS.get(key, words[:1].upper() + words[1:])


def _value(key: str, value: Any, now: float) -> str:
    if value is None or value == "":
        return "-"
    if key == "last_seen":
        return table.moment(value, now)
    if isinstance(value, dict):
        return line_settings(value) if key == "line" else ", ".join(f"{k} {v}" for k, v in value.items())
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
