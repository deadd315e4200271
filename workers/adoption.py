"""A worker that has outlived the master describes itself to the next one.

Does: says what it serves and how that stands; asks again for what the dead master was asked for.
Owns: nothing.
Never: speaks in the middle of a turn: what it says holds at once and as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from vspcd.proto.control import NEGOTIATING, OWNER
from vspcd.unix.page import HEAD
from workers.client import RAW, TELNET, Client
from workers.leg import Leg
from workers.resumption import described

if TYPE_CHECKING:
    from workers.vmware import VmwareWorker

Word = tuple[dict[str, Any], list[int]]
"""A message and the descriptors that go with it."""


class Survivor:
    """What of ``worker`` outlives the master."""

    def __init__(self, worker: VmwareWorker) -> None:
        self._worker = worker

    def lasts(self) -> bool:
        """Whether somebody would miss this worker."""
        worker = self._worker
        if worker.inheritance.incomplete:
            return False  # who has not come yet never comes, and with half of them nobody can go on
        if worker.console is not None:
            return bool(worker.connection or worker.console.clients or worker.moves.machine.under_way)
        if worker.negotiation is not None:
            return not worker.negotiation.over
        preamble = worker.arrival.preamble
        return preamble is not None and not preamble.over

    def describe(self) -> Iterator[Word]:
        """All that the master has to know."""
        worker = self._worker
        worker.takeover.give_up()
        console = worker.console
        if console is None:
            yield self._worker_itself(NEGOTIATING, None), []
            leg = worker.arrival.leg
            if leg is not None:
                told = None if worker.negotiation is None else worker.negotiation.snapshot()
                yield _leg(leg, told, False)
            return
        yield (
            self._worker_itself(OWNER, {"uuid": console.uuid, "label": console.label, "name": console.name}),
            [],
        )
        connection, target = worker.connection, worker.moves.target
        if connection is not None and not connection.closed:
            told = described(connection, worker.shell.page.words[HEAD])
            yield _leg(connection.leg, told, True)
        if target is not None and not target.closed:
            yield _leg(target.leg, worker.moves.told_of_target(), False)
        for client in console.clients.values():
            yield _client(client)

    def _worker_itself(self, state: str, console: Optional[dict[str, Any]]) -> dict[str, Any]:
        serving, move = self._worker.console, self._worker.moves.state()
        known = None if serving is None else self._worker.memory.told(serving.clients)
        return {"type": "worker", "state": state, "console": console, "move": move, "known": known}

    def adopted(self) -> None:
        """There is a master again, and it knows of everybody: what was asked of the dead one is asked again."""
        worker = self._worker
        if worker.negotiation is not None:
            worker.negotiation.claim_again()
        if worker.console is not None:
            worker.console.journal.adopted()
        if worker.console is not None and worker.connection is not None:
            worker.facts.note(worker.console, worker.connection.session)
        worker.idle_if_alone()


def _leg(leg: Leg, session: Optional[dict[str, Any]], feeds: bool) -> Word:
    facts = {"leg": leg.number, "peer": leg.peer, "session": session, "secured": leg.secured, "feeds": feeds}
    return {"type": "leg", **facts}, [leg.sock.fileno()]


def _client(client: Client) -> Word:
    kind = RAW if client.kind == TELNET and client.told_coded is False else client.kind
    facts = {"client": client.number, "kind": kind, "from": client.origin, "mode": client.mode}
    told = {"terminal": client.told_terminal, "facts": client.facts}
    return {"type": "client", **facts, **told}, [client.sock.fileno()]
