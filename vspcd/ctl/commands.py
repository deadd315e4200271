"""The short commands: list, names for completion, forget, reload, stop.

Owns: nothing.
Never: touches a file or a process of the daemon; it is asked.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from vspcd.core.names import visible
from vspcd.ctl import status
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.failure import OK, Failure

STOP_DEADLINE = 30.0
"""Seconds that the daemon may take to end its workers."""


def list_consoles(arguments: Namespace) -> int:
    """One line per console, fields separated by tabs: name, id, state, port."""
    consoles = status.fetch(_path(arguments))["consoles"]
    lines = [
        "\t".join(
            (status.shown_name(c), str(c["id"]), visible(str(c["state"])), str(c.get("port") or "-")),
        )
        for c in consoles
    ]
    sys.stdout.write("".join(line + "\n" for line in sorted(lines)))
    return OK


def list_names(arguments: Namespace) -> int:
    """What can stand for a console on a command line: its name when it is unique and plain, else its id."""
    try:
        consoles = status.fetch(_path(arguments))["consoles"]
    except Failure as failure:
        return failure.exit_code
    names = [status.shown_name(c) for c in consoles]
    for name, console in zip(names, consoles):
        plain = (
            name != "-" and names.count(name) == 1 and visible(str(console.get("name"))) == console["name"]
        )
        sys.stdout.write((name if plain else str(console["id"])) + "\n")
    return OK


def forget(arguments: Namespace) -> int:
    return _tell(arguments, {"type": "forget", "console": arguments.name})


def reload(arguments: Namespace) -> int:
    return _tell(arguments, {"type": "reload"})


def stop(arguments: Namespace) -> int:
    """Asks the daemon to end, and waits until it has."""
    with Client(_path(arguments)) as client:
        answer = client.wait_for_end({"type": "stop"}, STOP_DEADLINE)
    print(visible(str(answer[-1].get("message") or "stopped")))
    return OK


def _tell(arguments: Namespace, request: dict[str, str]) -> int:
    with Client(_path(arguments)) as client:
        print(visible(str(client.ask(request)[-1].get("message") or "done")))
    return OK


def _path(arguments: Namespace) -> str:
    return socket_path(arguments.socket, arguments.root)
