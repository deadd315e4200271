"""A session is the same however its bytes were cut and wherever it was written down and restored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.sessions import greeted, hear, hx
from tests.proto.streams import cut, drained, examples, line_messages, places, telnet_streams, through_json
from vspcd.proto import telnet, vmware
from vspcd.proto.errors import LocalError
from vspcd.proto.vmware import Event, Ignored, ProxyRequest, Session


def _driven(
    session: Session, stream: bytes, where: list[int], move_at: int
) -> tuple[list[Event], bytes, object]:
    """All that came of the stream, with a caller that accepts each request; moved once to another process."""
    events: list[Event] = []
    output = b""
    for number, token in enumerate(drained(telnet.tokens, cut(stream, where))):
        if isinstance(token, bytes):
            continue
        if number == move_at:
            session = Session.restore(through_json(session.snapshot()))
        told = session.receive(token)
        events += told
        for event in told:
            if isinstance(event, ProxyRequest):
                session.accept_proxy()
        output += session.take_output()
    return events, output, session.snapshot()


UUID = vmware.uuid_payload("0123456789abcdeffedcba9800000000")
# Everything at least twice: what must happen once must stay once in the other process.
STORY = 2 * (
    hx("FFFB25 FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8")
    + vmware.frame(0, vmware.known_codes(True))
    + vmware.frame(70, b"SvSPC.py?port=gdb")
    + vmware.frame(80, UUID)
    + vmware.frame(82, b"web01")
    + hx("FFFB2C FFFA2C0100002580FFF0 FFFA2C0505FFF0")
    + vmware.frame(84, UUID)
    + vmware.frame(86, UUID)
    + vmware.frame(44, b"pair")
    + hx("FFFC00 FFFC03 FFFCE8")
)


@pytest.mark.parametrize("move_at", range(len(telnet.tokens(STORY))))
def test_a_whole_story_goes_on_identically_after_a_move_at_any_token(move_at: int) -> None:
    assert _driven(Session(), STORY, [], move_at) == _driven(Session(), STORY, [], -1)


vm_streams = st.lists(telnet_streams | line_messages, max_size=4).map(b"".join)


@given(vm_streams, places)
@examples(200)
def test_any_splitting_gives_the_same_events_output_and_state(stream: bytes, where: list[int]) -> None:
    assert _driven(Session(), stream, where, -1) == _driven(Session(), stream, [], -1)


@given(vm_streams, st.integers(0, 30))
@examples(200)
def test_a_restored_session_goes_on_identically(stream: bytes, move_at: int) -> None:
    assert _driven(Session(), stream, [], move_at) == _driven(Session(), stream, [], -1)


def test_queued_output_survives_being_written_down() -> None:
    session = Session()
    session.start()
    assert Session.restore(through_json(session.snapshot())).take_output() == hx("FFFB00 FFFB03 FFFB01")


def test_a_restored_session_has_the_same_rules() -> None:
    session = Session.restore(Session().snapshot(), services=("nova",), vmotion=False, dial=("x",))
    assert hear(session, vmware.frame(70, b"Snova"))[1:] == [ProxyRequest("S", "nova", None)]
    assert hear(session, vmware.frame(40, b"s")) == [Ignored(40)]


GOOD: dict[str, Any] = greeted().snapshot()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {**GOOD, "uuid": 5},
        {**GOOD, "asked": "yes"},
        {**GOOD, "options": {}},
        {**GOOD, "output": "zz"},
        {**GOOD, "proxy": ["S"]},
        {**GOOD, "known": ["a"]},
        {**GOOD, "line": {}},
        {**GOOD, "queried": 7},
        {name: value for name, value in GOOD.items() if name != "welcomed"},
    ],
)
def test_malformed_snapshot_is_our_fault(saved: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        Session.restore(saved)
