"""The pairs of vMotions under way: which console a target belongs to.

Does: remembers each pair until its target shows it, once, or until it expires.
Owns: the pairs; what it keeps of them, and may hand to the next version, are keyed hashes.
Never: finds one faster or slower for how much of it was guessed right: they are looked up by a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from itertools import islice
from typing import Optional

from vspcd.table import Console

KEY = 32


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
