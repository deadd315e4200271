"""Journal positions: what is in memory, and where the rest lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core.journal import Segments, Tail

chunks = st.lists(st.binary(max_size=40), max_size=30)


@given(chunks, st.integers(1, 50))
def test_the_tail_holds_the_last_bytes_and_says_from_where(pieces: list[bytes], limit: int) -> None:
    tail = Tail(limit)
    for piece in pieces:
        tail.append(piece)
    said = b"".join(pieces)
    assert tail.head == len(said)
    assert tail.read(tail.start, len(said)) == said[tail.start :]


@given(chunks, st.integers(1, 50))
def test_the_tail_holds_enough_and_never_more_than_twice_its_limit(pieces: list[bytes], limit: int) -> None:
    tail = Tail(limit)
    for piece in pieces:
        tail.append(piece)
        held = tail.head - tail.start
        assert min(tail.head, limit) <= held <= 2 * limit


@given(chunks, st.integers(1, 50), st.integers(0, 300), st.integers(0, 300))
def test_the_tail_gives_what_was_said_at_a_position_or_nothing(
    pieces: list[bytes], limit: int, position: int, size: int
) -> None:
    tail = Tail(limit)
    for piece in pieces:
        tail.append(piece)
    said = b"".join(pieces)
    expected = None if position < tail.start else said[position : position + size]
    assert tail.read(position, size) == expected


def test_a_tail_can_begin_anywhere() -> None:
    tail = Tail(10, head=1000)
    tail.append(b"abc")
    assert (tail.start, tail.head) == (1000, 1003)
    assert tail.read(1001, 10) == b"bc"
    assert tail.read(999, 10) is None


def test_the_tail_keeps_a_copy() -> None:
    owned = bytearray(b"abc")
    tail = Tail(10)
    tail.append(memoryview(owned))
    owned[:] = b"xyz"
    assert tail.read(0, 3) == b"abc"


def test_a_position_is_found_in_the_run_that_holds_it() -> None:
    segments = Segments()
    segments.begin(0, 0, 7, 100)
    segments.begin(100, 0, 8, 50)
    assert segments.locate(0) == (7, 0, 100)
    assert segments.locate(99) == (7, 99, 1)
    assert segments.locate(100) == (8, 0, 50)
    assert segments.locate(149) == (8, 49, 1)
    assert segments.locate(150) is None


def test_behind_a_gap_the_marker_is_left_out() -> None:
    """100 bytes, 30 lost, a marker of 20, 50 bytes more: all in one file."""
    segments = Segments()
    segments.begin(0, 0, 7, 100)
    segments.begin(130, 120, 7, 50)
    assert segments.locate(100) is None
    assert segments.locate(129) is None
    assert segments.locate(130) == (7, 120, 50)
    assert segments.next_after(100) == 130


def test_the_run_that_grows_is_the_last() -> None:
    segments = Segments()
    assert segments.current is None
    segments.begin(0, 0, 7)
    assert segments.current is not None
    segments.current.length += 5
    assert segments.locate(4) == (7, 4, 1)


def test_an_empty_run_is_nowhere_to_go_on() -> None:
    segments = Segments()
    segments.begin(0, 0, 7, 10)
    segments.begin(50, 0, 8)
    assert segments.next_after(10) is None


def test_nothing_lies_behind_the_last_run() -> None:
    segments = Segments()
    segments.begin(10, 0, 7, 10)
    assert segments.next_after(5) == 10
    assert segments.next_after(10) is None


@pytest.mark.parametrize(
    ("needed_from", "closed"),
    [(0, set()), (99, set()), (100, {1}), (199, {1}), (200, {1, 2}), (10**9, {1, 2})],
)
def test_runs_that_nobody_needs_are_let_go_but_never_the_last(needed_from: int, closed: set[int]) -> None:
    segments = Segments()
    for number in range(3):
        segments.begin(number * 100, 0, number + 1, 100)
    assert segments.release(needed_from, 10) == closed
    assert segments.current is not None
    assert segments.current.fd == 3


def test_too_many_runs_are_let_go_though_somebody_needs_them() -> None:
    segments = Segments()
    for number in range(5):
        segments.begin(number * 100, 0, number + 1, 100)
    assert segments.release(0, 2) == {1, 2, 3}
    assert segments.locate(250) is None
    assert segments.next_after(250) == 300


def test_a_descriptor_that_another_run_still_uses_is_not_closed() -> None:
    segments = Segments()
    segments.begin(0, 0, 7, 100)
    segments.begin(200, 150, 7, 100)
    segments.begin(300, 0, 8, 10)
    assert segments.release(100, 10) == set()
    assert segments.release(300, 10) == {7}
