"""Control messages: what may be said, by whom, when, with what; anything else is the sender's fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.proto import control
from vspcd.proto.control import (
    ANY,
    CLAIMING,
    KEEPER,
    LEAVING,
    MASTER,
    NEGOTIATING,
    OWNER,
    PACKET_LIMIT,
    TABLE,
    TOOL,
    WORKER,
    check,
    decode,
    encode,
    packed,
)
from vspcd.proto.errors import LocalError, PeerError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EXAMPLES = {bool: True, str: "x", int: 1, dict: {}, list: [], float: 1.5, type(None): None}
MESSAGES = [(sender, kind) for sender, rules in TABLE.items() for kind in rules]


def example(sender: str, kind: str) -> dict[str, Any]:
    """A message that the table allows."""
    fields = TABLE[sender][kind].fields
    first = {name: wanted[0] if isinstance(wanted, tuple) else wanted for name, wanted in fields.items()}
    return {"type": kind, **{name: EXAMPLES[wanted] for name, wanted in first.items()}}


def allowed_state(sender: str, kind: str) -> str:
    return min(TABLE[sender][kind].when)


def checked(sender: str, message: dict[str, Any]) -> str:
    kind = message["type"]
    return check(message, sender, allowed_state(sender, kind), TABLE[sender][kind].fds)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.text(min_size=1, max_size=8))
def test_a_message_comes_back_as_it_went(facts: dict[str, Any], kind: str) -> None:
    message = {**facts, "type": kind}
    again = decode(encode(message))
    assert repr(again) == repr(message)  # NaN is not equal to itself


@given(st.binary(max_size=200))
def test_garbage_is_the_peers_fault_or_a_message_and_nothing_else(data: bytes) -> None:
    try:
        assert isinstance(decode(data)["type"], str)
    except PeerError:
        pass


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"1", b"null", b'"type"', b"{}", b'{"type":null}', b'{"type":1}', b"\xff", b"[" * 60000,
     b'{"type":"x","n":' + b"1" * 5000 + b"}", b'{"type":"x"} trailing'],
    ids=lambda data: repr(data[:16]),
)  # fmt: skip
def test_what_is_no_message_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(data)


def test_a_packet_of_the_limit_is_fine_and_one_more_byte_is_our_mistake() -> None:
    size = PACKET_LIMIT - len(encode({"type": "x", "text": ""}))
    assert len(encode({"type": "x", "text": "y" * size})) == PACKET_LIMIT
    with pytest.raises(LocalError):
        encode({"type": "x", "text": "y" * (size + 1)})


def test_text_that_is_no_utf8_survives() -> None:
    assert decode(encode({"type": "x", "text": "\udcff\ud800"}))["text"] == "\udcff\ud800"


@pytest.mark.parametrize(("sender", "kind"), MESSAGES)
def test_what_the_table_names_may_be_said(sender: str, kind: str) -> None:
    assert checked(sender, example(sender, kind)) == kind


@pytest.mark.parametrize(("sender", "kind"), MESSAGES)
def test_a_field_that_the_table_does_not_name_is_refused(sender: str, kind: str) -> None:
    with pytest.raises(PeerError, match="surprise"):
        checked(sender, {**example(sender, kind), "surprise": 1})


@pytest.mark.parametrize(("sender", "kind"), MESSAGES)
def test_too_many_descriptors_are_refused(sender: str, kind: str) -> None:
    with pytest.raises(PeerError, match="descriptors"):
        check(example(sender, kind), sender, allowed_state(sender, kind), TABLE[sender][kind].fds + 1)


def fields() -> list[tuple[str, str, str]]:
    return [(sender, kind, name) for sender, kind in MESSAGES for name in TABLE[sender][kind].fields]


@pytest.mark.parametrize(("sender", "kind", "name"), fields())
@pytest.mark.parametrize("value", ["text", 7, 1.5, [], {}, None, True], ids=repr)
def test_a_field_of_the_wrong_type_is_refused(sender: str, kind: str, name: str, value: object) -> None:
    wanted = TABLE[sender][kind].fields[name]
    message = {**example(sender, kind), name: value}
    types = wanted if isinstance(wanted, tuple) else (wanted,)
    if type(value) in types:
        assert checked(sender, message) == kind
    else:
        with pytest.raises(PeerError, match=name):
            checked(sender, message)


@pytest.mark.parametrize(("sender", "kind", "name"), fields())
def test_a_field_that_is_missing_is_refused_or_none_if_it_may_be(sender: str, kind: str, name: str) -> None:
    """Whoever deals with a message that was let through can rely on all of its fields."""
    message = example(sender, kind)
    del message[name]
    if isinstance(None, TABLE[sender][kind].fields[name]):
        assert checked(sender, message) == kind
        assert message[name] is None
    else:
        with pytest.raises(PeerError, match=name):
            checked(sender, message)


@pytest.mark.parametrize("sender", [MASTER, WORKER, KEEPER, TOOL])
@pytest.mark.parametrize("kind", ["", "nonsense", "x" * 60000], ids=lambda kind: kind[:10])
def test_an_unknown_request_is_refused_in_few_words(sender: str, kind: str) -> None:
    with pytest.raises(PeerError) as refused:
        check({"type": kind}, sender, OWNER, 0)
    assert len(str(refused.value)) < 200


def test_nobody_may_say_what_is_for_others() -> None:
    spoken = {sender: set(rules) for sender, rules in TABLE.items()}
    for kind in spoken[MASTER] - spoken[TOOL]:
        with pytest.raises(PeerError):
            check(example(MASTER, kind), TOOL, OWNER, TABLE[MASTER][kind].fds)
    for kind in spoken[MASTER] - spoken[WORKER]:
        with pytest.raises(PeerError):
            check(example(MASTER, kind), WORKER, OWNER, TABLE[MASTER][kind].fds)


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("claim", {NEGOTIATING}),
        ("failed", {NEGOTIATING, CLAIMING, LEAVING}),
        *((kind, {OWNER, LEAVING}) for kind in ("took", "rejected", "connected", "disconnected", "facts")),
        *((kind, {OWNER, LEAVING}) for kind in ("client-kind", "detached", "idle")),
    ],
)
def test_a_worker_may_say_this_in_these_states_only(kind: str, states: set[str]) -> None:
    for state in ANY:
        message = example(WORKER, kind)
        if state in states:
            assert check(message, WORKER, state, 0) == kind
        else:
            with pytest.raises(PeerError, match=state):
                check(message, WORKER, state, 0)


@given(
    st.dictionaries(st.sampled_from(["console", "replay", "mode", "x"]), json_values),
    st.sampled_from(sorted(TABLE[TOOL])),
)
def test_whatever_a_tool_says_is_allowed_or_its_fault(facts: dict[str, Any], kind: str) -> None:
    message = {**facts, "type": kind}
    try:
        check(message, TOOL, OWNER, 0)
    except PeerError:
        return
    assert set(message) == {"type", *TABLE[TOOL][kind].fields}


@given(st.lists(st.text(max_size=2000), max_size=80))
def test_items_are_packed_in_order_into_packets_that_fit(items: list[str]) -> None:
    found = list(packed(items))
    assert [item for packet in found for item in packet] == items
    for packet in found:
        assert packet
        encode({"type": "consoles", "consoles": packet, "end": True})


def test_items_fill_their_packets() -> None:
    assert len(list(packed(["x" * 1000] * 40))) == 1
    assert len(list(packed(["x" * 1000] * 200))) < 6


def test_an_item_that_fits_into_no_packet_is_our_mistake() -> None:
    with pytest.raises(LocalError):
        list(packed(["x" * PACKET_LIMIT]))


def test_nothing_needs_no_packet() -> None:
    assert list(control.packed([])) == []


@pytest.mark.parametrize(
    ("sender", "kind", "name"), [each for each in fields() if each[0] in control.LIMITED]
)
def test_whatever_a_worker_says_has_a_bound(sender: str, kind: str, name: str) -> None:
    wanted = TABLE[sender][kind].fields[name]
    types = set(wanted if isinstance(wanted, tuple) else (wanted,))
    if types & {str, dict, list}:
        limit = control.LIMITS[name]
        grown: Any = "x" * limit if str in types else {"a": "x" * limit} if dict in types else ["x" * limit]
        with pytest.raises(PeerError, match=f"{kind} with a {name} of {control.size_of(grown)} bytes"):
            checked(sender, {**example(sender, kind), name: grown})
        fitting: Any = "x" * (limit - 2) if str in types else {"a": "x" * (limit - 8)}
        if list not in types:
            assert checked(sender, {**example(sender, kind), name: fitting}) == kind
    else:
        for number in (1 << 53, -(1 << 53), 10**400):
            if int in types:
                with pytest.raises(PeerError, match=f"{kind} with an impossible {name}"):
                    checked(sender, {**example(sender, kind), name: number})


@pytest.mark.parametrize("kind", ["leg", "target", "resume-leg", "resume-client", "resumed", "refuse"])
def test_what_a_worker_has_said_can_be_passed_on(kind: str) -> None:
    """Each field at its bound, and all of them together in one packet."""
    message: dict[str, Any] = {"type": kind}
    for name, wanted in TABLE[MASTER][kind].fields.items():
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        if str in types:
            message[name] = "x" * control.LIMITS.get(name, 20)
        elif dict in types:
            message[name] = {"a": "x" * control.LIMITS[name]}
        else:
            message[name] = True if bool in types else 1 << 53
    assert len(encode(message)) <= PACKET_LIMIT


def test_a_session_that_grows_when_it_is_said_again_is_refused() -> None:
    numbers = b"1E15," * 5000  # a packet of 25 kB, and 90 kB as we would say it
    packet = b'{"type":"session","leg":1,"move":null,"session":{"a":[' + numbers + b"1]}}"
    with pytest.raises(PeerError, match="session with a session of 9"):
        check(decode(packet), WORKER, OWNER, 0)


def test_a_listing_says_what_the_message_with_that_list_says() -> None:
    items = [{"id": "web01", "n": 1.5, "none": None}, {"id": "\ud800\u20ac", "in": [{}]}]
    listing = control.Listing("who", "clients")
    assert all(listing.take(control.encoded(item)) for item in items)
    assert listing.packet() == control.encode({"type": "who", "clients": items})
    assert listing.packet() == control.encode({"type": "who", "clients": []})


def test_a_listing_takes_as_much_as_a_packet_holds_and_then_begins_anew() -> None:
    listing, item = control.Listing("consoles", "consoles"), control.encoded("x" * 1000)
    taken = 0
    while listing.take(item):
        taken += 1
    packet = listing.packet()
    assert taken >= 50
    assert len(packet) <= PACKET_LIMIT
    assert len(decode(packet)["consoles"]) == taken
    assert listing.take(item)


def test_a_listing_refuses_an_item_that_no_packet_holds() -> None:
    listing = control.Listing("consoles", "consoles")
    assert listing.take(b'"' + b"x" * (control.ROOM - 3) + b'"')
    with pytest.raises(LocalError):
        listing.take(b"x" * control.ROOM)


def test_a_listing_takes_no_second_item_when_both_together_do_not_fit() -> None:
    listing = control.Listing("consoles", "consoles")
    assert listing.take(control.encoded("x" * 40000))
    assert not listing.take(control.encoded("x" * 40000))
    assert len(decode(listing.packet())["consoles"]) == 1
