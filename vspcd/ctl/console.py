"""vspcctl console: a session on a console.

Does: asks the daemon for the console and starts the session on the descriptor that it gets.
Owns: nothing.
Never: reads or writes a console's byte; the session does.

With a pipe as input every byte of it is sent, and after its end the session goes on until the console has
been quiet for --linger seconds (timeout(1) can limit the whole). Notices go to the terminal between the
console's lines, or to stderr when stdout is none: a redirected stdout holds the console's bytes alone.
"""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Optional

from vspcd.ctl.attaching import get_on, settled, state
from vspcd.ctl.client import socket_path
from vspcd.ctl.escape import escape_name, parse_key
from vspcd.ctl.failure import USAGE, Failure
from vspcd.ctl.session import Session

DEFAULT_ESCAPE = "^]"
VARIABLE = "VSPCCTL_ESCAPE"
STDIN = 0


def run(arguments: Namespace) -> int:
    escape = _escape(arguments.escape)
    path = socket_path(arguments.socket, arguments.root)
    wishes = {"fallback": arguments.or_read_only, "reason": arguments.reason, "replay": arguments.replay}
    answer, worker = get_on(path, arguments.name, mode=_mode(arguments), **wishes)
    settings = settled(answer, path, escape, arguments.linger)
    with Session(worker, settings) as session:
        session.notice(f"[vspcctl: on {settings.name}, {state(answer, settings.read_only)}{_advice(escape)}]")
        return session.run()


def _mode(arguments: Namespace) -> str:
    if arguments.read_only:
        return "ro"
    if arguments.lock or arguments.exclusive:
        return "lock" if arguments.lock else "exclusive"
    return str(arguments.mode or "rw")


def _escape(given: Optional[str]) -> Optional[bytes]:
    """The escape key; a pipe has none unless it was asked for, since all of it is for the VM."""
    if given is None and not os.isatty(STDIN):
        return None
    where = "--escape" if given is not None else VARIABLE
    try:
        return parse_key(given if given is not None else os.environ.get(VARIABLE) or DEFAULT_ESCAPE)
    except ValueError as error:
        raise Failure(f"{where}: {error}", USAGE) from None


def _advice(escape: Optional[bytes]) -> str:
    key = "" if escape is None else escape_name(escape)
    return f"; {key} . leaves, {key} ? helps" if key else ""
