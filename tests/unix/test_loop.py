"""The loop: who is called, in which order, and who is not."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.unix.turning import turn, until
from vspcd.unix.loop import HANGUP, PEER_CLOSED, READ, WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_a_handler_is_told_which_events_hold(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), READ | WRITE, seen.append)
    pair[1].send(b"x")
    turn(loop)
    assert seen == [READ | WRITE]


def test_a_hangup_is_reported_to_one_who_waits_for_nothing(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), 0, seen.append)
    pair[1].close()
    turn(loop)
    assert seen
    assert seen[0] & HANGUP


def test_half_a_close_is_reported_to_one_who_asks(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), PEER_CLOSED, seen.append)
    pair[1].shutdown(socket.SHUT_WR)
    turn(loop)
    assert seen == [PEER_CLOSED]


def test_after_change_only_the_new_events_count(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), WRITE, seen.append)
    loop.change(pair[0].fileno(), READ)
    turn(loop)
    assert seen == []
    pair[1].send(b"x")
    turn(loop)
    assert seen == [READ]


def test_a_forgotten_descriptor_is_not_reported(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), WRITE, seen.append)
    loop.forget(pair[0].fileno())
    turn(loop)
    assert seen == []
    assert not loop.watches(pair[0].fileno())


def test_forgetting_an_unknown_descriptor_is_harmless(loop: Loop) -> None:
    loop.forget(12345)


def test_a_handler_can_forget_another_of_the_same_turn(loop: Loop) -> None:
    """Whoever comes first takes the other away; the other must not be called any more."""
    ends = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def serve(mine: int) -> None:
        called.append(mine)
        loop.forget(ends[1 - mine][0].fileno())

    for number, (near, far) in enumerate(ends):
        loop.watch(near.fileno(), READ, lambda _events, number=number: serve(number))  # type: ignore[misc]
        far.send(b"x")
    turn(loop)
    assert len(called) == 1
    for near, far in ends:
        near.close()
        far.close()


def test_a_number_reused_within_a_turn_gets_no_event_of_the_old_one(loop: Loop) -> None:
    """The old descriptor was ready, the new one of the same number is not."""
    ends = [socket.socketpair() for _ in range(2)]
    called: list[str] = []
    fresh: list[socket.socket] = []

    def replace(mine: int) -> None:
        called.append("old")
        near, _ = ends[1 - mine]
        number = near.fileno()
        loop.forget(number)
        near.close()
        fresh.extend(socket.socketpair())
        assert number in [end.fileno() for end in fresh]
        loop.watch(number, READ, lambda _events: called.append("new"))

    for number, (near, far) in enumerate(ends):
        loop.watch(near.fileno(), READ, lambda _events, number=number: replace(number))  # type: ignore[misc]
        far.send(b"x")
    loop.turn()
    assert called == ["old"]
    for end in (*fresh, *(each for both in ends for each in both)):
        end.close()


def test_one_watched_as_last_runs_after_all_others_and_after_timers(loop: Loop) -> None:
    order: list[str] = []
    ends = [socket.socketpair() for _ in range(3)]
    for number, (near, far) in enumerate(ends):
        loop.watch(
            near.fileno(),
            READ,
            lambda _events, number=number: order.append(f"fd{number}"),  # type: ignore[misc]
            last=number == 0,
        )
        far.send(b"x")
    loop.call_later(0, lambda: order.append("timer"))
    loop.turn()
    assert sorted(order[:2]) == ["fd1", "fd2"]
    assert order[2:] == ["timer", "fd0"]
    for near, far in ends:
        near.close()
        far.close()


def test_one_watched_as_last_and_forgotten_in_the_turn_is_not_called(loop: Loop) -> None:
    called: list[str] = []
    (late, late_far), (soon, soon_far) = socket.socketpair(), socket.socketpair()
    loop.watch(late.fileno(), READ, lambda _events: called.append("late"), last=True)
    loop.watch(soon.fileno(), READ, lambda _events: loop.forget(late.fileno()))
    late_far.send(b"x")
    soon_far.send(b"x")
    loop.turn()
    assert called == []
    for end in (late, late_far, soon, soon_far):
        end.close()


def test_timers_run_in_the_order_in_which_they_are_due(loop: Loop) -> None:
    order: list[int] = []
    for due in (3, 1, 2):
        loop.call_later(due / 500, lambda due=due: order.append(due))  # type: ignore[misc]
    until(loop, lambda: len(order) == 3)
    assert order == [1, 2, 3]


def test_timers_of_one_moment_run_in_the_order_in_which_they_were_set(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    with monkeypatch.context() as frozen:
        now = time.monotonic()
        frozen.setattr(time, "monotonic", lambda: now)
        for number in range(5):
            loop.call_later(0, lambda number=number: order.append(number))  # type: ignore[misc]
    loop.turn()
    assert order == [0, 1, 2, 3, 4]


def test_a_timer_runs_not_before_it_is_due(loop: Loop) -> None:
    ran: list[float] = []
    begun = time.monotonic()
    loop.call_later(0.03, lambda: ran.append(time.monotonic()))
    until(loop, lambda: ran)
    assert ran[0] - begun >= 0.03


def test_a_timer_runs_once(loop: Loop) -> None:
    ran: list[int] = []
    loop.call_later(0, lambda: ran.append(1))
    for _ in range(3):
        turn(loop)
    assert ran == [1]


def test_a_cancelled_timer_does_not_run(loop: Loop) -> None:
    ran: list[int] = []
    loop.call_later(0, lambda: ran.append(1)).cancel()
    turn(loop)
    assert ran == []


def test_a_timer_can_cancel_one_that_is_due_in_the_same_turn(loop: Loop) -> None:
    ran: list[str] = []
    second = loop.call_later(0.001, lambda: ran.append("second"))

    def first() -> None:
        ran.append("first")
        second.cancel()

    loop.call_later(0, first)
    deadline = time.monotonic() + 0.01
    while time.monotonic() < deadline:
        pass  # both are due now
    turn(loop)
    turn(loop)
    assert ran == ["first"]


def test_cancelling_a_timer_that_has_run_is_harmless(loop: Loop) -> None:
    timer = loop.call_later(0, lambda: None)
    turn(loop)
    timer.cancel()


def test_a_timer_that_sets_itself_anew_does_not_starve_descriptors(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[int] = []

    def again() -> None:
        loop.call_later(0, again)

    again()
    loop.watch(pair[0].fileno(), WRITE, seen.append)
    for _ in range(3):
        loop.turn()
    assert len(seen) >= 2


def test_a_loop_with_cancelled_timers_only_waits_for_descriptors(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.call_later(0, lambda: None).cancel()
    assert loop._timeout() is None


def test_stop_ends_run_at_the_end_of_the_turn(loop: Loop) -> None:
    order: list[str] = []

    def first() -> None:
        loop.stop()
        order.append("first")

    loop.call_later(0, first)
    loop.call_later(0, lambda: order.append("second"))
    loop.run()
    assert order[0] == "first"


def test_a_signal_is_served_by_the_loop_and_not_from_within_other_code(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == []
    until(loop, lambda: seen)
    assert seen == ["usr1"]


def test_many_signals_of_one_sort_between_two_turns_count_once(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGUSR1)
    turn(loop)
    turn(loop)
    assert seen == ["usr1"]


def test_a_storm_of_one_signal_does_not_drown_another(loop: Loop) -> None:
    """A turn can be long, and the wake-up socket holds a few hundred bytes only."""
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: seen.append("usr2"))
    for _ in range(3000):
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    turn(loop)
    assert sorted(seen) == ["usr1", "usr2"]


def test_a_signal_ends_a_turn_that_waits_for_ever(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal(signal.SIGALRM, lambda: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    loop.turn()
    assert seen == ["alarm"]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_an_idle_loop_does_not_wake_up(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    seen: list[int] = []
    loop.watch(pair[0].fileno(), READ, seen.append)
    before = time.process_time()
    turn(loop, 0.2)
    assert seen == []
    assert time.process_time() - before < 0.1
