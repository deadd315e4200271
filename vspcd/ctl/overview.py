"""What vspcctl status shows of everything: the daemon's health, the VMs that it refused, the table of consoles.

Owns: the columns, and which of them go first on a narrow terminal.
Never: shows a VM's words unescaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Optional

from vspcd import __version__
from vspcd.core.names import visible
from vspcd.ctl import table
from vspcd.ctl.status import MEASURED_LIMIT, Record, shown_name
from vspcd.ctl.table import Line

REFUSED_SHOWN = 5
NAMES_SHOWN = 5
DAY = 86400
DAYS_WARNED = 30
"""Days before its end from which the certificate is shown as a warning."""
THUMBPRINTS = {"sha1": "SHA-1", "sha256": "SHA-256"}

COLUMNS = (
    table.Column("NAME"),
    table.Column("UUID", 5, short=9),
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
TOLD_TOTALS = frozenset({"consoles", "connected", "waiting", "clients"})
STATE_COLOURS = {"connected": "green", "waiting": "yellow", "parked": "red"}


def lines(status: Record, width: Optional[int]) -> Iterator[Line]:
    """All lines; the table is fitted into ``width``, if there is one."""
    now = time.time()
    yield from _health(status)
    yield from _certificate(status.get("certificate"), width, now)
    yield from _unlogged(status["consoles"])
    yield from _poisonous(status["consoles"], now)
    yield from _refused(status["refused"], now)
    yield Line("")
    if status["consoles"]:
        yield from _consoles(status["consoles"], width, now)
    else:
        yield Line("No VM has connected yet.")


def _health(status: Record) -> Iterator[Line]:
    version, consoles = visible(str(status.get("version"))), status["consoles"]
    yield Line(f"vspcd {version}, up {table.age(status.get('uptime'))}, pid {status.get('pid')}")
    if version != __version__:
        yield Line(f"This vspcctl is of version {__version__}.", "yellow")
    if status.get("root"):
        yield Line(f"Root: {visible(str(status['root']))}")
    for kind, addresses in (status.get("listeners") or {}).items():
        shown = visible(", ".join(map(str, addresses)))
        yield Line(f"{visible(kind).capitalize()} listens on: {shown or 'nothing'}", None if shown else "red")
    connected = sum(console["state"] == "connected" for console in consoles)
    clients = sum(len(console.get("clients") or ()) for console in consoles)
    secured = sum(bool(console.get("tls")) for console in consoles)
    counts = f"{connected} connected, {len(consoles) - connected} waiting"
    counts += f"; {secured} over TLS" if secured else ""
    yield Line(f"Consoles: {len(consoles)} ({counts}), clients: {clients}")
    yield from _totals(status.get("totals") or {})


def _certificate(certificate: Optional[Record], width: Optional[int], now: float) -> Iterator[Line]:
    """How long it is still valid, whom it names, and the thumbprints that VMs can pin."""
    if certificate is None:
        return
    end = certificate["not_after"]
    until = time.strftime("%Y-%m-%d", time.localtime(end))
    left, colour = _left(end - now)
    subject = visible(str(certificate.get("subject") or "-"))
    yield Line(f"Certificate: {left} (until {until}), {subject}", colour, part=left)
    for key, heading in THUMBPRINTS.items():
        yield from _thumbprint(heading, visible(str(certificate.get(key) or "-")), width)


def _left(seconds: float) -> tuple[str, Optional[str]]:
    """How long it is still valid, and the colour of that."""
    if seconds <= 0:
        return "expired", "red"
    days = int(seconds // DAY)
    left = f"{days} day{'s' * (days != 1)} left" if days else f"{table.age(seconds)} left"
    return left, "yellow" if days < DAYS_WARNED else None


def _thumbprint(heading: str, text: str, width: Optional[int]) -> Iterator[Line]:
    """In one piece if there is room, else in halves: a line must not end within a byte."""
    half = (len(text) // 2 // 3 + 1) * 3
    fits = width is None or len(text) + 10 <= width
    for begin, piece in enumerate([text] if fits else [text[:half], text[half:]]):
        yield Line(f"  {'' if begin else heading:7} {piece}")


def _totals(totals: Record) -> Iterator[Line]:
    """The figures that are not told otherwise."""
    numbers = {key: value for key, value in totals.items() if isinstance(value, (int, float))}
    told = [f"{table.words(visible(k))} {_total(k, v)}" for k, v in numbers.items() if k not in TOLD_TOTALS]
    if told:
        yield Line("Totals: " + ", ".join(told))


def _total(key: str, value: float) -> str:
    return table.size(value) if key.startswith("bytes") else f"{value:.10g}"


def _unlogged(consoles: list[Record]) -> Iterator[Line]:
    """Which consoles have a log in trouble, and which have lost bytes of it."""
    stuck = [f"{shown_name(c)} ({visible(str(c['log_trouble']))})" for c in consoles if c.get("log_trouble")]
    if stuck:
        yield Line(f"Logs in trouble on {len(stuck)} consoles: {_some(stuck)}", "red")
    lossy = [f"{shown_name(c)} ({table.size(c['not_logged'])})" for c in consoles if c.get("not_logged")]
    if lossy:
        yield Line(f"Bytes not logged on {len(lossy)} consoles: {_some(lossy)}", "red")


def _poisonous(consoles: list[Record], now: float) -> Iterator[Line]:
    """Which VMs have said what kills workers, and which of them are not let in for that."""
    parked = [
        f"{shown_name(c)} (for {table.age(c['parked_until'] - now)})"
        for c in consoles
        if c.get("parked_until")
    ]
    if parked:
        yield Line(f"Parked VMs: {_some(parked)}; let in again by vspcctl unpark NAME", "red")
    kept = [f"{shown_name(c)} ({len(c['quarantined'])})" for c in consoles if c.get("quarantined")]
    if kept:
        yield Line(f"Put into quarantine, see vspcctl status NAME: {_some(kept)}", "yellow")


def _some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refused(refused: list[Record], now: float) -> Iterator[Line]:
    if not refused:
        return
    yield Line(f"Refused VMs: {len(refused)}", "red")
    latest = sorted(refused, key=lambda one: _order(one.get("when")), reverse=True)
    for one in latest[:REFUSED_SHOWN]:
        who, why = visible(str(one.get("peer"))), visible(str(one.get("reason")))
        yield Line(f"  {who} {table.moment(one.get('when'), now)}: {why}")
    if len(refused) > REFUSED_SHOWN:
        yield Line(f"  and {len(refused) - REFUSED_SHOWN} before (all of them: --json)")


def _order(when: Any) -> float:
    return float(when) if isinstance(when, (int, float)) else 0.0


def _consoles(consoles: list[Record], width: Optional[int], now: float) -> Iterator[Line]:
    ordered = sorted(consoles, key=lambda c: (not c.get("name"), c.get("name") or "", c["id"]))
    layout = table.lay_out(COLUMNS, [_row(console, now) for console in ordered], width)
    yield Line(layout.lines[0], "bold")
    for console, line in zip(ordered, layout.lines[1:]):
        state = str(console["state"])
        yield Line(line, STATE_COLOURS.get(state), part=state)
    if not layout.complete:
        yield Line("Not everything fits; see vspcctl status NAME, or --json.", "dim")
    if len(consoles) > MEASURED_LIMIT and all(console["worker"]["uss"] is None for console in consoles):
        yield Line("The memory of so many workers is measured with --memory.", "dim")


def _row(console: Record, now: float) -> tuple[str, ...]:
    worker, since = console.get("worker") or {}, console.get("since")
    return (
        shown_name(console),
        console["uuid"] + (f".{visible(console['label'])}" if console.get("label") else ""),
        visible(str(console["state"])),
        table.age(now - since) if since else "-",
        visible(str(console.get("peer") or "-")) + (" tls" if console.get("tls") else ""),
        str(console.get("port") or "-"),
        str(len(console.get("clients") or ())),
        table.size(console.get("bytes_in")),
        table.size(console.get("bytes_out")),
        str(worker.get("pid") or "-"),
        table.size(worker.get("uss")),
        table.cpu_time(worker.get("cpu")),
    )
