"""How much room a log may take: who talks much, when a log is full, and what is to stay free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core.logspace import CREDIT, QUIET_RATE, Talk, limit, reserve


def test_a_saturated_line_of_9600_baud_is_never_chatty() -> None:
    talk = Talk(0.0)
    for second in range(1, 3600):
        talk.account(second, 960)
        assert not talk.chatty


def test_a_login_prompt_and_a_screen_of_boot_messages_are_not_chatty() -> None:
    talk = Talk(0.0)
    talk.account(1.0, 60000)
    assert not talk.chatty


def test_more_than_a_minute_of_a_slow_line_at_once_is_chatty() -> None:
    talk = Talk(0.0)
    talk.account(1.0, CREDIT + QUIET_RATE + 1)
    assert talk.chatty


def test_who_was_chatty_is_forgiven_after_a_minute_of_silence_or_two_and_not_before() -> None:
    talk = Talk(0.0)
    talk.account(1.0, 100 << 20)
    forgiven = next(second for second in range(2, 1000) if not _still(talk, second))
    assert 60 <= forgiven <= 120


def _still(talk: Talk, second: int) -> bool:
    talk.account(second, 0)
    return talk.chatty


def test_who_goes_on_talking_stays_chatty() -> None:
    talk = Talk(0.0)
    for second in range(1, 600):
        talk.account(second, 100000)
    assert talk.chatty


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1 << 40)), max_size=50))
def test_what_a_chatty_console_may_log_is_bounded_by_its_rate(said: list[tuple[float, int]]) -> None:
    """Whatever was said while it was not chatty fits into the credit and the time that has passed, but for one call."""
    talk, now, allowed, largest = Talk(0.0), 0.0, 0, 0
    for pause, size in said:
        now += pause
        if not talk.chatty:
            allowed += min(size, 2 * CREDIT)
            largest = max(largest, min(size, 2 * CREDIT))
        talk.account(now, size)
    assert allowed <= CREDIT + now * QUIET_RATE + largest * (1 + now * QUIET_RATE / CREDIT * 2)


@pytest.mark.parametrize(
    ("max_size", "quota", "keep", "full"),
    [
        (1000, 0, 5, 1000),
        (1000, 10000, 5, 1000),
        (1000, 1500, 5, 750),
        (1000, 1500, 0, 1000),
        (1000, 500, 0, 500),
    ],
)
def test_two_full_logs_fit_into_the_quota(max_size: int, quota: int, keep: int, full: int) -> None:
    assert limit(max_size, quota, keep) == full


def test_the_reserve_is_a_size_or_a_share() -> None:
    assert reserve(0, 2.0, 1 << 40) == (1 << 40) // 50
    assert reserve(1 << 30, 0.0, 1 << 40) == 1 << 30
    assert reserve(0, 0.0, 1 << 40) == 0
