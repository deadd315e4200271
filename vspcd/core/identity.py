"""Who may have a console that somebody has already.

Does: states the rule for a second connection with the identity of a connected VM.
Owns: nothing.
Never: looks at a socket; finding out whether the old peer still answers is the caller's work.

The two connections are never merged. A VM that dials again from the host it was on has lost its old
connection. From another host it may be the same VM after a host crash, a clone or an impostor: the old peer's
silence tells.
"""

from __future__ import annotations

from typing import Optional

from vspcd.core.address import host_of

TAKE = "take"
PROBE = "probe"

PROBE_SECONDS = 2.0
"""A live host's kernel acknowledges an IAC NOP well within this time."""


def verdict(old_peer: Optional[str], new_peer: str) -> str:
    """TAKE the console over, or PROBE the old peer first. Peers are ``host:port``; None: there is no old one."""
    if old_peer is None or host_of(old_peer) == host_of(new_peer):
        return TAKE
    return PROBE


def refusal(old_peer: str, new_peer: str) -> str:
    """What is said when the old peer is alive; names both sources."""
    return (
        f"{host_of(new_peer)} claims to be this VM, but it is connected from {host_of(old_peer)}, which still answers: "
        "a clone with the same UUID, or an impostor"
    )
