"""What a worker remembers so that the master's death does not make it forgotten: times, and the latest moves.

Does: notes when the VM and each client came, and how its last moves went; gives that to the next master and to an heir.
Owns: these notes.
Never: grows: clients that are gone and old moves are left out.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Optional

MOVES_KEPT = 10


class Memory:
    """Times are seconds since the epoch, clients are known by the master's numbers."""

    def __init__(self) -> None:
        self._since = time.time()
        self._clients: dict[int, float] = {}
        self._moves: list[dict[str, Any]] = []

    def vm_changed(self) -> None:
        """The VM has come, or gone."""
        self._since = time.time()

    def client_came(self, number: int) -> None:
        """Somebody is on the console from now on."""
        self._clients[number] = time.time()

    def moved(self, record: dict[str, Any]) -> None:
        """A move is over."""
        self._moves = [*self._moves, record][-MOVES_KEPT:]

    def told(self, clients: Collection[int]) -> dict[str, Any]:
        """All that is still of interest when these clients are there."""
        self._clients = {number: since for number, since in self._clients.items() if number in clients}
        return {"since": self._since, "clients": list(self._clients.items()), "moves": self._moves}

    def restore(self, told: Optional[dict[str, Any]]) -> None:
        """What a dead worker remembered, as the master has it."""
        if told is not None:
            self._since = told["since"]
            self._clients = dict(told["clients"])
            self._moves = list(told["moves"])
