"""How much room a console's log may take: the rules of ``log.quota`` and ``log.reserve``.

Does: says when a log has to be rotated, how much space is to stay free, and who talks much.
Owns: the account of one console's talk.
Never: looks at a disk or a clock.

A console that says more than a serial line of 9600 baud can carry, for longer than a minute's worth of it, is *chatty*.
It is until it has been silent for about as long.
"""

from __future__ import annotations

QUIET_RATE = 1024
"""Bytes a second that no console is called chatty for: a little more than 9600 baud."""

CREDIT = 64 * QUIET_RATE
"""Bytes that a console may say at once."""


class Talk:
    """The account of what a console says: a bucket that fills at QUIET_RATE and holds CREDIT."""

    def __init__(self, now: float) -> None:
        self.chatty = False
        self._credit = float(CREDIT)
        self._when = now

    def account(self, now: float, said: int) -> None:
        """``said`` bytes have come since the last call; ``now`` in seconds of any clock that does not jump."""
        self._credit = min(CREDIT, self._credit + (now - self._when) * QUIET_RATE) - said
        self._credit = max(self._credit, -CREDIT)
        self._when = now
        self.chatty = self._credit < 0 or (self.chatty and self._credit < CREDIT / 2)


def limit(max_size: int, quota: int, keep: int) -> int:
    """The size at which a log is rotated: two of them fit into the quota. 0 is no quota."""
    return min(max_size, quota // 2 if keep else quota) if quota else max_size


def reserve(size: int, percent: float, whole: int) -> int:
    """Bytes to be left free on a file system of ``whole`` bytes."""
    return max(size, int(whole * percent / 100))
