"""Admission: which connections to the VM port get a worker, and why others did not.

Does: applies the allow-list and the limits on unidentified VMs; remembers who was refused.
Owns: the counts of pending VMs and the memory of refusals.
Never: reads from a connection.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, Optional

from vspcd.config_schema import Proxy
from vspcd.core.address import allowed, host_of
from vspcd.unix.logline import Log

REMEMBERED = 200
REASON_LIMIT = 400  # characters; a reason can quote what the VM sent


class Admission:
    """The doorman of the VM port."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.pending = 0
        self._pending: Counter[str] = Counter()
        self._refused: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()

    def objection(self, rules: Proxy, peer: str, balancer: bool = False) -> Optional[str]:
        """Why a connection from ``peer`` is not let in, None when it is. A balancer's is judged by its source later."""
        host = host_of(peer)
        if not balancer and not allowed(host, rules.allow):
            return "its address is not in proxy.allow"
        if self.pending >= rules.max_pending:
            return f"{self.pending} VMs have not identified themselves yet (proxy.max_pending)"
        if not balancer and self._pending[host] >= rules.max_pending_per_source:
            return (
                f"{self._pending[host]} VMs from this host have not identified themselves yet "
                "(proxy.max_pending_per_source)"
            )
        return None

    def begins(self, peer: str) -> None:
        """A VM begins to identify itself."""
        self.pending += 1
        self._pending[host_of(peer)] += 1

    def ends(self, peer: str) -> None:
        """It has, or has failed to."""
        host = host_of(peer)
        self.pending -= 1
        self._pending[host] -= 1
        if not self._pending[host]:
            del self._pending[host]

    def refused(self, peer: str, reason: str) -> None:
        """Remember a refusal and log it. The same one from the same host only counts on, so a storm fills nothing."""
        reason = reason if len(reason) <= REASON_LIMIT else f"{reason[:REASON_LIMIT]}..."
        key = (host_of(peer), reason)
        record = self._refused.pop(key, None) or {"peer": peer, "reason": reason, "when": 0.0, "count": 0}
        record["peer"] = peer
        record["when"] = time.time()
        record["count"] += 1
        self._refused[key] = record
        while len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)
        if record["count"] & (record["count"] - 1) == 0:
            # The 1st, 2nd, 4th, 8th … time: a host that dials again every second must not fill the log.
            self._log.warning("vm-refused", peer=peer, reason=reason, count=record["count"])

    def remember(self, records: Iterable[dict[str, Any]]) -> None:
        """Refusals of the version before, the latest first. Raises KeyError."""
        for record in records:
            self._refused[host_of(str(record["peer"])), str(record["reason"])] = dict(record)
            self._refused.move_to_end((host_of(str(record["peer"])), str(record["reason"])), last=False)

    def refusals(self) -> list[dict[str, Any]]:
        """What was refused, the latest first."""
        return [dict(record) for record in reversed(self._refused.values())]
