"""Gets on a console: asks the daemon and makes a session's settings of its answer.

Owns: nothing.
Never: reads or writes a console's byte, but for ``recent``.
"""

from __future__ import annotations

import select
import time
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl.client import ANSWER_DEADLINE, Client
from vspcd.ctl.failure import Failure
from vspcd.ctl.link import Link
from vspcd.ctl.people import described
from vspcd.ctl.session import Settings
from vspcd.ctl.status import shown_name
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

RECENT = 1 << 18
"""Bytes of the latest output that are looked at for the last lines."""


def get_on(
    path: str, console: str, deadline: float = ANSWER_DEADLINE, **wishes: Any
) -> tuple[dict[str, Any], int]:
    """The daemon's answer and the descriptor of the attachment, which the caller owns. Raises Failure."""
    request = {
        "type": "attach",
        "console": console,
        "replay": 0,
        "mode": "rw",
        "fallback": False,
        "reason": None,
    }
    with Client(path, deadline) as client:
        return client.ask_for_descriptor({**request, **wishes})


def settled(answer: dict[str, Any], path: str, escape: Optional[bytes], linger: float) -> Settings:
    """What a session has to know of the answer."""
    return Settings(
        name=called(answer),
        id=str(answer.get("id")),
        socket=path,
        read_only=answer.get("mode") == "ro",
        escape=escape,
        linger=linger,
        client=int(answer.get("client") or 0),
    )


def called(answer: dict[str, Any]) -> str:
    return shown_name(answer) if answer.get("name") else visible(str(answer.get("id")))


def state(answer: dict[str, Any], read_only: bool) -> str:
    """How somebody is on a console, in words."""
    told, lock = visible(str(answer.get("state"))), described(answer.get("lock"))
    if not read_only:
        return f"{told}, locked by you" if lock else told
    return f"{told}, read-only" + (f": locked by {lock}" if lock else "")


def recent(path: str, console: str, deadline: float) -> bytes:
    """The console's latest output, as another client sees it who just watches. Raises Failure."""
    _, worker = get_on(path, console, deadline, mode="ro", replay=RECENT)
    link = Link(worker)
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    data, until = bytearray(), time.monotonic() + deadline
    try:
        while poll.poll(max(until - time.monotonic(), 0) * 1000):
            for frame in link.read() or [attach.Frame(attach.LIVE, b"", 0)]:
                if frame.type == attach.LIVE:
                    return bytes(data)
                if frame.type == attach.DATA:
                    data += link.new(frame)
    except PeerError as error:
        raise Failure(f"the daemon was not understood: {error}") from None
    finally:
        link.close()
    raise Failure(f"the console has not answered within {deadline:g} s")
