"""The counters of a worker, in a page of memory that the master sees too.

Does: lays out one page per worker in a shared arena and gives its words names.
Owns: the arena's memory file (master) or one page of it (worker).
Never: carries messages; waits. The master reads a page at any time, so it asks no worker for its figures.

A page is 8192 bytes: words of 8 bytes, each written by one assignment and so never seen torn
(``struct.pack_into`` zero-fills first and is). All words are unsigned. Facts that belong together stand in two
slots, of which one is in force: the other is written first and then put in force by one word, so that a worker
that dies at any point leaves facts that fit together. Its replacement goes on from them.
"""

from __future__ import annotations

import gc
import mmap
import os
import time
from typing import NamedTuple, Optional

from vspcd.unix.failpoint import reached

LAYOUT = 1
"""Of the words below. Processes of different versions share pages, so whoever moves a word counts this up."""

PAGE = 8192
WORDS = PAGE // 8
ARENA_PAGES = 32768  # workers at a time, at most; untouched pages cost nothing

# Single words.
HEAD = 0  # journal position behind the last byte
BYTES_IN = 1  # console bytes from the VM since the worker began to serve
BYTES_OUT = 2  # console bytes given to the VM
NOT_LOGGED = 3  # console bytes that the log could not take
LEG = 4  # number of the leg that is connected, 0 without one
INTENT = 5  # whose bytes the next send to the leg carries: a client's number, 0 for replies
TYPIST = 6  # the client whose batch is on its way, 0 for none
TYPED_FROM = 7  # bytes consumed from that client when its batch began
LOG_TROUBLE = 8  # why the log takes nothing (see lognotes), 0 when it does
LOG_SEEN = 9  # journal position up to which the log file is known to have had its name
IN_DOUBT = (
    10  # a client whose batch is with the VM and may be in its socket still, and nobody can count; 0 for none
)
LOG_ON_DISK = 11  # journal position up to which the disk is known to have the log
HALF_AT = 12  # bytes given to the leg when an escape was cut there
HALF = 13  # the escape's other half: HALF_LEG times the leg's number, and the byte; 0 for none

HALF_LEG = 256

# Groups of facts: the word that says which slot is in force, then two slots of FACTS words.
FACTS = 4
READ_UP_TO = 16  # a leg's number, bytes consumed from it, the journal position that belongs to them
SENT_UP_TO = (
    25  # a leg's number, bytes given to it, bytes of the batch on its way that are out, all replies given
)
LOG_PLACE = 34  # where the log file stands, see lognotes
LOG_DOUBT = 43  # what the disk may not have of it, and why; by the keeper, see logdoubt
LOG_DOUBTED = 52  # what of that the log tells already; by the worker

CLIENT_WORDS = 8  # number, slot in force, twice: 2 * cursor + half an escape, bytes given, bytes that wait
FIRST_CLIENT = 64
MAX_CLIENTS = 112
TYPED_WHEN = 2 * (
    FIRST_CLIENT + MAX_CLIENTS * CLIENT_WORDS
)  # for each slot, in words of 4 bytes: see typed_when
assert TYPED_WHEN + MAX_CLIENTS <= 2 * WORDS


class ClientFigures(NamedTuple):
    """One client in a page. ``cursor`` is a journal position; ``given`` counts bytes, ``waiting`` those held back."""

    client: int
    cursor: int
    half: bool
    given: int
    waiting: int


