"""The pairs of vMotions under way: which console a target belongs to.

Does: remembers each pair until its target shows it, once, or until it expires; checks what a worker says of a move.
Owns: the pairs; what it keeps of them, and may hand to the next version, are keyed hashes.
Never: finds one faster or slower for how much of it was guessed right: they are looked up by a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from itertools import islice
from typing import Any, Optional

from vspcd.core import vmotion
from vspcd.proto.errors import PeerError
from vspcd.table import Console

KEY = 32
STATES = [state for state, _ in vmotion.TABLE]  # nothing a worker says is hashed
TIME_LIMIT = float(1 << 62)


class Moves:
    """A pair is the sequence that the VM's host chose followed by the secret that we chose."""

    def __init__(self) -> None:
        self.key = os.urandom(KEY)
        self.expected: dict[bytes, tuple[Console, float]] = {}

    def _place(self, pair: bytes) -> bytes:
        return hmac.new(self.key, pair, hashlib.sha256).digest()

    def expect(self, pair: bytes, console: Console, seconds: float) -> None:
        """Whoever shows this pair within ``seconds`` is the target of the console's move."""
        now = time.monotonic()
        if self.expected:
            # The oldest stand first; a few are enough to keep up with those that are never shown.
            for place in [place for place, (_, due) in islice(self.expected.items(), 2) if due < now]:
                del self.expected[place]
        self.expected[self._place(pair)] = (console, now + seconds)

    def take(self, pair: bytes) -> Optional[Console]:
        """The console whose target has this pair, which is worth nothing from now on; None for any other pair."""
        console, due = self.expected.pop(self._place(pair), (None, 0.0))
        return console if due >= time.monotonic() else None


def check(move: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """A move under way, as a worker tells it, if another one can go on with it. Raises PeerError."""
    if move is None:
        return None
    try:
        bytes.fromhex(move["sequence"] + move["pair"])
        times = [move["begun"], move["expires"]]
        plain = (
            type(move["target"]) is int and type(move["completed"]) is bool and type(move["record"]) is dict
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"a move that is none: {error!r:.80}") from None
    if not plain or move.get("state") not in STATES:
        raise PeerError("a move that is none")
    if not all(type(time) in (int, float) and abs(time) < TIME_LIMIT for time in times):
        raise PeerError("a move at an impossible time")
    return move
