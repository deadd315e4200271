"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.times import parse_moment, stamp


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def noon() -> float:
    return datetime(2026, 11, 20, 12, 0, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-20 12:00:00"),
        ("10m", "2026-11-20 11:50:00"),
        ("2h ago", "2026-11-20 10:00:00"),
        ("2 hours ago", "2026-11-20 10:00:00"),
        ("1h30m", "2026-11-20 10:30:00"),
        ("1d 12h", "2026-11-19 00:00:00"),
        ("90s", "2026-11-20 11:58:30"),
        ("1.5 h", "2026-11-20 10:30:00"),
        ("1 week ago", "2026-11-13 12:00:00"),
        ("today", "2026-11-20 00:00:00"),
        ("yesterday", "2026-11-19 00:00:00"),
        ("Yesterday 14:30", "2026-11-19 14:30:00"),
        ("11:59", "2026-11-20 11:59:00"),
        ("11:59:58", "2026-11-20 11:59:58"),
        ("2026-11-18", "2026-11-18 00:00:00"),
        ("2026-11-18 07:08", "2026-11-18 07:08:00"),
        ("2026-11-18T07:08:09", "2026-11-18 07:08:09"),
        ("2026-11-18T07:08:09.25", "2026-11-18 07:08:09"),
        ("2026-11-18T07:08:09Z", "2026-11-18 08:08:09"),
        ("2026-11-18T07:08:09+02:00", "2026-11-18 06:08:09"),
        ("2026-11-18 07:08 -0500", "2026-11-18 13:08:00"),
        ("@1700000000", "2023-11-14 23:13:20"),
        ("-1h", "2026-11-20 11:00:00"),
        ("an hour ago", "2026-11-20 11:00:00"),
        ("last hour", "2026-11-20 11:00:00"),
        ("a week ago", "2026-11-13 12:00:00"),
        ("1 month ago", "2026-10-21 13:00:00"),
        ("1y", "2025-11-20 12:00:00"),
        ("11am", "2026-11-20 11:00:00"),
        ("2:30pm", "2026-11-19 14:30:00"),
        ("12am", "2026-11-20 00:00:00"),
        ("yesterday noon", "2026-11-19 12:00:00"),
        ("monday", "2026-11-16 00:00:00"),
        ("Friday 14:30", "2026-11-13 14:30:00"),
        ("last fri", "2026-11-20 00:00:00"),
        ("Nov 18 07:08:09", "2026-11-18 07:08:09"),
        ("18 November", "2026-11-18 00:00:00"),
        ("Dec 24", "2025-12-24 00:00:00"),
    ],
)
def test_a_time_is_understood(text: str, meant: str) -> None:
    assert stamp(parse_moment(text, noon())) == meant


def test_a_clock_time_still_to_come_is_yesterdays() -> None:
    assert stamp(parse_moment("14:30", noon())) == "2026-11-19 14:30:00"


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:60", "2026-13-01", "2026-11-31", "10x", "m", "ago", "10 20"]
)
def test_what_is_no_time_is_refused_with_its_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_moment(text, noon())


def test_a_refusal_shows_what_would_be_right() -> None:
    with pytest.raises(ValueError, match="2h ago"):
        parse_moment("soon", noon())


@given(st.one_of(st.text(max_size=30), st.text("0123456789:-+.@TZhmsdw ago", max_size=25)))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        assert isinstance(parse_moment(text, 1795214000.0), float)
    except ValueError:
        pass
