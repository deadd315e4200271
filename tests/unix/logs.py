"""A log directory for the tests: what lies in it, read by its index. Owns nothing but descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional

from vspcd.unix.logfile import LogFile
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.page import PAGE, Page

STEM = "01234567-89ab-cdef-fedc-ba9800000000"


class Folder:
    """A log directory and the logs that were opened in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.troubles: list[str] = []
        self.changes = 0
        self.page = Page(memoryview(bytearray(PAGE)))
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self._open: list[LogFile] = []

    def log(self, resume: Optional[int] = None, **settings: object) -> LogFile:
        chosen = LogSettings(**{"spool": 0, **settings})  # type: ignore[arg-type]
        ties = Ties(self._changed, self.troubles.append, self._later)
        made = LogFile(self.fd, chosen, self.page, ties)
        made.begin(STEM, chosen, resume)
        self._open.append(made)
        return made

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.waiting.append((seconds, call))

    def tick(self) -> None:
        """Let the time pass that somebody waits for."""
        due, self.waiting = self.waiting, []
        for _, call in due:
            call()

    def _changed(self, inode: int) -> bool:
        assert inode
        self.changes += 1
        return True

    def file(self, suffix: str = "log") -> Path:
        return self.path / f"{STEM}.{suffix}"

    def content(self, suffix: str = "log") -> bytes:
        return self.file(suffix).read_bytes()

    def lines(self, suffix: str = "idx") -> list[list[str]]:
        return [line.split(" ", 3) for line in self.file(suffix).read_text().splitlines()]

    def words(self, suffix: str = "idx") -> list[str]:
        return [line[2] for line in self.lines(suffix)]

    def bases(self, suffix: str = "idx") -> list[int]:
        return [int(line[1]) for line in self.lines(suffix) if line[2] == "base"]

    def at(self, position: int, size: int, number: Optional[int] = None) -> bytes:
        """What the last base of an index says lies at a position of the journal."""
        tail = "" if number is None else f".{number}"
        begin = position - self.bases(f"idx{tail}")[-1]
        return self.content(f"log{tail}")[begin : begin + size]

    def close(self) -> None:
        for log in self._open:
            log.close()
        os.close(self.fd)


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Files cannot grow beyond a size. What is written up to it arrives, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened. Needs a free number of 3 or more below the lowest one in use beyond it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
