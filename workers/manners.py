"""A telnet client's manners: what a worker tells of them, and going on from there when the worker is dead.

Does: says what the bytes that are about to be consumed change; finds out whether they were.
Owns: nothing.
Never: guesses: the kernel counts what was consumed and what was given.

The state before those bytes and the one behind them are told together, before anything is consumed. Whoever goes on
finds the bytes in the socket still, and reads them as the dead worker did, or finds them gone and their meaning told.
"""

from __future__ import annotations

from typing import Any, Optional

from vspcd.proto.terminal import RAW, Terminal
from workers.client import Client

UNSAID_LIMIT = 8192
"""Bytes of our own words that are told; a message to the master has its limit."""


def told(client: Client, size: int) -> Optional[dict[str, Any]]:
    """What to tell before ``size`` bytes are consumed from a client; None when nothing changes."""
    if client.terminal is None:
        return None
    if client.terminal.kind == RAW and not client.out and _told_raw(client):
        return None  # whoever is raw remains so
    before = Terminal().snapshot() if client.told_terminal is None else client.told_terminal["after"]
    after = client.terminal.snapshot()
    if before == after and not client.out:
        return None
    unsaid = bytes(client.out[:UNSAID_LIMIT]).hex()
    counts = {"consumed": client.consumed() + size, "given": client.given(), "answered": client.answered}
    client.told_terminal = {"before": before, "after": after, "unsaid": unsaid, **counts}
    return client.told_terminal


def _told_raw(client: Client) -> bool:
    return client.told_terminal is not None and bool(client.told_terminal["after"]["kind"] == RAW)


def restore(client: Client, state: dict[str, Any]) -> bytes:
    """Give a client the manners that a dead worker has told: what of our own words it was not yet given."""
    client.told_terminal = state
    dealt_with = client.consumed() >= state["consumed"]
    client.terminal = Terminal.restore(state["after" if dealt_with else "before"])
    if not dealt_with:
        client.told_terminal = {**state, "after": state["before"]}
        client.already_said = state["answered"]
    return bytes.fromhex(state["unsaid"])[max(0, client.given() - state["given"]) :]
