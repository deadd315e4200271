"""Reads the logs of consoles as they grow, over rotations, and remembers how far it has come.

Does: gives what is new in a log, a piece at a time; keeps the places in a file, so that another process goes on there.
Owns: that file.
Never: writes to a log; falls behind by more than BEHIND bytes: what lies before is left out, and counted.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple, Optional

PIECE = 256 << 10
BEHIND, AHEAD = 16 << 20, 1 << 20
ROTATED = 10  # rotated files that are looked through for the one that was read last
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SUFFIX = ".log"
VERSION = 1  # of the file with the places


class Place(NamedTuple):
    """In which file, and behind which byte."""

    inode: int
    offset: int


class Piece(NamedTuple):
    """What is new of a console's log; ``more``: there is more; ``skipped`` bytes before it were left out."""

    data: bytes
    more: bool
    skipped: int


class Following:
    """``folder`` is a descriptor of the log folder; ``path`` the file with the places."""

    def __init__(self, folder: int, path: str) -> None:
        self.places: dict[str, Place] = {}
        self.folder = folder
        self._path = path
        self.strange = ""  # why the file with the places is of no use, when another version has written it

    def resume(self) -> bool:
        """Go on where another process was; False when that is not known."""
        try:
            with open(self._path, encoding="ascii") as file:
                known = json.load(file)
            if known.get("version", VERSION) != VERSION:
                self.strange = (
                    f"{self._path} has version {known['version']!r}, and this vspcd knows {VERSION};"
                    " triggers look at what comes from now on"
                )
                return False
            places = known.get("places", known)  # a file without a version has nothing but places
            self.places = {str(console): Place(*map(int, place)) for console, place in places.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self.places = {}
            return False
        return True

    def begin(self) -> None:
        """What the logs hold already is nobody's concern."""
        for console in self.consoles():
            self.pass_over(console)

    def consoles(self) -> list[str]:
        """All that have a log."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return [name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX)]

    def save(self) -> None:
        """Keep the places, as a whole or not at all. Raises OSError."""
        if not self._path:
            return
        part = self._path + ".part"
        with open(part, "w", encoding="ascii") as file:
            json.dump({"version": VERSION, "places": self.places}, file, separators=(",", ":"))
        os.rename(part, self._path)

    def forget_all(self) -> None:
        """Nobody goes on here."""
        try:
            os.unlink(self._path)
        except OSError:
            pass  # there is none
        self._path = ""

    def pass_over(self, console: str) -> None:
        """Nothing of what this console has said so far is of interest."""
        try:
            about = os.stat(console + SUFFIX, dir_fd=self.folder, follow_symlinks=False)
        except OSError:
            return
        self.places[console] = Place(about.st_ino, about.st_size)

    def read(self, console: str) -> Optional[Piece]:
        """The next piece of a console's log; None when there is none."""
        place = self.places.get(console)
        fd = self._open(console + SUFFIX)
        if fd < 0:
            return None
        try:
            about = os.fstat(fd)
            if place is not None and about.st_ino != place.inode:
                older = self._read_rotated(console, place)
                if older is not None:
                    return older
                place = None
            return self._read(console, fd, about.st_ino, about.st_size, 0 if place is None else place.offset)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _open(self, name: str) -> int:
        try:
            return os.open(name, FLAGS, dir_fd=self.folder)
        except OSError:
            return -1

    def _read(self, console: str, fd: int, inode: int, size: int, offset: int) -> Optional[Piece]:
        skipped = 0
        if size - offset > BEHIND:
            skipped, offset = size - AHEAD - offset, size - AHEAD
        data = os.pread(fd, PIECE, offset) if offset < size else b""
        # A log that is shorter now has had half a marker cut off.
        self.places[console] = Place(inode, min(offset, size) + len(data))
        return Piece(data, offset + len(data) < size, skipped) if data else None

    def _read_rotated(self, console: str, place: Place) -> Optional[Piece]:
        """The rest of the file that was read last, then those after it. None: go on with the file of now."""
        for number in range(1, ROTATED + 1):
            fd = self._open(f"{console}{SUFFIX}.{number}")
            if fd < 0:
                return None
            try:
                about = os.fstat(fd)
                if about.st_ino != place.inode:
                    continue
                piece = self._read(console, fd, about.st_ino, about.st_size, place.offset)
                if piece is not None:
                    return piece._replace(more=True)
                return self._after(console, number)
            finally:
                os.close(fd)
        return None

    def _after(self, console: str, number: int) -> Optional[Piece]:
        """This rotated file is read: go on with the next younger one."""
        name = console + SUFFIX + (f".{number - 1}" if number > 1 else "")
        fd = self._open(name)
        if fd < 0:
            return None
        try:
            about = os.fstat(fd)
            piece = self._read(console, fd, about.st_ino, about.st_size, 0)
            return piece if piece is None or number == 1 else piece._replace(more=True)
        finally:
            os.close(fd)
