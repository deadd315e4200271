"""Renegotiation: another worker goes on where one has died before it was known whose connection it had.

Does: gives the connection to another worker, with what the dead one has told of it; has what kills one after the other
put into quarantine.
Owns: connections that wait until there is room for a worker.
Never: reads a byte; hangs up on a VM that a worker could go on with.
"""

from __future__ import annotations

from vspcd.admission import Admission
from vspcd.mortality import KILLED, weight
from vspcd.proto.control import NEGOTIATING
from vspcd.supervisor import Supervisor
from vspcd.table import LegRecord, Worker, close
from vspcd.unix.acceptor import NoRoom
from vspcd.unix.logline import Log

AGAIN_AFTER = 0.5


class Renegotiation:
    """Who goes on with a VM that has not said who it is."""

    def __init__(self, log: Log, supervisor: Supervisor, admission: Admission) -> None:
        self.homeless: dict[int, LegRecord] = {}
        self._log = log
        self._supervisor = supervisor
        self._admission = admission

    def goes_on(self, dead: Worker, how: str) -> None:
        """Let another worker go on where this one died. The VM stays the one that is pending."""
        _, leg = dead.legs.popitem()
        leg.deaths += weight(how, dead.hung)
        leg.poisoned = leg.deaths >= KILLED
        if leg.deaths >= 2 * KILLED:
            self._give_up(leg, f"its worker {how} while it put aside what has killed the others")
            return
        dead.replaced = True  # its page waits for the heir
        self.homeless[leg.number] = leg
        self._replace(leg, dead, how)

    def _replace(self, leg: LegRecord, dead: Worker, how: str, again: bool = False) -> None:
        """Start the heir; with no room for it, the VM waits until there is some."""
        try:
            heir = self._supervisor.spawn(NEGOTIATING, leg, instead_of=dead)
        except NoRoom as error:
            if not again:
                self._log.error("worker-not-replaced", peer=leg.peer, reason=str(error))
            self._supervisor.later(AGAIN_AFTER, lambda: self._replace(leg, dead, how, again=True))
            return
        del self.homeless[leg.number]
        self._log.error("worker-replaced", peer=leg.peer, pid=dead.pid, how=how, by=heir.pid)

    def _give_up(self, leg: LegRecord, reason: str) -> None:
        self._admission.ends(leg.peer)
        self._admission.refused(leg.peer, reason)
        close(leg.parked)
