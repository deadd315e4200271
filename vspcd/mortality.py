"""Mortality: how much the death of a worker says against what its VM has sent.

Does: weighs a death.
Owns: the limits.
Never: counts; ``succession`` does for consoles, ``renegotiation`` for connections that have none yet.
"""

from __future__ import annotations

DEATHS = 3
KILLED = 50
"""So many deaths, and what the VM has said goes into quarantine: of bugs and hangs, or by SIGKILL, which comes from
outside and only now and then from the kernel for what a worker does."""

SIGKILLED = "killed by SIGKILL"


def weight(how: str, hung: bool) -> int:
    """What one death counts; ``KILLED`` is too much. ``hung``: it was killed because it did not answer."""
    return 1 if how == SIGKILLED and not hung else -(-KILLED // DEATHS)
