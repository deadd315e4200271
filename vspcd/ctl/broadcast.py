"""vspcctl broadcast: type the same on many consoles, on all of them at once.

Does: chooses the consoles, asks whether it is meant, types, and tells in their order what became of each.
Owns: nothing.
Never: lets a VM that takes nothing hold up the others; ends on Ctrl-C without telling what was typed and what not.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.core.patterns import matches
from vspcd.ctl import status
from vspcd.ctl.client import socket_path
from vspcd.ctl.failure import FAILED, INTERRUPTED, NO_CONSOLE, OK, Failure
from vspcd.ctl.manytyping import ManyTyping
from vspcd.ctl.outcome import Outcome, told
from vspcd.ctl.send import STDIN, wanted
from vspcd.ctl.status import Record, shown_name

FIELDS = (*status.NAMED, "state")
ASKED_ABOUT = 10  # names that the question lists


class _Named:
    """A console as patterns see it."""

    def __init__(self, record: Record) -> None:
        self.id = str(record["id"])
        self.uuid = str(record["uuid"]).replace("-", "")
        self.label = str(record.get("label") or "")
        self.name: Optional[str] = record.get("name")


def run(arguments: Namespace) -> int:
    """Type on all consoles that the pattern means and that have a VM."""
    return told(lambda: _broadcast(arguments), arguments.json)


def _broadcast(arguments: Namespace) -> Outcome:
    data = wanted(arguments)
    path = socket_path(arguments.socket, arguments.root)
    ready = _meant(path, arguments.pattern)
    if arguments.dry_run:
        results = [_result(each, None, "would be typed to") for each in ready]
        for result in [] if arguments.json else results:
            _tell(result)
        return OK, {"results": results}
    _ask(arguments, ready, len(data))
    many = ManyTyping(path, data, arguments.timeout)
    results = []
    for result in _typed(many, ready):
        results.append(result)
        if not arguments.json:
            _tell(result)
    failed = sum(not result["ok"] for result in results)
    if many.interrupted or failed:
        return _told_of_failures(arguments, results, failed, many.interrupted)
    return OK, {"results": results}


def _meant(path: str, pattern: str) -> list[Record]:
    """The consoles with a VM, by name. Raises Failure when there are none."""
    patterns = pattern.split(",")
    meant = [
        each for each in status.fetch(path, fields=FIELDS)["consoles"] if matches(patterns, _Named(each))
    ]
    ready = sorted((each for each in meant if each["state"] == "connected"), key=shown_name)
    if not ready:
        hint = None if not meant else f"{len(meant)} fit, and have no VM"
        raise Failure(f"no console with a VM fits {visible(pattern)}", NO_CONSOLE, hint)
    return ready


def _typed(many: ManyTyping, consoles: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """What became of each, in their order, as soon as it is known."""
    known: dict[int, Optional[str]] = {}
    next_one = 0
    for number, wrong in many.run([str(each["id"]) for each in consoles]):
        known[number] = wrong
        while next_one in known:
            yield _result(consoles[next_one], known[next_one])
            next_one += 1


def _result(console: Record, wrong: Optional[str], said: str = "typed") -> dict[str, Any]:
    return {
        "console": console["id"],
        "name": shown_name(console),
        "ok": wrong is None,
        "said": said if wrong is None else wrong,
    }


def _tell(result: dict[str, Any]) -> None:
    name, said = result["name"], result["said"]
    stream = sys.stdout if result["ok"] else sys.stderr
    stream.write(f"{said}\n" if said.startswith((f"{name} ", f"{name}:")) else f"{name}: {said}\n")
    stream.flush()


def _told_of_failures(
    arguments: Namespace, results: Sequence[dict[str, Any]], failed: int, interrupted: bool
) -> Outcome:
    what = f"typed on {len(results) - failed} of {len(results)} consoles"
    what = f"interrupted: {what}" if interrupted else what
    if not arguments.json:
        sys.stderr.write(f"vspcctl: {what}\n")
    return INTERRUPTED if interrupted else FAILED, {"results": list(results), "error": what}


def _ask(arguments: Namespace, consoles: Sequence[Record], size: int) -> None:
    """Somebody at a terminal has to say yes. Raises Failure."""
    if arguments.yes or arguments.json or not (os.isatty(0) and os.isatty(2)):
        return
    names = ", ".join(shown_name(each) for each in consoles[:ASKED_ABOUT])
    more = f" and {len(consoles) - ASKED_ABOUT} more" if len(consoles) > ASKED_ABOUT else ""
    what = "1 console" if len(consoles) == 1 else f"{len(consoles)} consoles"
    text = f"these {size} bytes" if arguments.text == STDIN else visible(arguments.text)
    sys.stderr.write(f"Type {text} on {what}: {names}{more}? [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    if answer.strip().lower() not in ("y", "yes"):
        raise Failure("nothing was typed")
