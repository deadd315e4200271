"""What another worker says of a connection: whatever that is, it does not end the one that serves the console."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.bench import HOST, Bench, negotiated, tcp_pair
from tests.workers.moving import Moving, target_session
from vspcd.proto.comport import LineSettings, line_as_dict
from vspcd.proto.control import LIMITS, size_of
from vspcd.proto.vmware import WILL_PROXY, Session
from vspcd.proto.vmware_codes import NAME_LIMIT, URI_LIMIT, ProxyRequest
from workers import vmotion
from workers.connection import Connection, Room
from workers.leg import OUT_LIMIT, Leg
from workers.negotiation import UNSENT_LIMIT
from workers.resumption import NOWHERE, described
from workers.shell import Shell
from workers.vetting import TELNET_LIMIT, objection

NEW = Session().snapshot()
KNOWN = negotiated().snapshot()
SPOILT_TELNET: list[dict[str, Any]] = [
    {"proxy": 5},
    {"proxy": ["S", 1, None]},
    {"options": {"agreed": []}},
    {"name": "x" * 2000},
    {"name": "\ud800"},
    {"uuid": "x" * 32},
    {"bios_uuid": "5" * 3000},
    {"known": list(range(TELNET_LIMIT // 4))},
    {"output": "ff" * OUT_LIMIT},
    {"line": {**line_as_dict(LineSettings()), "parity": "strange"}},
    {"line": {**line_as_dict(LineSettings()), "baud": -1}},
]
SPOILT: list[dict[str, Any]] = [
    {"telnet": {}},
    {"telnet": None},
    {"telnet": []},
    {"unsent": "x"},
    {"unsent": 5},
    {"unsent": "ff" * OUT_LIMIT},
    {"early": None},
    {"early": "00" * (vmotion.EARLY_LIMIT + 1)},
    {"taken": "1"},
    {"taken": 1 << 60},
    {"replied": -1},
    {"again": -1},
    {"again": 0.5},
    *({"telnet": {**KNOWN, **spoilt}} for spoilt in SPOILT_TELNET),
]


def serves_on(bench: Bench, number: int) -> None:
    bench.until(lambda: bench.told("rejected"))
    assert [message["leg"] for message in bench.told("rejected")] == [number]


@pytest.mark.parametrize("busy", [False, True], ids=["no VM", "a VM"])
@pytest.mark.parametrize("spoilt", [*SPOILT, {"telnet": NEW}], ids=lambda spoilt: str(spoilt)[:60])
def test_a_claim_that_makes_no_sense_is_rejected(bench: Bench, spoilt: dict[str, Any], busy: bool) -> None:
    old = bench.connect() if busy else None
    number, new = bench.offer(HOST, **spoilt)
    serves_on(bench, number)
    bench._forget(bench._legs, number)
    bench.until(new.ended)
    tool = bench.tool()
    serving = old or bench.connect()
    serving.speak(b"still here")
    bench.until(lambda: tool.seen() == b"still here")


def test_a_claim_that_says_nothing_is_rejected(bench: Bench) -> None:
    old = bench.connect()
    near, far = tcp_pair()
    number, _ = bench.give("leg", near, far, HOST, {})
    serves_on(bench, number)
    assert not old.ended()


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: str(spoilt)[:60])
def test_a_target_that_makes_no_sense_is_rejected_and_the_right_one_is_let_in(
    bench: Bench, spoilt: dict[str, Any]
) -> None:
    moving = Moving(bench)
    pair = moving.goahead()
    number, _ = moving.offer_target(pair, **spoilt)
    serves_on(bench, number)
    moving.moved(moving.target(pair))


def test_a_claim_with_all_that_may_wait_is_taken_with_what_its_owner_says_to_it(bench: Bench) -> None:
    new = bench.connect(unsent="fff1" * (UNSENT_LIMIT // 2))
    bench.until(lambda: new.frames(WILL_PROXY) == 1)
    assert len(new.heard()) > UNSENT_LIMIT


def full_session() -> Session:
    """As much as a VM can have come to say of itself."""
    session = target_session(b"\xff" * 512, None, None)
    for option in range(256):
        session._options.ask_local(option)
        session._options.ask_remote(option)
        session._options._states["local"][option] = "wantyes-opposite"
        session._options._states["remote"][option] = "wantyes-opposite"
        session._options._answered.add(option)
    session.take_output()
    session.known = frozenset(range(256))
    session._queried = set(range(256))
    session.name, session.proxy = "\x01" * NAME_LIMIT, ProxyRequest("S", "\x01" * URI_LIMIT, "x" * 32)
    session.line = LineSettings(2**32 - 1, 8, "space", "1.5", "xon/xoff", True, True, True)
    session.uuid = session.bios_uuid = session.location_uuid = "f" * 32
    return session


def test_the_largest_session_is_within_the_limit_and_can_be_gone_on_with() -> None:
    """All that waits, all that is early and all of telnet's state: the master kills who says more."""
    near, far = tcp_pair()
    leg = Leg(1 << 40, near, "h:1")
    leg.out += b"\xff" * OUT_LIMIT
    leg.taken = leg.given = leg.replied = leg.already_out = 1 << 50
    connection = Connection(leg, full_session(), Room(Shell({}, -1)), vmotion.Target.__new__(vmotion.Target))
    told = described(connection, NOWHERE, early=b"\xff" * vmotion.EARLY_LIMIT)
    assert size_of(told["telnet"]) < TELNET_LIMIT
    assert size_of(told) < LIMITS["session"]
    assert objection({**told, "unsent": "ff" * UNSENT_LIMIT}, asked=True) is None
    for end in (near, far):
        end.close()
