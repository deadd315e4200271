"""The pairs of vMotions under way: each opens one console, once, in time, and to nobody who guesses."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.moves import Moves
from vspcd.table import Console

PAIR = b"\x00\xff\x01\x02" + bytes(range(16))
SOON = 0.05
LONG = 60.0


def console(label: str = "") -> Console:
    return Console("0123456789abcdeffedcba9800000000", label)


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() <= end:
        time.sleep(seconds / 10)


def test_pair_leads_to_its_console() -> None:
    moves, ours = Moves(), console()
    moves.expect(PAIR, ours, LONG)
    assert moves.take(PAIR) is ours


def test_pair_works_once() -> None:
    moves = Moves()
    moves.expect(PAIR, console(), LONG)
    moves.take(PAIR)
    assert moves.take(PAIR) is None


def test_pair_is_worth_nothing_when_its_time_is_up() -> None:
    moves = Moves()
    moves.expect(PAIR, console(), SOON)
    wait(SOON)
    assert moves.take(PAIR) is None


def test_expired_pair_stays_worthless() -> None:
    moves = Moves()
    moves.expect(PAIR, console(), SOON)
    wait(SOON)
    moves.take(PAIR)
    assert moves.take(PAIR) is None


def test_unknown_pair_leads_nowhere_and_costs_the_others_nothing() -> None:
    moves, ours = Moves(), console()
    moves.expect(PAIR, ours, LONG)
    assert moves.take(b"") is None
    assert moves.take(PAIR[4:]) is None
    assert moves.take(PAIR + b"\x00") is None
    assert moves.take(PAIR) is ours


@pytest.mark.parametrize("at", range(len(PAIR)))
def test_one_wrong_bit_is_a_wrong_pair(at: int) -> None:
    moves = Moves()
    moves.expect(PAIR, console(), LONG)
    wrong = bytearray(PAIR)
    wrong[at] ^= 1
    assert moves.take(bytes(wrong)) is None


def test_ports_of_one_vm_have_pairs_of_their_own() -> None:
    moves = Moves()
    ports = {bytes([number]) * 20: console(f"port{number}") for number in range(4)}
    for pair, port in ports.items():
        moves.expect(pair, port, LONG)
    assert all(moves.take(pair) is port for pair, port in reversed(list(ports.items())))


def test_pairs_that_nobody_shows_do_not_pile_up() -> None:
    moves, ours = Moves(), console()
    for number in range(500):
        moves.expect(number.to_bytes(20, "big"), ours, SOON / 50)
        wait(SOON / 25)
    assert len(moves.expected) < 50


@given(st.lists(st.binary(max_size=40), unique=True, max_size=20))
def test_any_pairs_at_all_are_told_apart(pairs: list[bytes]) -> None:
    moves = Moves()
    consoles = {pair: console(str(at)) for at, pair in enumerate(pairs)}
    for pair, its in consoles.items():
        moves.expect(pair, its, LONG)
    assert [moves.take(pair) for pair in pairs] == list(consoles.values())


def test_no_pair_is_found_by_comparing_its_bytes() -> None:
    """Where a pair is kept says nothing about it: the places are keyed hashes with a key of this process."""
    first, second = Moves(), Moves()
    for moves in (first, second):
        moves.expect(PAIR, console(), LONG)
    (one,), (other,) = first.expected, second.expected
    assert one != other
    assert PAIR not in (one, other)
