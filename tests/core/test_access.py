"""Sharing a console: what each mode brings when others are there."""

from __future__ import annotations

from typing import Optional

from hypothesis import given
from hypothesis import strategies as st

from vspcd.core import access
from vspcd.core.access import DENIED, EXCLUSIVE, LOCK, LOCKED, MODES, RO, RW, Grant, Refused, admit, effective

HELD = (None, LOCK, EXCLUSIVE)
modes, held, flags = st.sampled_from(MODES), st.sampled_from(HELD), st.booleans()


def test_the_table_has_a_row_for_each_mode_and_each_lock() -> None:
    assert set(access.TABLE) == {(asked, kind) for asked in MODES for kind in HELD}


def test_free_consoles_give_what_is_asked_for() -> None:
    assert admit(RW, None, True, False) == Grant(RW, RW)
    assert admit(RO, None, True, False) == Grant(RO, RO)
    assert admit(LOCK, None, True, False) == Grant(RW, RW, LOCK)
    assert admit(EXCLUSIVE, None, True, False) == Grant(RW, RW, EXCLUSIVE)


def test_a_lock_lets_others_watch_and_an_exclusive_one_lets_nobody_in() -> None:
    assert admit(RO, LOCK, True, False) == Grant(RO, RO)
    assert admit(RW, LOCK, True, False) == Refused(LOCKED)
    assert admit(RW, LOCK, True, True) == Grant(RW, RO)
    assert admit(LOCK, LOCK, True, True) == Grant(RW, RO)
    for asked in MODES:
        assert admit(asked, EXCLUSIVE, True, True) == Refused(LOCKED)


def test_who_may_only_watch_watches_or_is_refused() -> None:
    assert admit(RO, None, False, False) == Grant(RO, RO)
    assert admit(RW, None, False, False) == Refused(DENIED)
    assert admit(EXCLUSIVE, None, False, True) == Grant(RW, RO)


@given(modes, held, flags, flags)
def test_nobody_types_against_a_lock_or_without_the_right(
    asked: str, kind: Optional[str], may_write: bool, fallback: bool
) -> None:
    found = admit(asked, kind, may_write, fallback)
    if isinstance(found, Grant):
        assert found.mode == effective(found.asked, may_write, kind is not None)
        assert (found.mode == RW) <= (may_write and kind is None and asked != RO)
        assert (found.lock is not None) <= (found.mode == RW and found.lock == asked)
        assert found.mode == RO or found.asked == RW
    else:
        assert asked != RO or kind == EXCLUSIVE


@given(modes, held, flags)
def test_the_fallback_never_costs_anything(asked: str, kind: Optional[str], may_write: bool) -> None:
    without = admit(asked, kind, may_write, False)
    assert isinstance(without, Refused) or admit(asked, kind, may_write, True) == without


@given(st.sampled_from([RW, RO]), flags, flags)
def test_the_end_of_a_lock_never_takes_typing_away(asked: str, may_write: bool, locked: bool) -> None:
    assert (effective(asked, may_write, locked) == RW) <= (effective(asked, may_write, False) == RW)
