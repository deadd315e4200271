"""A connection that another worker describes to the owner of a console: whether it can be gone on with.

Does: judges the description before anything is done with it.
Owns: nothing.
Never: trusts the other worker: whatever is wrong with it must not end the one that serves the console.
"""

from __future__ import annotations

from typing import Any, Optional

from vspcd.proto.control import NUMBER_LIMIT, size_of
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.vmware import Session
from vspcd.proto.vmware_codes import NAME_LIMIT, parse_uuid
from workers.negotiation import EARLY_LIMIT, UNSENT_LIMIT

TELNET_LIMIT = 24000
"""Bytes of JSON. With all that may wait, and all that may be early, a session is within its limit."""


def objection(told: dict[str, Any], asked: bool) -> Optional[str]:
    """Why nobody can go on from there; None when that is possible. ``asked``: its VM has asked to be served."""
    try:
        _check_counts(told)
        waiting, early = bytes.fromhex(told["unsent"]), bytes.fromhex(told["early"])
        if len(early) > EARLY_LIMIT or size_of(told["telnet"]) > TELNET_LIMIT:
            return "its worker describes it with too many words"
        session = Session.restore(told["telnet"])
        _check_facts(session)
        if len(waiting) + len(session.take_output()) > UNSENT_LIMIT:
            return "it does not read the answers to its requests"
    except (KeyError, TypeError, ValueError, LocalError, PeerError) as error:
        return f"its worker describes it in a way that makes no sense: {error!r:.200}"
    return "it has not asked to be served" if asked and session.proxy is None else None


def _check_counts(told: dict[str, Any]) -> None:
    """Raises KeyError and ValueError."""
    for count in ("taken", "replied", "again"):
        least = -1 if count == "taken" else 0  # less than nothing is consumed of one that was reset
        if type(told[count]) is not int or not least <= told[count] < NUMBER_LIMIT:
            raise ValueError(f"{count} is {told[count]!r:.40}")


def _check_facts(session: Session) -> None:
    """What is passed on must be what a VM can have said. Raises PeerError and ValueError."""
    if session.name is not None and len(session.name.encode()) > 4 * NAME_LIMIT:
        raise ValueError("a name that is too long")
    for uuid in (session.uuid, session.bios_uuid, session.location_uuid):
        if uuid is not None and parse_uuid(uuid) != uuid:
            raise ValueError("a UUID in another spelling")
