"""Who has typed what the VM hears, also when one of those who type may be heard twice."""

from __future__ import annotations

import pytest

from tests.crash.shuffle import Shuffle, Stranger


def shuffle(*typed: bytes) -> Shuffle:
    """The last one may be heard twice."""
    found = Shuffle()
    for number, data in enumerate(typed):
        found.join(repeatable=number == len(typed) - 1)
        found.typed[number] += data
    return found


def test_typing_in_any_order_is_heard() -> None:
    found = shuffle(b"\x20\x30", b"\x21\xff\x31")
    found.hear(b"\x21\x20\xff\x31\x30")
    assert found.complete
    assert found.repeats == 0


def test_what_nobody_has_typed_is_a_strangers() -> None:
    found = shuffle(b"\x20\x30\x40", b"\x21")
    with pytest.raises(Stranger):
        found.hear(b"\x20\x40")


def test_only_who_may_be_heard_twice_is() -> None:
    found = shuffle(b"\x20\x30", b"\x21\x31")
    found.hear(b"\x21\x31\x21\x31\x20")
    assert found.repeats == 1
    with pytest.raises(Stranger):
        found.hear(b"\x20")


def test_a_repeated_iac_that_passed_for_somebody_elses_is_thought_over() -> None:
    found = shuffle(b"\xff\x30", b"\xff\x21\x21\x41\x51")
    found.hear(b"\xff\x21" + b"\xff\x21\x21\x41" + b"\xff\x30" + b"\x51")
    assert found.complete
    assert found.repeats > 0


def test_thinking_over_finds_no_byte_that_is_missing() -> None:
    found = shuffle(b"\xff\x30\x40", b"\xff\x21\x21\x41\x51")
    with pytest.raises(Stranger):
        found.hear(b"\xff\x21" + b"\xff\x21\x21\x41" + b"\xff\x40" + b"\x51")
