"""What must have no effect on a VM that moves: words out of place, wrong pairs, targets that are other VMs."""

from __future__ import annotations

import pytest

from tests.workers.bench import UUID, Bench
from tests.workers.moving import SEQUENCE, Moving, identity, payloads
from vspcd.proto.vmware import (
    UNKNOWN_SUBOPTION_RCVD_2,
    VMOTION_ABORT,
    VMOTION_BEGIN,
    VMOTION_COMPLETE,
    VMOTION_GOAHEAD,
    VMOTION_NOTNOW,
    VMOTION_PEER,
    frame,
)

OTHER_UUID = "f" * 32


@pytest.fixture
def moving(bench: Bench) -> Moving:
    return Moving(bench)


def test_second_begin_makes_the_first_pair_worthless(moving: Moving) -> None:
    first = moving.goahead(b"1111")
    second = moving.goahead(b"2222")
    assert [told["pair"] for told in moving.bench.told("revoke")] == [first.hex()]
    number, _ = moving.offer_target(first)
    moving.bench.until(lambda: moving.bench.told("rejected"))
    assert moving.bench.told("rejected")[0]["leg"] == number
    target = moving.target(second)
    moving.complete(target, b"1111")
    moving.raw.say(b"held")
    assert moving.typed_at_rest(target) == b""
    moving.complete(target, b"2222")
    moving.bench.until(lambda: target.typed() == b"held")


def test_second_begin_drops_the_target_of_the_first(moving: Moving) -> None:
    target = moving.joined()
    pair = moving.goahead(b"2222")
    moving.bench.until(target.ended)
    assert moving.target(pair)


def test_only_one_target_is_let_in(moving: Moving) -> None:
    pair = moving.goahead()
    moving.target(pair)
    number, _ = moving.offer_target(pair)
    moving.bench.until(lambda: moving.bench.told("rejected"))
    assert moving.bench.told("rejected")[0]["leg"] == number


def test_target_that_is_another_vm_is_refused(moving: Moving) -> None:
    moving.offer_target(moving.goahead(), uuid=OTHER_UUID)
    moving.bench.until(lambda: moving.bench.told("rejected"))
    moving.abort()
    moving.raw.say(b"mine")
    moving.bench.until(lambda: moving.source.typed() == b"mine")


def test_target_that_turns_out_to_be_another_vm_is_dropped(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"secret")
    target.say(identity(OTHER_UUID))
    moving.bench.until(lambda: target.ended() and moving.source.typed() == b"secret")
    assert target.typed() == b""


@pytest.mark.parametrize("first", [False, True])
def test_target_may_say_who_it_is_before_or_after_its_pair(moving: Moving, first: bool) -> None:
    pair = moving.goahead()
    target = moving.target(pair, UUID, "web01") if first else moving.target(pair)
    if not first:
        target.say(identity())
    moving.moved(target)
    target.speak(b"x")
    moving.bench.until(lambda: moving.raw.heard() == b"x")


@pytest.mark.parametrize("payload", [b"", SEQUENCE])
def test_complete_from_the_source_has_no_effect(moving: Moving, payload: bytes) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    moving.source.say(frame(VMOTION_COMPLETE, payload))
    assert moving.typed_at_rest(target) + moving.source.typed() == b""
    moving.moved(target)
    moving.bench.until(lambda: target.typed() == b"held")


def test_abort_from_the_target_has_no_effect(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    target.say(frame(VMOTION_ABORT))
    assert moving.typed_at_rest(target) + moving.source.typed() == b""
    moving.moved(target)
    moving.bench.until(lambda: target.typed() == b"held")


@pytest.mark.parametrize("code", [VMOTION_ABORT, VMOTION_COMPLETE])
def test_words_about_a_move_that_is_none_have_no_effect(moving: Moving, code: int) -> None:
    moving.source.say(frame(code, SEQUENCE))
    moving.raw.say(b"typed")
    moving.bench.until(lambda: moving.source.typed() == b"typed")
    assert not moving.bench.told("moved")


def test_pair_shown_by_the_vm_that_is_there_is_answered_as_unknown(moving: Moving) -> None:
    moving.source.say(frame(VMOTION_PEER, b"12345678901234567890"))
    moving.bench.until(lambda: payloads(moving.source, UNKNOWN_SUBOPTION_RCVD_2) == [bytes([VMOTION_PEER])])


def test_target_cannot_move_on_before_it_has_arrived(moving: Moving) -> None:
    target = moving.joined()
    target.say(frame(VMOTION_BEGIN, b"next"))
    moving.bench.until(lambda: payloads(target, VMOTION_NOTNOW) == [b"next"])
    moving.moved(target)


def test_begin_of_a_source_whose_vm_has_left_is_not_now(moving: Moving) -> None:
    target = moving.joined()
    moving.complete(target)
    moving.source.say(frame(VMOTION_BEGIN, b"late"))
    moving.source.finish()
    moving.ended("moved")
    assert payloads(moving.source, VMOTION_GOAHEAD)[1:] == []
