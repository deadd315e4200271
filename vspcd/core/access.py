"""Sharing a console: who may type when others are there, in one table.

Does: says what somebody who comes gets, and who may type while a lock is held.
Owns: the table of modes.
Never: knows why somebody may write (``vspcd.core.rights`` does), tells anybody.

What somebody asks for is kept: whoever asked for rw and watches because of a lock may type again when the lock ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Optional

RW, RO = "rw", "ro"
LOCK, EXCLUSIVE = "lock", "exclusive"
MODES = (RW, RO, LOCK, EXCLUSIVE)
KINDS = (LOCK, EXCLUSIVE)

LOCKED, DENIED = "locked", "denied"


@dataclass(frozen=True)
class Lock:
    """Who alone may type. ``owner`` is a name for people, ``via`` the kind of client. ``since`` in seconds since the
    epoch, ``taken`` on the monotonic clock; ``idle`` seconds without typing end it, None never."""

    client: int
    kind: str
    owner: str
    via: str
    reason: Optional[str]
    since: float
    taken: float
    idle: Optional[float] = None


class Rule(NamedTuple):
    """What a mode brings: ``mode`` at once (None: nothing), ``lock`` that is taken, ``instead`` of nothing."""

    mode: Optional[str]
    lock: Optional[str] = None
    instead: Optional[str] = None


class Grant(NamedTuple):
    """Somebody is let in. ``asked`` counts when a lock ends, ``mode`` holds now, ``lock`` is taken."""

    asked: str
    mode: str
    lock: Optional[str] = None


class Refused(NamedTuple):
    """Somebody is not let in: LOCKED or DENIED."""

    code: str


TABLE: Mapping[tuple[str, Optional[str]], Rule] = MappingProxyType(
    {
        # asked for, held by somebody else
        (RO, None): Rule(RO),
        (RO, LOCK): Rule(RO),
        (RO, EXCLUSIVE): Rule(None),
        (RW, None): Rule(RW),
        (RW, LOCK): Rule(None, instead=RO),
        (RW, EXCLUSIVE): Rule(None),
        (LOCK, None): Rule(RW, lock=LOCK),
        (LOCK, LOCK): Rule(None, instead=RO),
        (LOCK, EXCLUSIVE): Rule(None),
        (EXCLUSIVE, None): Rule(RW, lock=EXCLUSIVE),
        (EXCLUSIVE, LOCK): Rule(None, instead=RO),
        (EXCLUSIVE, EXCLUSIVE): Rule(None),
    }
)


def admit(asked: str, held: Optional[str], may_write: bool, fallback: bool) -> Grant | Refused:
    """What somebody who comes gets. ``held``: the kind of lock that is held; ``fallback``: watching is better than
    nothing."""
    rule = TABLE[asked, held]
    wish = RO if asked == RO else RW
    if rule.mode is None:
        fits = fallback and rule.instead is not None
        return Grant(wish, RO) if fits else Refused(LOCKED)
    if asked != RO and not may_write:
        return Grant(wish, RO) if fallback else Refused(DENIED)
    return Grant(wish, rule.mode, rule.lock)


def effective(asked: str, may_write: bool, held_by_other: bool) -> str:
    """Whether somebody who is there may type just now."""
    return RW if asked != RO and may_write and not held_by_other else RO
