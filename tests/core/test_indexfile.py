"""The index beside a log: lines, time → byte, byte → time."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core.indexfile import Entry, Index, parse_line

EXAMPLE = b"""\
1000000 5000 base
1000000 5000 connected {"peer":"10.0.0.1"}
1000000 5000 mark
1010000 5100 mark
1010500 5150 disconnected
1020000 5150 mark
"""


def test_a_line_has_moment_position_word_and_facts() -> None:
    entry = parse_line(b'1795214000123 42 renamed {"to":"web01"}')
    assert entry == Entry(1795214000.123, 42, "renamed", b'{"to":"web01"}')
    assert entry.details() == {"to": "web01"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"mark",
        b"1 mark",
        b"x 1 mark",
        b"1 -1 mark",
        b"1 1",
        b"1 1 MARK",
        b"1 1 mark x",
        b"1 1 mark\x00",
        b"9" * 40,
    ],
)
def test_a_damaged_line_is_no_entry(line: bytes) -> None:
    assert parse_line(line) is None


def test_damaged_facts_are_no_facts() -> None:
    entry = parse_line(b"1 1 renamed {oops}")
    assert entry is not None
    assert entry.details() == {}


def test_a_moment_within_a_burst_gives_the_bursts_first_byte() -> None:
    assert Index(EXAMPLE).byte_since(1010.2) == 100


def test_a_moment_in_a_silence_gives_the_next_byte() -> None:
    assert Index(EXAMPLE).byte_since(1005) == 100


def test_a_moment_before_everything_gives_the_first_byte() -> None:
    assert Index(EXAMPLE).byte_since(1) == 0


def test_a_moment_behind_everything_gives_none() -> None:
    assert Index(EXAMPLE).byte_since(1100) is None


def test_what_came_until_a_moment_ends_at_the_next_mark() -> None:
    assert Index(EXAMPLE).byte_after(1010.2) == 150


def test_everything_came_until_a_late_moment() -> None:
    assert Index(EXAMPLE).byte_after(1020) is None


def test_nothing_came_until_an_early_moment() -> None:
    assert Index(EXAMPLE).byte_after(999) == 0


@pytest.mark.parametrize(
    ("byte", "moment"),
    [(0, 1000.0), (99, 1000.0), (100, 1010.0), (149, 1010.0), (150, 1020.0), (9999, 1020.0)],
)
def test_a_byte_came_at_the_last_line_not_behind_it(byte: int, moment: float) -> None:
    assert Index(EXAMPLE).arrival(byte)[0] == moment


def test_an_arrival_tells_how_far_it_holds() -> None:
    assert Index(EXAMPLE).arrival(0) == (1000.0, 100)
    assert Index(EXAMPLE).arrival(9999) == (1020.0, None)


def test_positions_behind_a_new_base_count_from_it() -> None:
    text = b"1000 0 base\n1000 0 mark\n5000 50 lost\n5000 60 base\n5000 100 mark\n9000 110 mark\n"
    assert [byte for _, byte in Index(text).entries()] == [0, 50, 40, 50]
    assert Index(text).byte_since(8.0) == 50


def test_damaged_lines_in_the_middle_are_passed_over() -> None:
    damaged = EXAMPLE.replace(b"1010500 5150 disconnected\n", b"\x00\x00garbage\n\n")
    assert Index(damaged).byte_since(1012.0) == 150


def test_a_torn_last_line_counts_as_absent() -> None:
    assert Index(EXAMPLE + b"1030000 51").byte_since(1025) is None


@pytest.mark.parametrize("text", [b"", b"\n", b"garbage", b"1000 5 mark\n"])
def test_without_a_base_nothing_is_known(text: bytes) -> None:
    index = Index(text)
    assert not index
    assert (index.byte_since(1), index.byte_after(1), index.arrival(0)) == (0, None, (None, None))


def test_events_are_found_by_their_words() -> None:
    index = Index(
        b'1000 0 base\n1000 0 connected {"peer":"a"}\n2000 7 mark\n3000 9 renamed {"from":" connected ","to":"x"}\n'
        b"4000 9 disconnected\n5000 -3 base\n6000 10 connected\n7000 11 connected {torn"
    )
    found = [(entry.moment, entry.word, byte) for entry, byte in index.events(["connected", "disconnected"])]
    assert found == [(1.0, "connected", 0), (4.0, "disconnected", 9), (6.0, "connected", 13)]


class Written(NamedTuple):
    text: bytes
    arrivals: list[float]
    """The moment of each byte of the log."""


@st.composite
def histories(draw: st.DrawFn) -> Written:
    """What a log's writer leaves: a mark before a write when the last one is a second old, and events."""
    now, base = 1000.0, draw(st.integers(0, 10**6))
    arrivals: list[float] = []
    lines, last_mark = [f"{now * 1000:.0f} {base} base"], 0.0
    for pause, size, event in draw(
        st.lists(
            st.tuples(st.sampled_from([0, 0.125, 0.5, 1.0, 7.0, 3600.0]), st.integers(0, 5), st.booleans()),
            max_size=60,
        )
    ):
        now += pause
        position = base + len(arrivals)
        if event:
            lines.append(f"{now * 1000:.0f} {position} attached {{}}")
        if size and now - last_mark >= 1:
            last_mark = now
            lines.append(f"{now * 1000:.0f} {position} mark")
        arrivals += [now] * size
    return Written("".join(line + "\n" for line in lines).encode(), arrivals)


@given(histories(), st.floats(990, 1200))
def test_since_leaves_out_nothing_newer_and_shows_at_most_a_second_more(
    written: Written, moment: float
) -> None:
    found = Index(written.text).byte_since(moment)
    start = len(written.arrivals) if found is None else found
    assert all(arrival < moment for arrival in written.arrivals[:start])
    assert all(arrival > moment - 2 for arrival in written.arrivals[start:])


@given(histories(), st.floats(990, 1200))
def test_until_leaves_out_nothing_older_and_shows_at_most_a_second_more(
    written: Written, moment: float
) -> None:
    found = Index(written.text).byte_after(moment)
    end = len(written.arrivals) if found is None else found
    assert all(arrival > moment for arrival in written.arrivals[end:])
    assert all(arrival < moment + 2 for arrival in written.arrivals[:end])


@given(histories())
def test_every_byte_came_at_its_time_to_the_second(written: Written) -> None:
    index = Index(written.text)
    for byte, arrival in enumerate(written.arrivals):
        moment, _ = index.arrival(byte)
        assert moment is not None
        assert 0 <= arrival - moment < 1.001


@given(st.binary(max_size=300), st.floats(0, 1e10), st.integers(0, 10**9))
def test_any_garbage_gives_an_answer(text: bytes, moment: float, byte: int) -> None:
    index = Index(b"1 0 base\n" + text)
    index.byte_since(moment)
    index.byte_after(moment)
    index.arrival(byte)
    list(index.entries())
