"""vspcctl send: type something on a console.

Does: types and waits until the VM has taken it.
Owns: nothing.
Never: waits for an answer of the VM; expect --send does.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from vspcd.ctl.client import socket_path
from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.failure import OK, USAGE, Failure
from vspcd.ctl.outcome import Outcome, told
from vspcd.ctl.typed import ENTER, typed

STDIN = "-"
READ_LIMIT = 1 << 20


def run(arguments: Namespace) -> int:
    """Type on one console."""
    return told(lambda: _send(arguments), arguments.json)


def _send(arguments: Namespace) -> Outcome:
    data = wanted(arguments)
    path = socket_path(arguments.socket, arguments.root)
    with Dialogue(path, arguments.name) as dialogue:
        dialogue.must_be_connected()
        dialogue.type(data, arguments.timeout)
    return OK, {"console": dialogue.id, "name": dialogue.name, "bytes": len(data)}


def wanted(arguments: Namespace) -> bytes:
    """What is to be typed. From standard input it is taken as it is."""
    if arguments.text == STDIN:
        if sys.stdin.isatty():
            sys.stderr.write("Type what is to be sent; Ctrl-D at the begin of a line ends it.\n")
        data = sys.stdin.buffer.read(READ_LIMIT + 1)
        if len(data) > READ_LIMIT:
            raise Failure(f"more than {READ_LIMIT} bytes; use vspcctl console NAME < FILE", USAGE)
        return data
    return typed(arguments.text) + (b"" if arguments.no_enter else ENTER)
