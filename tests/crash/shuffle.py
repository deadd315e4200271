"""Whether what a VM was given is what its clients typed: of each all of it, once, in its order.

Does: tells who typed which byte, since each client has bytes of its own; only 0xFF belongs to all.
Owns: the positions that are possible, in each client's typing.
Never: knows how typing was cut into batches.
"""

from __future__ import annotations

import random
import re

CLASSES = 16
IAC = 0xFF
IACS, MANY_IACS = 24, 128  # of 256 bytes that are typed so many are 0xFF
REPEATED = 65536  # more than one batch holds
CLOSE = 2048  # what is repeated is looked for so far back when everything is thought over
PAST = 100  # runs


Positions = tuple[int, ...]


def alphabet(number: int, iacs: int) -> bytes:
    """For bytes.translate: random bytes become what client ``number`` types, ``iacs`` of 256 of them 0xFF."""
    table = [value - value % CLASSES + number for value in range(232)] + [number] * 24
    return bytes(IAC if value >= 256 - iacs else table[value] for value in range(256))


ALPHABETS = tuple(alphabet(number, IACS) for number in range(CLASSES))
AWKWARD = tuple(alphabet(number, MANY_IACS) for number in range(CLASSES))
_OWN = [b"[" + re.escape(bytes(sorted({*ALPHABETS[number]} - {IAC}))) + b"]" for number in range(CLASSES)]
# 0xFF at the end of a run may be somebody else's.
_RUNS = re.compile(b"|".join([*(b"%b(?:\xff*%b)*" % (own, own) for own in _OWN), b"\xff"]))


def typing(chance: random.Random, number: int, count: int, awkward: bool = False) -> bytes:
    """So many bytes that client ``number`` alone types; ``awkward``: half of them 0xFF."""
    return chance.randbytes(count).translate((AWKWARD if awkward else ALPHABETS)[number])


class Stranger(AssertionError):
    """A byte that nobody has typed."""


class Shuffle:
    """The typing of several clients, and how far the VM has it. ``repeatable``: those who may be heard twice."""

    def __init__(self) -> None:
        self.typed: list[bytearray] = []
        self.repeatable: set[int] = set()
        self.repeats = 0
        self._possible: set[Positions] = {()}
        # What was possible before each of the last runs, and the run.
        self._past: list[tuple[set[Positions], bytes]] = []
        # What was possible before each 0xFF that was heard last.
        self._doubtful: list[set[Positions]] = []

    def join(self, repeatable: bool = False) -> int:
        """One more client; its number."""
        self.typed.append(bytearray())
        number = len(self.typed) - 1
        assert number < CLASSES, "no more clients can be told apart"
        if repeatable:
            self.repeatable.add(number)
        self._possible = {(*positions, 0) for positions in self._possible}
        self._past = []
        return number

    @property
    def heard(self) -> Positions:
        """How far the VM has heard each client, at least."""
        return tuple(min(each) for each in zip(*self._possible))

    @property
    def complete(self) -> bool:
        """Whether the VM has heard everything."""
        return tuple(map(len, self.typed)) in self._possible

    def hear(self, data: bytes) -> None:
        """The VM was given this. AssertionError when nobody has typed it."""
        runs = _RUNS.findall(data)
        assert sum(map(len, runs)) == len(data), f"nobody types such bytes as the VM hears: {data[:40]!r}"
        for run in runs:
            self._past = [*self._past[-PAST:], (self._possible, run)]
            try:
                self._hear_run(run)
            except Stranger as error:
                self._think_again(Stranger(f"{error}; heard {run[:24]!r}, typed at {self._places(run)}"))

    def _hear_run(self, run: bytes) -> None:
        """Byte by byte only as long as it is in doubt who has typed them."""
        doubt = run == b"\xff"
        for at, value in enumerate(run):
            if not doubt and self._whole(run[at:]):
                return
            before = len(self._possible)
            self._hear(value)
            doubt = not len(self._possible) == 1 < before

    def _whole(self, run: bytes) -> bool:
        """The usual case: one client's next bytes, and no doubt about it."""
        if len(self._possible) != 1:
            return False
        (positions,) = self._possible
        fits = [n for n, at in enumerate(positions) if self.typed[n].startswith(run, at)]
        if len(fits) != 1:
            return False
        self._possible = {_moved(positions, fits[0], positions[fits[0]] + len(run))}
        self._doubtful.clear()
        return True

    def _hear(self, value: int) -> None:
        found = self._next(self._possible, value)
        if not found:
            found = self._repeated(value)
        elif value != IAC:
            self._doubtful.clear()
        if value == IAC:
            self._doubtful.append(self._possible)
        self._possible = found

    def _next(self, possible: set[Positions], value: int) -> set[Positions]:
        return {
            _moved(positions, number, at + 1)
            for positions in possible
            for number, at in enumerate(positions)
            if at < len(self.typed[number]) and self.typed[number][at] == value
        }

    def _repeated(self, value: int) -> set[Positions]:
        """What someone has typed who may be heard twice is heard again, from here or from the last few 0xFF on."""
        heard = bytes([IAC] * len(self._doubtful) + [value])
        found: set[Positions] = set()
        for since, before in enumerate([*self._doubtful, self._possible]):
            possible = self._again(before, heard[since])
            for later in heard[since + 1 :]:
                possible = self._next(possible, later)
            found |= possible
        if not found:
            raise Stranger(f"nobody has typed the byte {value:#x} that the VM hears now: {self.told()}")
        self._doubtful.clear()
        self.repeats += 1
        return found

    def _think_again(self, error: Stranger) -> None:
        """An 0xFF that was heard twice may have passed for the next one of somebody else, a while ago."""
        for size in (8, 32, PAST + 1):
            possible, _ = self._past[-size:][0]
            for _, run in self._past[-size:]:
                possible = self._each_way(possible, run)
            if possible:
                self._possible = possible
                self._doubtful.clear()
                self.repeats += 1
                return
        raise error

    def _each_way(self, possible: set[Positions], run: bytes) -> set[Positions]:
        """What is possible behind a run when each of its 0xFF may be a repeated one."""
        for value in run:
            found = self._next(possible, value)
            if value == IAC or not found:
                found |= self._again(possible, value, CLOSE)
            possible = found
        return possible

    def _again(self, possible: set[Positions], value: int, within: int = REPEATED) -> set[Positions]:
        return {
            _moved(positions, number, again + 1)
            for positions in possible
            for number in self.repeatable
            for again in range(max(0, positions[number] - within), positions[number])
            if self.typed[number][again] == value
        }

    def _places(self, run: bytes) -> dict[int, int]:
        """Where in whose typing a run begins, for people."""
        found = {number: typed.find(run[:24]) for number, typed in enumerate(self.typed)}
        return {number: at for number, at in found.items() if at >= 0}

    def told(self) -> str:
        """How far the VM has heard each client, for people."""
        return ", ".join(
            f"client {number}: {at} of {len(typed)} bytes, next {bytes(typed[at : at + 8])!r}"
            for number, (at, typed) in enumerate(zip(self.heard, self.typed))
        )


def _moved(positions: Positions, number: int, to: int) -> Positions:
    return (*positions[:number], to, *positions[number + 1 :])
