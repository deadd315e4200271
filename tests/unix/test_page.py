"""The shared page: whole values between processes, and nobody sees a neighbour's."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import time

import pytest

from tests.unix.test_process import status_of
from vspcd.unix import page as pages
from vspcd.unix.page import FIRST_CLIENT, HEAD, MAX_CLIENTS, WORDS, Arena, ClientFigures, Page, map_page
from vspcd.unix.process import fork

LOW, HIGH = 0x0000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF


@pytest.fixture
def arena() -> Arena:
    return Arena()


def test_what_a_worker_writes_the_master_reads(arena: Arena) -> None:
    number = arena.take()

    def main() -> None:
        Page(map_page(arena.fd, number)).words[HEAD] = 1 << 40

    assert status_of(fork(main, {arena.fd})) == 0
    assert arena.page(number).words[HEAD] == 1 << 40


def test_a_value_is_never_seen_torn(arena: Arena) -> None:
    number = arena.take()
    words = arena.page(number).words
    pid = fork(lambda: _alternate(arena.fd, number), {arena.fd})
    seen: set[int] = set()
    begun = time.monotonic()
    try:
        while len(seen) < 2 or time.monotonic() < begun + 0.5:
            assert time.monotonic() < begun + 10
            seen.update(words[HEAD] for _ in range(10000))
    finally:
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
    assert seen == {LOW, HIGH}


def _alternate(fd: int, number: int) -> None:
    words = Page(map_page(fd, number)).words
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for _ in range(1000):
            words[HEAD] = HIGH
            words[HEAD] = LOW


def test_a_worker_cannot_look_at_the_masters_view_of_other_pages(arena: Arena) -> None:
    mine, other = arena.take(), arena.take()
    view = arena.page(other).words

    def main() -> None:
        map_page(arena.fd, mine)
        print(view[HEAD])

    assert os.WIFSIGNALED(status_of(fork(main, {arena.fd})))


def test_a_worker_can_close_the_arena_once_it_has_its_page(arena: Arena) -> None:
    number = arena.take()

    def main() -> None:
        page = Page(map_page(arena.fd, number))
        os.close(arena.fd)
        page.words[HEAD] = 7

    assert status_of(fork(main, {arena.fd})) == 0
    assert arena.page(number).words[HEAD] == 7


def test_a_page_that_was_given_back_is_clean_again(arena: Arena) -> None:
    number = arena.take()
    page = arena.page(number)
    page.words[HEAD] = page.words[WORDS - 1] = 5
    arena.give_back(number)
    assert arena.take() == number
    assert not any(arena.page(number).words)


def test_pages_are_different(arena: Arena) -> None:
    assert len({arena.take() for _ in range(100)}) == 100


def test_when_all_pages_are_taken_it_says_so(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ARENA_PAGES", 2)
    arena.take()
    arena.take()
    with pytest.raises(MemoryError):
        arena.take()


def test_a_client_has_a_slot_of_its_own(arena: Arena) -> None:
    page = arena.page(arena.take())
    for client in (11, 12):
        page.put_client(page.take_client_slot(client), client * 100, client == 12, 5, 6)
    assert page.clients() == {
        11: ClientFigures(11, 1100, False, 5, 6),
        12: ClientFigures(12, 1200, True, 5, 6),
    }


def test_a_slot_that_is_free_again_is_clean(arena: Arena) -> None:
    page = arena.page(arena.take())
    slot = page.take_client_slot(11)
    for number in range(3):
        page.put_client(slot, number, True, 9, 9)
    page.words[slot] = 0
    assert page.clients() == {}
    assert page.take_client_slot(12) == slot
    assert page.clients() == {12: ClientFigures(12, 0, False, 0, 0)}


@pytest.mark.parametrize("at", [pages.READ_UP_TO, pages.SENT_UP_TO, pages.LOG_PLACE])
def test_facts_that_belong_together_change_at_one_instant(arena: Arena, at: int) -> None:
    """Whenever the writer dies, all are the old ones or all are the new ones."""
    number = arena.take()
    page = arena.page(number)
    page.put(at, 0, 7, 9, 11)
    pid = fork(lambda: _count(arena.fd, number, at), {arena.fd})
    end = time.monotonic() + 10
    while page.get(at)[0] < 1000:
        assert time.monotonic() < end
    os.kill(pid, signal.SIGKILL)
    status_of(pid)
    first, second, third, fourth = page.get(at)
    assert (second, third, fourth) == (first + 7, first + 9, first + 11)


def _count(fd: int, number: int, at: int) -> None:
    page = Page(map_page(fd, number))
    for value in range(1, 1 << 40):
        page.put(at, value, value + 7, value + 9, value + 11)


def test_a_page_holds_a_known_number_of_clients_and_then_says_so(arena: Arena) -> None:
    page = arena.page(arena.take())
    slots = {page.take_client_slot(client) for client in range(1, MAX_CLIENTS + 1)}
    assert len(slots) == MAX_CLIENTS
    assert min(slots) == FIRST_CLIENT
    assert max(slots) + pages.CLIENT_WORDS <= WORDS
    assert all(b - a == pages.CLIENT_WORDS for a, b in zip(sorted(slots), sorted(slots)[1:]))
    with pytest.raises(LookupError):
        page.take_client_slot(MAX_CLIENTS + 1)


def test_no_two_words_of_a_page_overlap() -> None:
    single = [pages.HEAD, pages.BYTES_IN, pages.BYTES_OUT, pages.NOT_LOGGED, pages.LEG, pages.INTENT]
    single += [pages.TYPIST, pages.TYPED_FROM, pages.LOG_TROUBLE, pages.LOG_SEEN]
    pairs = [
        at + offset
        for at in (pages.READ_UP_TO, pages.SENT_UP_TO, pages.LOG_PLACE)
        for offset in range(1 + 2 * pages.FACTS)
    ]
    assert len({*single, *pairs}) == len(single) + len(pairs)
    assert max(*single, *pairs) < FIRST_CLIENT


def test_garbage_with_a_descriptor_does_not_disturb_it(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    number = arena.take()
    low, high = os.pipe()
    cycle = Garbage(low)
    cycle.me = cycle
    del cycle
    real = mmap.mmap

    def collecting(*args: int, **named: int) -> mmap.mmap:
        if gc.isenabled():  # as an allocation may
            gc.collect()
        return real(*args, **named)

    monkeypatch.setattr(mmap, "mmap", collecting)
    before = gc.isenabled()
    page = Page(map_page(arena.fd, number))
    page.words[HEAD] = 7
    assert arena.page(number).words[HEAD] == 7
    assert gc.isenabled() is before
    os.close(high)
    gc.collect()


class Garbage:
    me: object = None

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)
