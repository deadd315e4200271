"""vspcctl top: which consoles are busy: traffic, processor time, and clients that lag.

Does: compares two answers of the daemon, and what /proc says of the workers; sorts; prints it once, or hands it to
``vspcd.ctl.topscreen`` again and again.
Owns: the columns and the orders.
Never: asks more often than it was told to; fails on a worker that has just gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Callable, NamedTuple, Optional

from vspcd.ctl import status, table
from vspcd.ctl.client import socket_path
from vspcd.ctl.failure import OK
from vspcd.unix import cputime

ONCE_INTERVAL, LIVE_INTERVAL = 1.0, 2.0
SHORTEST = 0.1
FIELDS = (*status.NAMED, "state", "bytes_in", "bytes_out", "clients", "worker")

COLUMNS = (
    table.Column("NAME", short=16),
    table.Column("STATE", 4),
    table.Column("IN/s", right=True),
    table.Column("OUT/s", 1, right=True),
    table.Column("CPU%", right=True),
    table.Column("LAG", right=True),
    table.Column("CLIENTS", 3, right=True),
    table.Column("IN", 5, right=True),
    table.Column("OUT", 6, right=True),
    table.Column("PID", 2, right=True),
)


class Sample(NamedTuple):
    """What was the case at one time: monotonic seconds, the daemon's answer, processor seconds by process."""

    when: float
    status: status.Record
    cpu: Mapping[int, float]


class Row(NamedTuple):
    """One console: per second, per cent of one processor, bytes."""

    id: str
    name: str
    state: str
    bytes_in_rate: float
    bytes_out_rate: float
    cpu: Optional[float]
    lag: int
    clients: int
    bytes_in: int
    bytes_out: int
    pid: Optional[int]

    @property
    def traffic(self) -> float:
        """Bytes a second, both ways."""
        return self.bytes_in_rate + self.bytes_out_rate


class View(NamedTuple):
    """All that is shown: of the daemon, and the rows in no order."""

    status: status.Record
    seconds: float
    master_cpu: Optional[float]
    rows: Sequence[Row]


ORDERS: Mapping[str, Callable[[Row], Any]] = MappingProxyType(
    {
        "traffic": lambda row: (-row.traffic, -(row.cpu or 0), row.name),
        "cpu": lambda row: (-(row.cpu or 0), -row.traffic, row.name),
        "lag": lambda row: (-row.lag, -row.traffic, row.name),
        "name": lambda row: (row.name, row.id),
    }
)


def run(arguments: Namespace) -> int:
    path = socket_path(arguments.socket, arguments.root)
    live = not (arguments.once or arguments.json) and os.isatty(0) and os.isatty(1)
    seconds = arguments.interval or (LIVE_INTERVAL if live else ONCE_INTERVAL)
    seconds = max(SHORTEST, seconds)
    if live:
        from vspcd.ctl import topscreen

        return topscreen.run(path, seconds, arguments.sort)
    before = sample(path)
    time.sleep(seconds)
    view = compare(before, sample(path))
    rows = sorted(view.rows, key=ORDERS[arguments.sort])[: arguments.lines or None]
    if arguments.json:
        print(json.dumps(as_json(view, rows), indent=2))
        return OK
    width, colours = table.terminal_width(1), table.colours_wanted(1)
    lines = [table.Line(heading(view)), *lines_of(rows, width)]
    sys.stdout.write("".join(table.rendered(line, width, colours) + "\n" for line in lines))
    return OK


def sample(path: str) -> Sample:
    """Ask the daemon and look at its processes. Raises Failure."""
    answer = status.fetch(path, fields=FIELDS)
    pids = [answer.get("pid"), *((console.get("worker") or {}).get("pid") for console in answer["consoles"])]
    used = {pid: cputime.known_of(pid) for pid in pids if pid}
    return Sample(time.monotonic(), answer, {pid: cpu for pid, cpu in used.items() if cpu is not None})


def compare(before: Sample, after: Sample) -> View:
    """What has happened between two samples."""
    seconds = max(after.when - before.when, 0.001)
    earlier = {console["id"]: console for console in before.status["consoles"]}

    def percent(pid: Optional[int]) -> Optional[float]:
        if pid is None or pid not in before.cpu or pid not in after.cpu:
            return None
        return max(0.0, round(100 * (after.cpu[pid] - before.cpu[pid]) / seconds, 1))

    def row(console: status.Record) -> Row:
        old, pid = earlier.get(console["id"], console), (console.get("worker") or {}).get("pid")
        bytes_in, bytes_out = console.get("bytes_in") or 0, console.get("bytes_out") or 0
        clients = console.get("clients") or ()
        return Row(
            console["id"],
            status.shown_name(console) if console.get("name") else console["id"],
            str(console["state"]),
            max(0.0, (bytes_in - (old.get("bytes_in") or 0)) / seconds),
            max(0.0, (bytes_out - (old.get("bytes_out") or 0)) / seconds),
            percent(pid),
            max((client.get("lag") or 0 for client in clients), default=0),
            len(clients),
            bytes_in,
            bytes_out,
            pid,
        )

    rows = [row(console) for console in after.status["consoles"]]
    return View(after.status, seconds, percent(after.status.get("pid")), rows)


def heading(view: View) -> str:
    """The daemon in one line."""
    rows = view.rows
    connected = sum(row.state == "connected" for row in rows)
    cpu = sum(row.cpu or 0 for row in rows)
    master = "-" if view.master_cpu is None else f"{view.master_cpu:.0f}%"
    return (
        f"up {table.age(view.status.get('uptime'))}, {connected} of {len(rows)} connected, "
        f"in {table.size(sum(row.bytes_in_rate for row in rows))}/s, "
        f"out {table.size(sum(row.bytes_out_rate for row in rows))}/s, cpu {cpu:.0f}%, master {master}"
    )


def lines_of(rows: Sequence[Row], width: Optional[int]) -> list[table.Line]:
    """The table, its heading first."""
    if not rows:
        return [table.Line("No VM has connected yet.")]
    first, *rest = table.lay_out(COLUMNS, [_cells(row) for row in rows], width).lines
    return [table.Line(first, "bold"), *(_coloured(row, line) for row, line in zip(rows, rest))]


def _coloured(row: Row, line: str) -> table.Line:
    if row.lag:
        return table.Line(line, "yellow")
    return table.Line(line, None if row.state == "connected" else "dim")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.state,
        table.size(row.bytes_in_rate),
        table.size(row.bytes_out_rate),
        "-" if row.cpu is None else f"{row.cpu:.1f}",
        table.size(row.lag),
        str(row.clients),
        table.size(row.bytes_in),
        table.size(row.bytes_out),
        str(row.pid or "-"),
    )


def as_json(view: View, rows: Sequence[Row]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "seconds": round(view.seconds, 3),
        "uptime": view.status.get("uptime"),
        "master": {"pid": view.status.get("pid"), "cpu": view.master_cpu},
        "consoles": [
            {
                **row._asdict(),
                "bytes_in_rate": round(row.bytes_in_rate, 1),
                "bytes_out_rate": round(row.bytes_out_rate, 1),
            }
            for row in rows
        ],
    }
