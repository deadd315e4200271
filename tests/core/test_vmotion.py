"""The table of a vMotion: each event in each state, and what no sequence of events may lead to.

A small world carries the actions out: who types where, which connections are there, whose bytes are shown.
"""

from __future__ import annotations

from typing import Callable, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core import vmotion
from vspcd.core.vmotion import (
    ABORT,
    BEGIN,
    COMPLETE,
    DELIVERED,
    DELIVERING,
    EXPIRED,
    FLUSHED,
    FLUSHING,
    IDLE,
    JOINED,
    MOVING,
    PEER,
    SOURCE_GONE,
    TARGET_GONE,
    TOO_SLOW,
    MoveRecord,
    Vmotion,
)

STATES = (IDLE, DELIVERING, MOVING, JOINED, FLUSHING)
EVENTS = (
    BEGIN, DELIVERED, TOO_SLOW, PEER, COMPLETE, ABORT, SOURCE_GONE, TARGET_GONE, EXPIRED, FLUSHED,
)  # fmt: skip

# What time alone brings in each state: no state may be left by a peer's good will only.
TIME_IS_UP = {DELIVERING: TOO_SLOW, MOVING: EXPIRED, JOINED: EXPIRED, FLUSHING: FLUSHED}

# How a state is reached on the straight way.
WAY = {
    IDLE: (),
    DELIVERING: (BEGIN,),
    MOVING: (BEGIN, DELIVERED),
    JOINED: (BEGIN, DELIVERED, PEER),
    FLUSHING: (BEGIN, DELIVERED, PEER, COMPLETE),
}

# The state after each event, a row per state, a column per event; "." is "as if it had not come".
NEXT = """
            begin       delivered  too-slow  peer    complete  abort  source-gone  target-gone  expired  flushed
idle        delivering  .          .         .       .         .      .            .            .        .
delivering  delivering  moving     idle      .       .         idle   idle         .            .        .
moving      delivering  .          .         joined  .         idle   moving       .            idle     .
joined      delivering  .          .         .       flushing  idle   joined       idle         idle     .
flushing    .           .          .         .       .         .      idle         idle         .        idle
"""
_HEAD, *_ROWS = [line.split() for line in NEXT.strip().splitlines()]
EXPECTED = {(row[0], event.replace("-", " ")): state for row in _ROWS for event, state in zip(_HEAD, row[1:])}

HELD, TO_SOURCE, TO_TARGET = "held", "to the source", "to the target"


class World:
    """What the actions change: connections, typing, the pair, whose bytes are shown, the records."""

    def __init__(self) -> None:
        self.machine = Vmotion()
        self.source = True
        self.target = False
        self.typing = TO_SOURCE
        self.pair_known = False
        self.begun = 0
        self.ended = 0

    def happened(self, event: str) -> tuple[str, ...]:
        if event == PEER and self.machine.state == MOVING:
            self.target, self.pair_known = True, False  # the master gives a pair away once
        if event == SOURCE_GONE:
            self.source = False
        if event == TARGET_GONE:
            self.target = False
        actions = self.machine.step(event)
        for action in actions:
            DO[action](self)
        if event == SOURCE_GONE and not actions and not self.machine.under_way:
            self.disconnect()
        return actions

    def start(self) -> None:
        self.begun += 1
        self.typing = HELD

    def goahead(self) -> None:
        self.pair_known = True

    def revoke(self) -> None:
        self.pair_known = False

    def release(self) -> None:
        self.typing = TO_SOURCE

    def give_up(self) -> None:
        if self.source:
            self.release()
        else:
            self.disconnect()

    def drop_target(self) -> None:
        self.target = False

    def type_to_target(self) -> None:
        self.typing = TO_TARGET

    def switch(self) -> None:
        """The target is the VM's connection now, a source for the next move."""
        self.source, self.target = self.target, False
        self.typing = TO_SOURCE

    def disconnect(self) -> None:
        """The VM is gone: what is typed waits for the next connection, not for the move."""
        self.source = False
        self.typing = TO_SOURCE

    def record(self) -> None:
        self.ended += 1

    def nothing(self) -> None:
        pass

    def possible(self, event: str) -> bool:
        """Whether somebody is there who can cause it."""
        if event in (BEGIN, ABORT, SOURCE_GONE):
            return self.source
        if event in (COMPLETE, TARGET_GONE):
            return self.target
        return self.pair_known if event == PEER else True


DO: dict[str, Callable[[World], None]] = {
    vmotion.START: World.start,
    vmotion.NOTNOW: World.nothing,
    vmotion.GOAHEAD: World.goahead,
    vmotion.PEER_OK: World.nothing,
    vmotion.REVOKE: World.revoke,
    vmotion.RELEASE: World.release,
    vmotion.GIVE_UP: World.give_up,
    vmotion.DROP_TARGET: World.drop_target,
    vmotion.SOURCE_LEFT: World.nothing,
    vmotion.TYPE_TO_TARGET: World.type_to_target,
    vmotion.SWITCH: World.switch,
    vmotion.DISCONNECT: World.disconnect,
    vmotion.RECORD: World.record,
}


