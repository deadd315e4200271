"""vspcctl send and broadcast: type something on one console, or on many.

Does: types and waits until each VM has taken it, some consoles at a time.
Owns: nothing.
Never: waits for an answer of the VM; expect --send does.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.core.patterns import matches
from vspcd.ctl import status
from vspcd.ctl.client import socket_path
from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.failure import FAILED, NO_CONSOLE, OK, USAGE, Failure
from vspcd.ctl.outcome import Outcome, told
from vspcd.ctl.status import Record, shown_name
from vspcd.ctl.typed import ENTER, typed

STDIN = "-"
READ_LIMIT = 1 << 20
ASKED_ABOUT = 10  # names that the question lists


def run(arguments: Namespace) -> int:
    """Type on one console."""
    return told(lambda: _send(arguments), arguments.json)


def _send(arguments: Namespace) -> Outcome:
    data = _wanted(arguments)
    path = socket_path(arguments.socket, arguments.root)
    with Dialogue(path, arguments.name) as dialogue:
        dialogue.must_be_connected()
        dialogue.type(data, arguments.timeout)
    return OK, {"console": dialogue.id, "name": dialogue.name, "bytes": len(data)}


def _wanted(arguments: Namespace) -> bytes:
    """What is to be typed. From standard input it is taken as it is."""
    if arguments.text == STDIN:
        data = sys.stdin.buffer.read(READ_LIMIT + 1)
        if len(data) > READ_LIMIT:
            raise Failure(f"more than {READ_LIMIT} bytes; use vspcctl console NAME < FILE", USAGE)
        return data
    return typed(arguments.text) + (b"" if arguments.no_enter else ENTER)


class _Named:
    """A console as patterns see it."""

    def __init__(self, record: Record) -> None:
        self.id = str(record["id"])
        self.uuid = str(record["uuid"]).replace("-", "")
        self.label = str(record.get("label") or "")
        self.name: Optional[str] = record.get("name")


def broadcast(arguments: Namespace) -> int:
    """Type on all consoles that the pattern means and that have a VM."""
    return told(lambda: _broadcast(arguments), arguments.json)


def _broadcast(arguments: Namespace) -> Outcome:
    data = _wanted(arguments)
    path = socket_path(arguments.socket, arguments.root)
    patterns = arguments.pattern.split(",")
    meant = [each for each in status.fetch(path)["consoles"] if matches(patterns, _Named(each))]
    ready = sorted((each for each in meant if each["state"] == "connected"), key=shown_name)
    if not ready:
        hint = None if not meant else f"{len(meant)} fit, and have no VM"
        raise Failure(f"no console with a VM fits {visible(arguments.pattern)}", NO_CONSOLE, hint)
    if arguments.dry_run:
        return OK, _reported(arguments, [_result(each, "would be typed to") for each in ready])
    _ask(arguments, ready)
    results = [_result(each, _typed_on(path, each, data, arguments.timeout)) for each in ready]
    failed = sum(not result["ok"] for result in results)
    return FAILED if failed else OK, _reported(arguments, results)


def _typed_on(path: str, console: Record, data: bytes, seconds: float) -> str:
    """Empty when it went well."""
    try:
        with Dialogue(path, str(console["id"])) as dialogue:
            dialogue.must_be_connected()
            dialogue.type(data, seconds)
    except Failure as failure:
        return failure.message
    return ""


def _result(console: Record, said: str) -> dict[str, Any]:
    ok = said in ("", "would be typed to")
    return {"console": console["id"], "name": shown_name(console), "ok": ok, "said": said}


def _reported(arguments: Namespace, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not arguments.json:
        for result in results:
            word = result["said"] or "typed"
            stream = sys.stdout if result["ok"] else sys.stderr
            stream.write(f"{result['name']}: {word}\n")
    return {"results": list(results)}


def _ask(arguments: Namespace, consoles: Sequence[Record]) -> None:
    """Somebody at a terminal has to say yes. Raises Failure."""
    if arguments.yes or arguments.json or not (os.isatty(0) and os.isatty(2)):
        return
    names = ", ".join(shown_name(each) for each in consoles[:ASKED_ABOUT])
    more = f" and {len(consoles) - ASKED_ABOUT} more" if len(consoles) > ASKED_ABOUT else ""
    sys.stderr.write(f"Type {visible(arguments.text)} on {len(consoles)} consoles: {names}{more}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing was typed")
