"""When matches of triggers are told."""

from __future__ import annotations

import pytest

from vspcd.core import gathering
from vspcd.core.automation import Trigger
from vspcd.core.gathering import Gathering, Match, next_due


def made(every: float = 60, gather: float = 2) -> Gathering:
    return Gathering(Trigger("panic", "panic", ("*",), every, gather, None))


def test_a_match_is_told_after_the_time_to_gather() -> None:
    one = made()
    one.matched("a", "panic!", 100)
    assert (one.due, one.take(101.9)) == (102, [])
    assert one.take(102) == [Match("a", "panic!", 1)]
    assert (one.due, one.take(200)) == (None, [])


def test_consoles_that_match_together_are_told_together() -> None:
    one = made()
    for number in range(1000):
        one.matched(f"vm{number}", "panic", 100 + number / 1000)
        one.matched(f"vm{number}", "again", 100 + number / 1000)
    told = one.take(102)
    assert [match.console for match in told] == [f"vm{number}" for number in range(1000)]
    assert {(match.line, match.lines) for match in told} == {("panic", 2)}


def test_a_console_is_told_again_only_after_a_while_and_lines_in_between_are_counted() -> None:
    one = made()
    one.matched("a", "first", 0)
    one.take(2)
    for now in (3, 30, 61):
        one.matched("a", "more", now)
    assert one.take(61.9) == []
    one.matched("b", "other", 61)
    assert one.take(63) == [Match("b", "other", 1)]
    one.matched("a", "late", 62)
    assert one.take(64) == [Match("a", "late", 4)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "REMEMBERED", 10)
    monkeypatch.setattr(gathering, "TOGETHER", 20)
    one = made(every=1e6)
    for number in range(50):
        one.matched(f"vm{number}", "x", 0)
    assert [len(one.take(10)) for _ in range(4)] == [20, 20, 10, 0]
    assert len(one._told) == 10


def test_who_may_be_told_of_again_is_forgotten() -> None:
    one = made(every=5)
    one.matched("a", "x", 0)
    one.take(2)
    one.matched("b", "x", 10)
    one.take(12)
    assert list(one._told) == ["b"]


def test_the_next_time_is_the_earliest() -> None:
    one, other = made(), made()
    assert next_due(iter([one, other])) is None
    one.matched("a", "x", 5)
    other.matched("a", "x", 3)
    assert next_due(iter([one, other])) == 5
