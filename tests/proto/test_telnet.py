"""The token table, the escapes, and option negotiation by RFC 1143."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import cut, drained, examples, joined, places, telnet_streams, through_json
from vspcd.proto import telnet
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.telnet import (
    BINARY,
    DO,
    DONT,
    ECHO,
    SGA,
    WILL,
    WONT,
    Change,
    Command,
    Negotiation,
    Options,
    Subnegotiation,
    Token,
)

TOKENS: list[tuple[bytes, list[tuple[Token, int]]]] = [
    (b"", []),
    (b"abc", [(b"abc", 3)]),
    (b"\0\x11\x13\r\n\x80\xfe", [(b"\0\x11\x13\r\n\x80\xfe", 7)]),
    (b"\xff\xff", [(b"\xff", 2)]),
    (b"a\xff\xffb\xff\xff\xff\xffc", [(b"a\xffb\xff\xffc", 9)]),
    (b"\xff\xfb\x25", [(Negotiation(WILL, 37), 3)]),
    (
        b"\xff\xfc\x01\xff\xfd\x00\xff\xfe\xe8",
        [(Negotiation(WONT, 1), 3), (Negotiation(DO, 0), 6), (Negotiation(DONT, 232), 9)],
    ),
    (b"\xff\xf1", [(Command(telnet.NOP), 2)]),
    (b"\xff\xf3x", [(Command(telnet.BREAK), 2), (b"x", 3)]),
    (b"\xff\xf0", [(Command(telnet.SE), 2)]),
    (b"\xff\x07", [(Command(7), 2)]),
    (b"\xff\xfa\xe8\xff\xf0", [(Subnegotiation(232, b""), 5)]),
    (b"\xff\xfa\xe8\x50ab\xff\xf0", [(Subnegotiation(232, b"\x50ab"), 8)]),
    (b"\xff\xfa\xe8\xff\xff\xff\xff\xff\xf0", [(Subnegotiation(232, b"\xff\xff"), 9)]),
    (b"\xff\xfa\xe8\xfa\xf0\xff\xf0", [(Subnegotiation(232, b"\xfa\xf0"), 7)]),
    (b"a\xff\xff\xff\xfb\x00b", [(b"a\xff", 3), (Negotiation(WILL, 0), 6), (b"b", 7)]),
    (b"\xff\xff\xff\xff\xff\xf1", [(b"\xff\xff", 4), (Command(telnet.NOP), 6)]),
]

INCOMPLETE = [
    b"\xff",
    b"\xff\xfb",
    b"\xff\xfd",
    b"\xff\xfa",
    b"\xff\xfa\xe8",
    b"\xff\xfa\xe8abc",
    b"\xff\xfa\xe8\xff",
    b"\xff\xfa\xe8a\xff\xff",
    b"\xff\xfa\xe8a\xff\xff\xff",
]


@pytest.mark.parametrize(("data", "expected"), TOKENS)
def test_bytes_become_tokens(data: bytes, expected: list[tuple[Token, int]]) -> None:
    assert telnet.tokens(data) == expected


@pytest.mark.parametrize(("data", "expected"), TOKENS)
def test_bytearray_becomes_the_same_tokens_of_bytes(data: bytes, expected: list[tuple[Token, int]]) -> None:
    found = telnet.tokens(bytearray(data))
    assert found == expected
    assert "bytearray" not in repr(found)


@pytest.mark.parametrize("tail", INCOMPLETE)
def test_incomplete_tail_is_not_covered(tail: bytes) -> None:
    assert telnet.tokens(tail) == []
    assert telnet.tokens(b"ab" + tail) == [(b"ab", 2)]


@pytest.mark.parametrize("follower", [*range(0xF0), *range(0xF1, 0xFF)])
def test_iac_in_a_subnegotiation_is_followed_by_iac_or_se_only(follower: int) -> None:
    with pytest.raises(PeerError, match=f"holds IAC {follower}"):
        telnet.tokens(b"\xff\xfa\xe8ab\xff" + bytes((follower,)))


def test_subnegotiation_of_option_255_is_an_error() -> None:
    with pytest.raises(PeerError, match="255"):
        telnet.tokens(b"\xff\xfa\xff\xff")


def test_subnegotiation_of_just_the_limit_is_taken() -> None:
    payload = b"x" * 100
    assert telnet.tokens(telnet.subnegotiation(1, payload), limit=100) == [(Subnegotiation(1, payload), 105)]


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xf0"])
def test_subnegotiation_past_the_limit_is_an_error_complete_or_not(end: bytes) -> None:
    with pytest.raises(PeerError, match="longer than 100"):
        telnet.tokens(b"\xff\xfa\x01" + b"x" * 101 + end, limit=100)


def test_open_subnegotiation_at_the_limit_is_waited_for() -> None:
    assert telnet.tokens(b"\xff\xfa\x01" + b"x" * 100 + b"\xff", limit=100) == []


def test_the_usual_limit_is_16_kib() -> None:
    fits, too_long = b"\xff\xfa\x01" + b"x" * 16384, b"\xff\xfa\x01" + b"x" * 16385
    assert telnet.tokens(fits) == []
    with pytest.raises(PeerError):
        telnet.tokens(too_long)


def test_tokens_ahead_of_a_fault_are_returned_before_it_is_raised() -> None:
    data = b"login: \xff\xf1" + b"\xff\xfa\xe8a\xff\x00"
    found = telnet.tokens(data)
    assert [token for token, _ in found] == [b"login: ", Command(telnet.NOP)]
    with pytest.raises(PeerError):
        telnet.tokens(data[found[-1][1] :])


@given(telnet_streams, st.integers(1, 5))
@examples(100)
def test_a_bounded_number_of_tokens_are_the_first_ones(data: bytes, most: int) -> None:
    assert telnet.tokens(data, most=most) == telnet.tokens(data)[:most]


@given(st.binary(max_size=200) | telnet_streams)
@examples(100)
def test_escaped_data_is_one_run_of_the_same_data(data: bytes) -> None:
    assert joined(drained(telnet.tokens, [telnet.escape(data)])) == ([data] if data else [])


@given(st.lists(st.sampled_from([255, 255, 255, 65, 240, 250, 251, 232]), max_size=60).map(bytes), places)
@examples(500)
def test_any_splitting_gives_the_same_tokens_and_the_same_fault(stream: bytes, where: list[int]) -> None:
    assert _outcome([stream]) == _outcome(cut(stream, where))


@given(telnet_streams, places)
@examples(100)
def test_any_splitting_of_a_good_stream_gives_the_same_tokens(stream: bytes, where: list[int]) -> None:
    whole, pieces = _outcome([stream]), _outcome(cut(stream, where))
    assert whole == pieces


def _outcome(chunks: list[bytes]) -> list[object]:
    seen: list[object] = []
    try:
        for token in drained(lambda data: telnet.tokens(data, limit=20), chunks):
            seen.append(token)
    except PeerError as error:
        return [*joined(seen), str(error).rstrip("0123456789")]
    return joined(seen)


@pytest.mark.parametrize("count", [8191, 8192, 8193, 20000, 20001, 262144])
def test_long_runs_of_ff_are_undone_in_pairs(count: int) -> None:
    even = count - count % 2
    assert telnet.tokens(b"\xff" * count) == [(b"\xff" * (even // 2), even)]


def test_a_run_of_ff_takes_little_more_memory_than_itself() -> None:
    data = b"\xff" * 262144
    tracemalloc.start()
    try:
        telnet.tokens(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff", b"a\xffb", b"\xff\xff\xff", b"\xffa\xff"])
def test_escaped_prefix_counts_every_possible_cut(data: bytes) -> None:
    wire = telnet.escape(data)
    for count in range(len(wire) + 1):
        covered, half = telnet.escaped_prefix(data, count)
        assert telnet.escape(data[:covered]) + b"\xff" * half == wire[:count]
        assert not half or data[covered] == 0xFF


@pytest.mark.parametrize("count", [-1, 4])
def test_escaped_prefix_of_more_than_there_is_is_our_fault(count: int) -> None:
    with pytest.raises(LocalError):
        telnet.escaped_prefix(b"a\xff", count)


def test_encoders_give_the_wire_bytes() -> None:
    assert telnet.negotiation(WILL, 232) == b"\xff\xfb\xe8"
    assert telnet.command(telnet.NOP) == b"\xff\xf1"
    assert telnet.subnegotiation(232, b"\x29\xff\xf0") == b"\xff\xfa\xe8\x29\xff\xff\xf0\xff\xf0"


# What is done to an option that we agree to, what goes out, whether it is on at the end: RFC 1143, section 7,
# each state and event. + and - are what we want, the words are the peer's.
Q_METHOD = [
    ("DO", "WILL", True),
    ("DO DO DO", "WILL", True),
    ("DONT", "", False),
    ("DO DONT", "WILL WONT", False),
    ("DO DONT DONT", "WILL WONT", False),
    ("+", "WILL", False),
    ("+ +", "WILL", False),
    ("+ DO", "WILL", True),
    ("+ DO DO", "WILL", True),
    ("+ DONT", "WILL", False),
    ("+ DONT DONT", "WILL", False),
    ("+ DONT +", "WILL WILL", False),
    ("+ DO +", "WILL", True),
    ("+ -", "WILL", False),
    ("+ - -", "WILL", False),
    ("+ - DO", "WILL WONT", True),
    ("+ - DO DONT", "WILL WONT", False),
    ("+ - DONT", "WILL", False),
    ("+ - +", "WILL", False),
    ("+ - + DO", "WILL", True),
    ("-", "", False),
    ("DO -", "WILL WONT", True),
    ("DO - -", "WILL WONT", True),
    ("DO - DONT", "WILL WONT", False),
    ("DO - DO", "WILL WONT", False),
    ("DO - +", "WILL WONT", True),
    ("DO - + +", "WILL WONT", True),
    ("DO - + DONT", "WILL WONT WILL", False),
    ("DO - + DONT DO", "WILL WONT WILL", True),
    ("DO - + DO", "WILL WONT", True),
    ("DO - + -", "WILL WONT", True),
    ("DO - + - DONT", "WILL WONT", False),
]
MIRRORED = {"WILL": "DO", "WONT": "DONT", "DO": "WILL", "DONT": "WONT"}
VERBS = {"WILL": WILL, "WONT": WONT, "DO": DO, "DONT": DONT}


@pytest.mark.parametrize(("steps", "output", "enabled"), Q_METHOD)
def test_q_method_for_our_side(steps: str, output: str, enabled: bool) -> None:
    options = Options(frozenset((ECHO,)), frozenset())
    for step in steps.split():
        _step(options, step, options.ask_local, options.drop_local, ECHO)
    assert options.take_output() == b"".join(telnet.negotiation(VERBS[word], ECHO) for word in output.split())
    assert (options.local(ECHO), options.remote(ECHO)) == (enabled, False)


@pytest.mark.parametrize(("steps", "output", "enabled"), Q_METHOD)
def test_q_method_for_the_peers_side(steps: str, output: str, enabled: bool) -> None:
    options = Options(frozenset(), frozenset((SGA,)))
    for step in steps.split():
        _step(options, MIRRORED.get(step, step), options.ask_remote, options.drop_remote, SGA)
    words = [MIRRORED[word] for word in output.split()]
    assert options.take_output() == b"".join(telnet.negotiation(VERBS[word], SGA) for word in words)
    assert (options.local(SGA), options.remote(SGA)) == (False, enabled)


def _step(options: Options, step: str, ask: object, drop: object, option: int) -> None:
    if step in VERBS:
        options.receive(Negotiation(VERBS[step], option))
    else:
        action = ask if step == "+" else drop
        assert callable(action)
        action(option)


@pytest.mark.parametrize(("verb", "refusal"), [(WILL, DONT), (DO, WONT)])
def test_what_is_not_agreed_to_is_refused(verb: int, refusal: int) -> None:
    options = Options(frozenset(), frozenset())
    assert options.receive(Negotiation(verb, 37)) == []
    assert options.take_output() == telnet.negotiation(refusal, 37)
    assert not options.local(37)
    assert not options.remote(37)


def test_changes_are_told_once_in_either_direction() -> None:
    options = Options(frozenset((ECHO,)), frozenset((SGA,)))
    assert options.receive(Negotiation(DO, ECHO)) == [Change("local", ECHO, True)]
    assert options.receive(Negotiation(DO, ECHO)) == []
    assert options.receive(Negotiation(WILL, SGA)) == [Change("remote", SGA, True)]
    assert options.receive(Negotiation(WONT, SGA)) == [Change("remote", SGA, False)]


def test_answered_says_whether_the_peer_spoke_of_an_option() -> None:
    options = Options(frozenset(), frozenset())
    options.ask_remote(BINARY)
    assert not options.answered(BINARY)
    options.receive(Negotiation(WONT, BINARY))
    assert options.answered(BINARY)


def test_output_is_taken_once() -> None:
    options = Options(frozenset(), frozenset())
    options.ask_local(ECHO)
    assert options.take_output() == telnet.negotiation(WILL, ECHO)
    assert options.take_output() == b""


asks = st.sampled_from(["ask_local", "ask_remote", "drop_local", "drop_remote"])
deeds = st.tuples(st.integers(0, 1), asks | st.just("deliver"))
agreed = st.frozensets(st.just(ECHO))


@given(st.lists(deeds, max_size=25), st.tuples(agreed, agreed), st.tuples(agreed, agreed))
@examples(400)
def test_two_peers_never_loop_and_end_of_one_mind(
    done: list[tuple[int, str]],
    first: tuple[frozenset[int], frozenset[int]],
    second: tuple[frozenset[int], frozenset[int]],
) -> None:
    peers, wires = [Options(*first), Options(*second)], [deque[Token](), deque[Token]()]
    for who, deed in done:
        if deed != "deliver":
            getattr(peers[who], deed)(ECHO)
        _deliver(peers, wires, who, deed == "deliver")
    deliveries = _settle(peers, wires)
    assert deliveries <= 4 * (len(done) + 1)
    assert peers[0].local(ECHO) == peers[1].remote(ECHO)
    assert peers[0].remote(ECHO) == peers[1].local(ECHO)


def _settle(peers: list[Options], wires: list[deque[Token]]) -> int:
    for count in itertools.count():
        waiting = [who for who in (0, 1) if wires[who]]
        if not waiting or count > 1000:
            return count
        _deliver(peers, wires, waiting[0], True)
    raise AssertionError


def _deliver(peers: list[Options], wires: list[deque[Token]], who: int, really: bool) -> None:
    if really and wires[who]:
        token = wires[who].popleft()
        assert isinstance(token, Negotiation)
        peers[who].receive(token)
    wires[1 - who].extend(drained(telnet.tokens, [peers[who].take_output()]))


@given(st.lists(deeds, max_size=25), st.integers(0, 25))
@examples(100)
def test_restored_options_go_on_identically(done: list[tuple[int, str]], at: int) -> None:
    heard = {"deliver": (Negotiation(WILL, ECHO), Negotiation(DONT, ECHO))}
    kept = Options(frozenset((ECHO,)), frozenset((ECHO,)))
    moved = Options.restore(through_json(kept.snapshot()))
    for number, (which, deed) in enumerate(done):
        if number == at:
            moved = Options.restore(through_json(kept.snapshot()))
        for options in (kept, moved):
            if deed == "deliver":
                options.receive(heard[deed][which])
            else:
                getattr(options, deed)(ECHO)
    assert moved.snapshot() == kept.snapshot()
    assert moved.take_output() == kept.take_output()


GOOD: dict[str, object] = Options(frozenset((ECHO,)), frozenset()).snapshot()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [],
        {**GOOD, "output": "xyz"},
        {**GOOD, "output": 5},
        {**GOOD, "answered": ["a"]},
        {**GOOD, "answered": None},
        {**GOOD, "agreed": {"local": [256], "remote": []}},
        {**GOOD, "agreed": []},
        {**GOOD, "states": {"local": {"0": "perhaps"}, "remote": {}}},
        {**GOOD, "states": {"local": {"999": "yes"}, "remote": {}}},
        {**GOOD, "states": {"local": {}}},
        {**GOOD, "states": {"local": 3, "remote": {}}},
    ],
)
def test_malformed_snapshot_is_our_fault(saved: dict[str, object]) -> None:
    with pytest.raises(LocalError):
        Options.restore(saved)
