"""Tables for any width, and numbers in few characters."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.table import Column, age, cpu_time, cut, display_width, lay_out, size

COLUMNS = (
    Column("NAME"),
    Column("UUID", 5, short=4),
    Column("PORT", right=True),
    Column("CPU", 9, right=True),
)
ROW = ("web01", "0123456789abcdef", "50001", "1.23s")


def lines(width: Optional[int]) -> list[str]:
    return lay_out(COLUMNS, [ROW], width).lines


def test_without_a_width_everything_is_there() -> None:
    assert lines(None)[1] == "web01  0123456789abcdef  50001  1.23s"


def test_headings_stand_over_their_columns() -> None:
    assert lines(None)[0] == "NAME   UUID               PORT    CPU"


def test_first_a_long_column_is_shortened() -> None:
    assert lines(30)[1] == "web01  012…  50001  1.23s"


def test_then_the_least_important_column_goes() -> None:
    assert lines(20)[1] == "web01  012…  50001"


def test_columns_that_matter_stay_in_any_width() -> None:
    assert lines(5)[1] == "web01  50001"


def test_a_layout_tells_whether_something_is_missing() -> None:
    assert [lay_out(COLUMNS, [ROW], width).complete for width in (None, 80, 30, 20)] == [
        True,
        True,
        False,
        False,
    ]


def test_wide_characters_take_two_columns() -> None:
    assert lay_out(COLUMNS[:3:2], [("日本", "1"), ("ab", "2")], None).lines == [
        "NAME  PORT",
        "日本     1",
        "ab       2",
    ]


@given(
    st.lists(
        st.tuples(st.text("ab日", max_size=30), st.text("x", max_size=40), st.just("1"), st.just("2")),
        max_size=5,
    ),
    st.integers(20, 120),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int) -> None:
    assert all(display_width(line) <= width for line in lay_out(COLUMNS, rows, width).lines)


@given(st.text(max_size=30), st.integers(1, 30))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert display_width(cut(text, width)) <= width


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (1536, "1.5K"),
        (10_240, "10K"),
        (1023 * 1024, "1.0M"),
        (5 << 30, "5.0G"),
        (1 << 70, "1048576P"),
    ],
)
def test_a_size_takes_few_characters(count: Optional[float], text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-5, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h00m"), (11100, "3h05m"), (93600, "1d02h")],
)
def test_an_age_takes_few_characters(seconds: Optional[float], text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.421, "0.42s"), (12.4, "12s"), (200, "3m20s"), (7200, "2h00m")]
)
def test_processor_time_takes_few_characters(seconds: Optional[float], text: str) -> None:
    assert cpu_time(seconds) == text
