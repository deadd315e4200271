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
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.escape import key_name, parse_key
from vspcd.ctl.failure import USAGE, Failure
from vspcd.ctl.people import described
from vspcd.ctl.session import Session, Settings
from vspcd.ctl.status import shown_name

DEFAULT_ESCAPE = "^]"
STDIN = 0


def run(arguments: Namespace) -> int:
    escape = _escape(arguments.escape)
    mode = _mode(arguments)
    path = socket_path(arguments.socket, arguments.root)
    request = {"type": "attach", "console": arguments.name, "replay": arguments.replay, "mode": mode}
    request.update(fallback=arguments.or_read_only, reason=arguments.reason)
    with Client(path) as client:
        answer, worker = client.ask_for_descriptor(request)
    settings = Settings(
        name=shown_name(answer) if answer.get("name") else visible(str(answer.get("id"))),
        id=str(answer.get("id")),
        socket=path,
        read_only=str(answer.get("mode") or mode) == "ro",
        escape=escape,
        linger=arguments.linger,
    )
    with Session(worker, settings) as session:
        session.notice(f"[vspcctl: on {settings.name}, {_state(answer, settings)}{_advice(escape)}]")
        return session.run()


def _mode(arguments: Namespace) -> str:
    if arguments.read_only:
        return "ro"
    if arguments.lock or arguments.exclusive:
        return "lock" if arguments.lock else "exclusive"
    return str(arguments.mode or "rw")


def _escape(given: Optional[str]) -> Optional[int]:
    """The escape key; a pipe has none unless it was asked for, since all of it is for the VM."""
    if given is None and not os.isatty(STDIN):
        return None
    try:
        return parse_key(given or DEFAULT_ESCAPE)
    except ValueError as error:
        raise Failure(f"--escape: {error}", USAGE) from None


def _state(answer: dict[str, Any], settings: Settings) -> str:
    state, lock = visible(str(answer.get("state"))), described(answer.get("lock"))
    if not settings.read_only:
        return f"{state}, locked by you" if lock else state
    return f"{state}, read-only" + (f": locked by {lock}" if lock else "")


def _advice(escape: Optional[int]) -> str:
    key = "" if escape is None else key_name(escape)
    return f"; {key} . leaves, {key} ? helps" if key else ""
