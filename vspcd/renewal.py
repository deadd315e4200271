"""A renewal: every worker is replaced by one of the running version, one after the other.

Does: lets a worker end between two turns, waits until another one has its place and says so, goes on to the next.
Owns: nothing; it goes as far as its answer is asked for.
Never: touches two workers at a time; goes on when a new one dies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vspcd.proto.control import OWNER
from vspcd.table import Console, Worker
from vspcd.toolserver import Answer, Refusal

if TYPE_CHECKING:
    from vspcd.master import Master

RETIRED_WITHIN = 10.0
TELL_EVERY = 1.0


def renewal(master: Master, text: str) -> Answer:
    """Renew all that serve a console now, and the TLS helpers. ``text``: what has happened before."""
    yield {"type": "progress", "message": text}, []
    master.tls.renew()
    consoles = [each for each in master.table.consoles.values() if _renewable(each)]
    done, told = 0, time.monotonic()
    for console in consoles:
        if _renewable(console):
            yield from _renew(master, console, done, len(consoles))
            done += 1
        if time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            yield {"type": "progress", "message": f"{done} of {len(consoles)} workers renewed"}, []
    master.log.info("workers-renewed", workers=done)
    yield {"type": "ok", "message": f"{done} workers renewed", "end": True}, []


def _renewable(console: Console) -> bool:
    worker = console.worker
    return worker is not None and worker.state == OWNER and not worker.quitting


def _renew(master: Master, console: Console, done: int, total: int) -> Answer:
    old = console.worker
    assert old is not None
    master.supervisor.retire(old)
    since = time.monotonic()
    while old.pid in master.table.workers:
        if time.monotonic() - since >= RETIRED_WITHIN:
            old.hung = True
            master.supervisor.kill(old, f"it did not retire within {RETIRED_WITHIN:g} s")
            since = time.monotonic()
        yield None
    heir = console.worker
    if heir is not None:
        master.supervisor.ping(heir)
        while heir.pinged and _lives(master, heir):
            yield None
        if not _lives(master, heir) and not heir.quitting:
            raise Refusal(
                "upgrade",
                f"the new worker of {console.name or console.id} has died; {done} of {total} workers are renewed, "
                "the others go on as they are",
            )


def _lives(master: Master, worker: Worker) -> bool:
    return worker.pid in master.table.workers