def reached(state: str, world: Optional[World] = None) -> World:
    world = world or World()
    for event in WAY[state]:
        world.happened(event)
    assert world.machine.state == state
    return world


def check(world: World) -> None:
    """What holds between any two events."""
    state = world.machine.state
    assert world.target == (state in (JOINED, FLUSHING))
    assert world.pair_known == (state == MOVING)
    assert (world.typing == HELD) == (state in (DELIVERING, MOVING, JOINED))
    assert (world.typing == TO_TARGET) == (state == FLUSHING)
    assert world.machine.under_way == (state != IDLE)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_next_state(state: str, event: str) -> None:
    world = reached(state)
    expected = EXPECTED[state, event]
    actions = world.happened(event)
    if expected == ".":
        assert (world.machine.state, actions) == (state, ())
    else:
        assert world.machine.state == expected
        assert actions


def test_table_has_no_line_for_other_states_and_events() -> None:
    assert set(vmotion.TABLE) == {at for at, state in EXPECTED.items() if state != "."}


@pytest.mark.parametrize(("state", "event"), sorted(at for at, state in EXPECTED.items() if state == IDLE))
def test_end_of_a_move_is_recorded_once_and_leaves_nothing_behind(state: str, event: str) -> None:
    world = reached(state)
    world.happened(event)
    assert (world.begun, world.ended) == (1, 1)
    check(world)


@pytest.mark.parametrize("state", [DELIVERING, MOVING, JOINED])
def test_second_begin_replaces_the_first(state: str) -> None:
    world = reached(state)
    world.happened(BEGIN)
    assert (world.machine.state, world.target, world.pair_known) == (DELIVERING, False, False)


@pytest.mark.parametrize("state", [DELIVERING, MOVING, JOINED])
def test_abort_lets_them_type_to_the_source_again(state: str) -> None:
    world = reached(state)
    world.happened(ABORT)
    assert (world.typing, world.source, world.target, world.pair_known) == (TO_SOURCE, True, False, False)


def test_abort_comes_too_late_once_the_vm_runs_on_the_target() -> None:
    world = reached(FLUSHING)
    assert world.happened(ABORT) == ()
    assert world.typing == TO_TARGET


@pytest.mark.parametrize("state", [MOVING, JOINED])
def test_source_may_leave_before_complete(state: str) -> None:
    world = reached(state)
    assert world.happened(SOURCE_GONE) == (vmotion.SOURCE_LEFT,)
    assert world.typing == HELD


def test_bytes_of_the_target_come_behind_those_of_the_source() -> None:
    """Typing goes to the target at COMPLETE, its bytes are shown when the source has said its last."""
    world = reached(JOINED)
    assert world.happened(COMPLETE) == (vmotion.TYPE_TO_TARGET,)
    assert world.happened(SOURCE_GONE) == (vmotion.SWITCH, vmotion.RECORD)


def test_move_can_follow_a_move_for_ever() -> None:
    world = World()
    for _ in range(20):
        reached(FLUSHING, world)
        world.happened(FLUSHED)
        check(world)
    assert (world.begun, world.ended, world.source) == (20, 20, True)


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_no_possible_story_leaves_typing_held_or_a_target_without_an_owner(events: list[str]) -> None:
    world = World()
    for event in events:
        if world.possible(event):
            world.happened(event)
            check(world)
    if world.machine.under_way:
        world.happened(TIME_IS_UP[world.machine.state])
    assert world.machine.state == IDLE
    check(world)
    assert not world.target
    assert world.typing == TO_SOURCE
    assert world.ended <= world.begun


@given(st.lists(st.sampled_from((*EVENTS, "nonsense")), max_size=40))
def test_whatever_is_said_in_whatever_order_time_alone_ends_the_move(events: list[str]) -> None:
    machine = Vmotion()
    for event in events:
        machine.step(event)
    if machine.under_way:
        machine.step(TIME_IS_UP[machine.state])
    assert not machine.under_way


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_vm_that_dials_again_in_the_middle_ends_the_move(events: list[str]) -> None:
    """A plain reconnect: the worker tells that the source is gone, and that the time is up."""
    world = World()
    for event in events:
        if world.possible(event):
            world.happened(event)
    world.happened(SOURCE_GONE)
    world.happened(EXPIRED)
    assert world.machine.state == IDLE
    check(world)


@pytest.mark.parametrize("event", [TOO_SLOW, ABORT, EXPIRED, TARGET_GONE, SOURCE_GONE])
def test_every_bad_end_has_words(event: str) -> None:
    assert vmotion.OUTCOMES[event] not in ("", vmotion.MOVED)


def test_record_has_hosts_milliseconds_bytes_and_outcome() -> None:
    record = MoveRecord("192.0.2.1:1", 1700000000.12345, "192.0.2.2:2")
    record.steps["goahead"] = 0.01234
    record.held, record.outcome = 42, vmotion.MOVED
    assert record.as_dict() == {
        "when": 1700000000.123,
        "from": "192.0.2.1:1",
        "to": "192.0.2.2:2",
        "goahead_ms": 12.3,
        "held": 42,
        "outcome": "moved",
    }