class Page:
    """One worker's page; without memory until ``begin``."""

    words: memoryview
    _halves: memoryview

    def __init__(self, memory: Optional[memoryview] = None) -> None:
        self._left: list[memoryview] = []  # a mapping is never undone: see map_page
        if memory is not None:
            self.begin(memory)

    def begin(self, memory: memoryview) -> None:
        """The facts stand here."""
        self.words = memory.cast("Q")
        self._halves = memory.cast("I")

    def move_to(self, other: Page) -> None:
        """The facts stand in the other page from now on, and whoever has this one writes there."""
        other.words[:] = self.words
        self._left += [self.words, self._halves]
        self.words, self._halves = other.words, other._halves

    def put(self, at: int, first: int, second: int, third: int = 0, fourth: int = 0) -> None:
        """Put four facts in force at once."""
        words = self.words
        slot = words[at] ^ 1
        place = at + 1 + FACTS * slot
        words[place] = first
        words[place + 1] = second
        words[place + 2] = third
        words[place + 3] = fourth
        reached("page.put")
        words[at] = slot
        reached("page.force")

    def get(self, at: int) -> tuple[int, int, int, int]:
        """The four facts in force."""
        words = self.words
        place = at + 1 + FACTS * words[at]
        return words[place], words[place + 1], words[place + 2], words[place + 3]

    def put_client(self, slot: int, cursor: int, half: bool, given: int, waiting: int) -> None:
        """Put a client's figures in force."""
        words = self.words
        active = words[slot + 1] ^ 1
        at = slot + 2 + 3 * active
        words[at] = 2 * cursor + half
        words[at + 1] = given
        words[at + 2] = waiting
        reached("page.client")
        words[slot + 1] = active

    def client(self, slot: int) -> ClientFigures:
        """The figures in force of the client that has this slot."""
        words = self.words
        at = slot + 2 + 3 * words[slot + 1]
        return ClientFigures(words[slot], words[at] >> 1, bool(words[at] & 1), words[at + 1], words[at + 2])

    def clients(self) -> dict[int, ClientFigures]:
        """The clients' figures by their number."""
        return {self.words[slot]: self.client(slot) for slot in SLOTS if self.words[slot]}

    def slot_of(self, client: int) -> Optional[int]:
        """Where a client's figures are, None when it has none."""
        return next((slot for slot in SLOTS if self.words[slot] == client), None)

    def take_client_slot(self, client: int, cursor: int = 0, given: int = 0, waiting: int = 0) -> int:
        """The index of the first word of a free slot, marked with the client once its figures are in force.
        LookupError when full."""
        slot = self.slot_of(0)
        if slot is None:
            raise LookupError("the page has no room for another client")
        for index in range(slot + 1, slot + CLIENT_WORDS):
            self.words[index] = 0
        self._halves[_typed_at(slot)] = 0
        self.put_client(slot, cursor, False, given, waiting)
        self.words[slot] = client
        reached("page.client")
        return slot

    def note_typed(self, slot: int) -> None:
        """The client that has this slot is typing."""
        self._halves[_typed_at(slot)] = int(time.monotonic()) + 1

    def typed_when(self, slot: int) -> Optional[float]:
        """When the client that has this slot has typed last, in whole seconds of the monotonic clock; None: never."""
        return float(self._halves[_typed_at(slot)]) or None


def _typed_at(slot: int) -> int:
    return TYPED_WHEN + (slot - FIRST_CLIENT) // CLIENT_WORDS


SLOTS = range(FIRST_CLIENT, FIRST_CLIENT + MAX_CLIENTS * CLIENT_WORDS, CLIENT_WORDS)


class Arena:
    """All pages, in one memory file: one descriptor in the master however many workers there are."""

    def __init__(self, fd: int = -1, in_use: frozenset[int] = frozenset()) -> None:
        """A new arena, or the one of this descriptor. Raises OSError and ValueError when it is none."""
        self.fd = os.memfd_create("vspcd-pages") if fd < 0 else fd
        os.ftruncate(self.fd, ARENA_PAGES * PAGE)
        self._memory = mmap.mmap(self.fd, ARENA_PAGES * PAGE)
        # A child maps its own page only and must not see its neighbours'.
        self._memory.madvise(mmap.MADV_DONTFORK)
        self._view = memoryview(self._memory)
        self._used = max(in_use, default=-1) + 1
        self._free = [number for number in range(self._used) if number not in in_use]

    def take(self) -> int:
        """The number of a free page, zeroed. MemoryError when there is none."""
        if self._free:
            number = self._free.pop()
        elif self._used < ARENA_PAGES:
            number = self._used
            self._used += 1
        else:
            raise MemoryError("no free page for another worker")
        offset = number * PAGE
        self._view[offset : offset + PAGE] = bytes(PAGE)
        return number

    def give_back(self, number: int) -> None:
        """The page is free again."""
        self._free.append(number)

    def in_use(self) -> tuple[int, ...]:
        """The numbers of pages that were taken and not given back."""
        free = frozenset(self._free)
        return tuple(number for number in range(self._used) if number not in free)

    def page(self, number: int) -> Page:
        """The master's view of a page."""
        return Page(self._view[number * PAGE : (number + 1) * PAGE])


def map_page(fd: int, number: int) -> memoryview:
    """The memory of a worker's own page, from the arena's descriptor, which it can then close.

    The mapping keeps a duplicate of the descriptor, through which all pages could be reached. It is closed as well: its
    number is the lowest free one, as long as no garbage with a descriptor is collected meanwhile, and the mapping is
    never undone.
    """
    collects = gc.isenabled()
    gc.disable()
    kept = os.dup(fd)
    os.close(kept)
    memory = mmap.mmap(fd, PAGE, offset=number * PAGE)
    os.close(kept)
    if collects:
        gc.enable()
    return memoryview(memory)
