"""A process that writes a log is killed at each step, also while it goes on for another: the log tells what was said.

The process is a child that plays a worker: it takes a stream chunk by chunk and "consumes" each when it is logged. The
next child goes on from the page and the files, and is told again what was not consumed.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from tests.unix.logs import STEM
from vspcd.core.indexfile import Index
from vspcd.unix import logfile, logwriter, spool
from vspcd.unix.logdoubt import Doubts
from vspcd.unix.logfile import LogFile
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.page import HEAD, LOG_TROUBLE, NOT_LOGGED, PAGE, Page

MARKER = re.compile(rb"\r\n\[vspcd: (\d+) bytes not logged: [^\]]*\]\r\n")
CONSUMED = 100  # a word of the page that nobody else uses here
SAID = 24000
MOST = 700
FULL_FROM, FULL_TO = 8000, 14000  # positions between which the disk takes nothing

ROTATING = ("log.rotate", "log.shifted", "log.renamed", "log.created", "log.write", "log.wrote")
TROUBLED = (
    *(
        "log.write",
        "log.spool",
        "log.spooled",
        "log.copied",
        "log.mark",
        "log.marked",
        "log.told",
        "log.skipped",
    ),
    *("log.recovered", "log.cleared"),
)


class Death(NamedTuple):
    """Where a child dies: when it comes to the point for the nth time."""

    point: str
    nth: int


class Life:
    """The page, the log folder and the spool's folder of one console, and the children that serve it in turn."""

    def __init__(self, folder: Path, seed: int, **settings: object) -> None:
        self.log = folder / "log"
        self.log.mkdir()
        memory = mmap.mmap(-1, PAGE)
        self.page = Page(memoryview(memory))
        self.chance = random.Random(seed)
        self.said = self.chance.randbytes(SAID)
        defaults = {"spool": 3000, "spool_dir": str(folder / "spool"), "dir": str(self.log), "keep": 99}
        self.settings = LogSettings(**{**defaults, **settings})  # type: ignore[arg-type]
        self.lives = 0

    def run(self, *deaths: Death) -> list[bool]:
        """Let one child after the other serve until all is said; whether each death came to pass."""
        came = []
        for death in (*deaths, None):
            came.append(self._child(death))
        return came[:-1]

    def _child(self, death: Optional[Death]) -> bool:
        resume, self.lives = self.lives > 0, self.lives + 1
        seed = self.chance.random()
        pid = os.fork()
        if pid == 0:
            try:
                self._serve(death, resume, random.Random(seed))
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or status == 0, "the child has failed"
        return os.WIFSIGNALED(status)

    def _serve(self, death: Optional[Death], resume: bool, chance: random.Random) -> None:
        arm(death)
        logfile.RETRY = logfile.ROTATE_RETRY = 0.0
        words = self.page.words
        self._disk(words[CONSUMED])
        directory = os.open(self.log, os.O_RDONLY | os.O_DIRECTORY)
        ties = Ties(lambda _inode: True, lambda _reason: None, lambda _seconds, _call: None)
        journal = LogFile(directory, self.settings, self.page, ties)
        journal.begin(STEM, self.settings, words[CONSUMED] if resume else None)
        known = journal.head - words[CONSUMED]
        words[HEAD] = words[CONSUMED]
        while words[CONSUMED] < SAID:
            begin = words[CONSUMED]
            chunk = self.said[begin : begin + chance.randrange(1, MOST)]
            self._disk(begin)
            known = self._hear(journal, chunk, known)
            words[CONSUMED] = begin + len(chunk)
        self._disk(SAID)
        if words[LOG_TROUBLE]:
            journal.retry()
        os._exit(0)

    def _hear(self, journal: LogFile, chunk: bytes, known: int) -> int:
        new = chunk[min(known, len(chunk)) :]
        half = len(new) // 2
        for piece in filter(None, (new[:half], new[half:])):
            journal.append(piece)
            self.page.words[HEAD] = journal.head
        return max(0, known - len(chunk))

    def _disk(self, position: int) -> None:
        """The disk is full between two positions, as far as the log is concerned; the spool is far below."""
        full = FULL_FROM <= position < FULL_TO and self.settings.spool
        size = (
            (self.log / f"{STEM}.log").stat().st_size if full and (self.log / f"{STEM}.log").exists() else -1
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    # What is left of it.

    def logged(self) -> bytes:
        """All log files together, the oldest first."""
        numbers = sorted((int(path.suffix[1:]) for path in self.log.glob(f"{STEM}.log.*")), reverse=True)
        names = [*(f"{STEM}.log.{number}" for number in numbers), f"{STEM}.log"]
        return b"".join((self.log / name).read_bytes() for name in names)

    def lost(self) -> int:
        """Checks that the log is what was said but for what its markers tell, and how much they tell."""
        log, at, lost, position = self.logged(), 0, 0, 0
        for marker in MARKER.finditer(log):
            piece = log[at : marker.start()]
            assert piece == self.said[position : position + len(piece)]
            position += len(piece) + int(marker[1])
            lost += int(marker[1])
            at = marker.end()
        assert log[at:] == self.said[position:]
        return lost

    def told_by_index(self) -> int:
        """What all indexes together say was lost."""
        indexes = [Index(path.read_bytes()) for path in self.log.glob(f"{STEM}.idx*")]
        return sum(
            int(entry.details()["bytes"])
            for index in indexes
            for entry, _ in index.entries()
            if entry.word == "lost"
        )

    def check(self) -> int:
        lost = self.lost()
        assert lost == self.page.words[NOT_LOGGED] == self.told_by_index()
        assert not list((self.log.parent / "spool").glob("*"))
        return lost


def arm(death: Optional[Death]) -> None:
    left = 0 if death is None else death.nth

    def reached(name: str) -> None:
        nonlocal left
        if death is not None and name == death.point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    for module in (logfile, logwriter, spool):
        module.reached = reached  # type: ignore[attr-defined]


def deaths(points: tuple[str, ...]) -> Iterator[object]:
    for point in points:
        for nth in (1, 2, 5):
            yield pytest.param(Death(point, nth), id=f"{point}-{nth}")


@pytest.mark.parametrize("death", deaths(ROTATING))
def test_a_death_while_rotating_costs_no_byte(tmp_path: Path, death: Death) -> None:
    life = Life(tmp_path, 1, max_size=1000, spool=0)
    assert life.run(death) == [True]
    assert life.check() == 0


@pytest.mark.parametrize("death", deaths(ROTATING))
def test_a_rotated_file_has_the_index_that_tells_of_it_after_a_death(tmp_path: Path, death: Death) -> None:
    life = Life(tmp_path, 2, max_size=1000, spool=0)
    assert life.run(death) == [True]
    for path in life.log.glob(f"{STEM}.idx*"):
        log = Path(str(path).replace(".idx", ".log")).read_bytes()
        bases = [int(line.split()[1]) for line in path.read_text().splitlines() if line.endswith(" base")]
        assert life.said.find(log) == bases[-1]


@pytest.mark.parametrize("death", deaths(TROUBLED))
def test_a_death_while_the_disk_is_full_costs_what_the_markers_tell(tmp_path: Path, death: Death) -> None:
    life = Life(tmp_path, 3)
    if death.nth == 1:
        assert life.run(death) == [True]
    else:
        life.run(death)
    assert life.check() > 0


@pytest.mark.parametrize("death", deaths(TROUBLED))
def test_a_death_costs_nothing_while_the_spool_has_room(tmp_path: Path, death: Death) -> None:
    life = Life(tmp_path, 4, spool=FULL_TO)
    life.run(death)
    assert life.check() == 0


DOUBTFUL = (*ROTATING[:4], "log.mark", "log.marked", "log.told", "log.skipped")
REFUSED = re.compile(rb"\r\n\[vspcd: up to (\d+) bytes since position 2000 may be missing: [^\]]*\]\r\n")


class Doubtful(Life):
    """Its disk has refused some bytes; the log tells of them when all is said."""

    def _serve(self, death: Optional[Death], resume: bool, chance: random.Random) -> None:
        arm(death)
        directory = os.open(self.log, os.O_RDONLY | os.O_DIRECTORY)
        ties = Ties(lambda _inode: True, lambda _reason: None, lambda _seconds, _call: None)
        words = self.page.words
        journal = LogFile(directory, self.settings, self.page, ties)
        journal.begin(STEM, self.settings, words[CONSUMED] if resume else None)
        if not resume:
            journal.append(self.said)
            words[HEAD] = words[CONSUMED] = SAID
            Doubts(self.page).note(2000, 3000, errno.EIO)
            Doubts(self.page).is_over()
        journal.look_for_doubts()
        os._exit(0)

    def logged(self) -> bytes:
        return REFUSED.sub(b"", super().logged())

    def doubtful(self) -> int:
        return sum(int(found[1]) for found in REFUSED.finditer(super().logged()))


@pytest.mark.parametrize("keep", [0, 99])
@pytest.mark.parametrize("point", DOUBTFUL)
def test_what_the_disk_has_refused_is_told_of_once_whatever_dies(
    tmp_path: Path, point: str, keep: int
) -> None:
    life = Doubtful(tmp_path, 5, keep=keep)
    died = life.run(Death(point, 1))
    assert died == [bool(keep) or point.startswith(("log.m", "log.t", "log.sk"))]
    assert life.check() == 0
    lines = [line for path in life.log.glob("*.idx*") for line in path.read_text().splitlines()]
    assert len([line for line in lines if " in-doubt " in line]) == 1
    told = life.doubtful()
    assert told in (1000, SAID - 2000)
    assert Doubts(life.page).bytes == told


@pytest.mark.parametrize("seed", range(40))
def test_several_deaths_anywhere_are_as_exact_as_one(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    size = chance.choice((1000, 64 << 20))
    life = Life(tmp_path, seed, spool=chance.choice((0, 500, 3000, FULL_TO)), max_size=size)
    points = tuple(dict.fromkeys(ROTATING + TROUBLED))
    life.run(*(Death(chance.choice(points), chance.randrange(1, 4)) for _ in range(6)))
    life.check()
