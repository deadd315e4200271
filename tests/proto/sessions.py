"""A concentrator's session for the tests, and how a VM's bytes reach it."""

from __future__ import annotations

from typing import Any

from tests.proto.streams import tokens_of
from vspcd.proto.vmware import Event, Session


def hear(session: Session, data: bytes) -> list[Event]:
    events: list[Event] = []
    for token in tokens_of(data):
        if not isinstance(token, bytes):
            events += session.receive(token)
    return events


def hx(text: str) -> bytes:
    return bytes.fromhex(text)


def greeted(**settings: Any) -> Session:
    """A session whose VM has just been greeted, with nothing left to send."""
    session = Session(**settings)
    session.start()
    hear(session, hx("FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8"))
    session.take_output()
    return session
