"""The short commands: list, names for completion, forget, unpark, reload, upgrade, stop.

Owns: nothing.
Never: touches a file or a process of the daemon; it is asked.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator

from vspcd.core.names import visible
from vspcd.ctl import status
from vspcd.ctl.client import ANSWER_DEADLINE, Client, said, socket_path
from vspcd.ctl.failure import OK, Failure
from vspcd.ctl.outcome import Outcome, spoken, told

UPGRADE_DEADLINE = 60.0
"""Seconds until the other version has checked itself and taken over."""

RENEWAL_DEADLINE = 6 * 3600.0
"""Seconds until thousands of workers were renewed, one after the other."""

STOP_DEADLINE = 30.0
"""Seconds that the daemon may take to end its workers."""


def list_consoles(arguments: Namespace) -> int:
    """One line per console, fields separated by tabs: name, id, state, port."""
    return told(lambda: _listed(arguments), arguments.json)


def _listed(arguments: Namespace) -> Outcome:
    fields = ("id", "name", "label", "state", "port")
    consoles = status.fetch(_path(arguments), fields=fields)["consoles"]
    if arguments.json:
        ordered = sorted(consoles, key=lambda c: (str(c.get("name") or ""), str(c["id"])))
        return OK, {"consoles": [{field: c.get(field) for field in fields} for c in ordered]}
    lines = [
        "\t".join(
            (status.shown_name(c), str(c["id"]), visible(str(c["state"])), str(c.get("port") or "-")),
        )
        for c in consoles
    ]
    sys.stdout.write("".join(line + "\n" for line in sorted(lines)))
    return OK, {}


def list_names(arguments: Namespace) -> int:
    """What can stand for a console on a command line: its name when it is unique and plain, else its id."""
    try:
        consoles = status.fetch(_path(arguments), fields=("id", "name", "label"))["consoles"]
    except Failure as failure:
        return failure.exit_code
    seen: dict[str, int] = {}
    for console in consoles:
        name = status.shown_name(console)
        seen[name] = seen.get(name, 0) + 1
    for console in consoles:
        name = status.shown_name(console)
        plain = console.get("name") and visible(console["name"]) == console["name"] and seen[name] == 1
        sys.stdout.write((name if plain else str(console["id"])) + "\n")
    return OK


def forget(arguments: Namespace) -> int:
    return _tell(arguments, {"type": "forget", "console": arguments.name})


def unpark(arguments: Namespace) -> int:
    return _tell(arguments, {"type": "unpark", "console": arguments.name})


def reload(arguments: Namespace) -> int:
    """It may find another version on the disk, and become that."""
    return _tell(arguments, {"type": "reload"}, UPGRADE_DEADLINE)


def upgrade(arguments: Namespace) -> int:
    """The version on the disk takes the running one's place, and that of the workers if asked to."""
    return spoken(_upgraded(arguments), arguments.json)


def _upgraded(arguments: Namespace) -> Iterator[str]:
    seconds = RENEWAL_DEADLINE if arguments.workers else UPGRADE_DEADLINE
    with Client(_path(arguments), seconds) as client:
        for packet in client.packets({"type": "upgrade", "workers": arguments.workers}):
            yield said(packet) or "done"


def stop(arguments: Namespace) -> int:
    """Asks the daemon to end, and waits until it has."""
    return spoken(_stopped(arguments), arguments.json)


def _stopped(arguments: Namespace) -> Iterator[str]:
    with Client(_path(arguments)) as client:
        answer = client.wait_for_end({"type": "stop"}, STOP_DEADLINE)
    yield said(answer[-1]) or "stopped"


def _tell(arguments: Namespace, request: dict[str, str], seconds: float = ANSWER_DEADLINE) -> int:
    return spoken(_told(arguments, request, seconds), arguments.json)


def _told(arguments: Namespace, request: dict[str, str], seconds: float) -> Iterator[str]:
    with Client(_path(arguments), seconds) as client:
        yield said(client.ask(request)[-1]) or "done"


def _path(arguments: Namespace) -> str:
    return socket_path(arguments.socket, arguments.root)
