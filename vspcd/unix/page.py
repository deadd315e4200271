"""The counters of a worker, in a page of memory that the master sees too.

Does: lays out one page per worker in a shared arena and gives its words names.
Owns: the arena's memory file (master) or one page of it (worker).
Never: carries messages; waits. The master reads a page at any time, so it asks no worker for its figures.

A page is 4096 bytes: words of 8 bytes, each written by one assignment and so never seen torn
(``struct.pack_into`` zero-fills first and is). All words are unsigned.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

PAGE = 4096
WORDS = PAGE // 8
ARENA_PAGES = 32768  # pid_max: there are never more workers; untouched pages cost nothing

# Words of a page.
HEAD = 0  # journal position behind the last byte
BYTES_IN = 1  # console bytes from the VM since the worker began to serve
BYTES_OUT = 2  # console bytes given to the VM
NOT_LOGGED = 3  # console bytes that the log could not take
LEG = 4  # number of the leg that is connected, 0 without one
WIRE_IN = 5  # bytes consumed from that leg's connection
WIRE_OUT = 6  # bytes given to it
BEAT = 7  # turns of the loop; a worker that hangs does not count on

CLIENT_WORDS = 4  # number, cursor, bytes given to it, bytes taken from it
FIRST_CLIENT = 64
MAX_CLIENTS = (WORDS - FIRST_CLIENT) // CLIENT_WORDS


class ClientFigures(NamedTuple):
    """One client in a page. Positions and counts are in bytes."""

    client: int
    cursor: int
    sent: int
    taken: int


class Page:
    """One worker's page."""

    def __init__(self, memory: memoryview) -> None:
        self.words = memory.cast("Q")

    def clients(self) -> dict[int, ClientFigures]:
        """The clients' figures by their number."""
        words = self.words
        found = {}
        for base in range(FIRST_CLIENT, FIRST_CLIENT + MAX_CLIENTS * CLIENT_WORDS, CLIENT_WORDS):
            number = words[base]
            if number:
                found[number] = ClientFigures(number, words[base + 1], words[base + 2], words[base + 3])
        return found

    def take_client_slot(self, client: int) -> int:
        """The index of the first word of a free slot, now marked with the client. LookupError when full."""
        for base in range(FIRST_CLIENT, FIRST_CLIENT + MAX_CLIENTS * CLIENT_WORDS, CLIENT_WORDS):
            if self.words[base] == 0:
                self.words[base + 1] = self.words[base + 2] = self.words[base + 3] = 0
                self.words[base] = client
                return base
        raise LookupError("the page has no room for another client")


class Arena:
    """All pages, in one memory file: one descriptor in the master however many workers there are."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("vspcd-pages")
        os.ftruncate(self.fd, ARENA_PAGES * PAGE)
        self._memory = mmap.mmap(self.fd, ARENA_PAGES * PAGE)
        # A child maps its own page only and must not see its neighbours'.
        self._memory.madvise(mmap.MADV_DONTFORK)
        self._view = memoryview(self._memory)
        self._free: list[int] = []
        self._used = 0

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

    def page(self, number: int) -> Page:
        """The master's view of a page."""
        return Page(self._view[number * PAGE : (number + 1) * PAGE])


def map_page(fd: int, number: int) -> Page:
    """A worker's view of its own page, from the arena's descriptor, which it can then close.

    The mapping keeps a duplicate of the descriptor, through which all pages could be reached. It is closed as well: its
    number is the lowest free one, and the mapping is never undone.
    """
    kept = os.dup(fd)
    os.close(kept)
    memory = mmap.mmap(fd, PAGE, offset=number * PAGE)
    os.close(kept)
    return Page(memoryview(memory))
