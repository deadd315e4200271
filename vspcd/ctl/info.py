"""What the escape menu's info tells of a console, asked from the daemon while the session goes on.

Owns: nothing.
Never: takes longer than the deadline that it is given; fails.
"""

from __future__ import annotations

from typing import Any

from vspcd.core.names import visible
from vspcd.ctl import details, status, table
from vspcd.ctl.client import Client
from vspcd.ctl.failure import NO_DAEMON, Failure


def describe(path: str, console_id: str, seconds: float) -> list[str]:
    """Lines about the console and its clients, or the reason why there are none."""
    try:
        with Client(path, seconds) as client:
            packets = client.ask({"type": "status", "console": console_id})
    except Failure as failure:
        return [f"no answer from the daemon: {failure.message}"]
    found = [
        console
        for packet in packets
        for console in packet.get("consoles") or ()
        if console["id"] == console_id
    ]
    return _lines(found[0]) if found else ["the daemon does not know this console any more"]


def daemon_lives(path: str, console_id: str, seconds: float) -> bool:
    """Whether the daemon answers, whatever it says."""
    try:
        with Client(path, seconds) as client:
            client.ask({"type": "status", "console": console_id})
    except Failure as failure:
        return failure.exit_code != NO_DAEMON
    return True


def _lines(console: dict[str, Any]) -> list[str]:
    clients = console.get("clients") or []
    return [
        f"{status.shown_name(console)} ({console['id']})",
        f"{visible(str(console['state']))}, VM's host {visible(str(console.get('peer') or '-'))}, "
        f"port {console.get('port') or '-'}",
        f"VM sent {table.size(console.get('bytes_in'))}, was sent {table.size(console.get('bytes_out'))}"
        f"; serial line {details.line_settings(console.get('line'))}",
        "clients: "
        + ", ".join(visible(f"{c.get('kind')} {c.get('mode')} from {c.get('from')}") for c in clients),
    ]
