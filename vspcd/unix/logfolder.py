"""The folder that holds the logs: its files by name, whatever becomes of the folder itself.

Does: opens, renames and removes files in it, finds one by its inode, makes the folder again when it is gone.
Owns: nothing but the knowledge of a descriptor's number, under which the folder can always be reached.
Never: follows a link in the place of a file; takes a name that a VM chose.
"""

from __future__ import annotations

import os
from typing import Callable, Optional

FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MODE = 0o640


class Folder:
    """A folder by an open descriptor ``fd`` and, unless empty, its ``path``; ``renewed`` when it had to be made again.

    When the folder that has the path is not the one that is open, the same number becomes a descriptor of the former:
    whoever else in this process uses the number goes there too.
    """

    def __init__(
        self, fd: int, path: str, mode: int = 0o750, renewed: Callable[[], object] = lambda: None
    ) -> None:
        self.fd = fd
        self._path = path
        self._mode = mode
        self._renewed = renewed

    def enter(self) -> None:
        """Open the folder, unless it is. Raises OSError."""
        if self.fd < 0:
            self.renew()

    def leave(self) -> None:
        """Close the folder. Only for one that was opened here."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def open(self, name: str) -> int:
        """A descriptor of a file, which is made if it is not there. Raises OSError."""
        self.enter()
        try:
            return os.open(name, FLAGS, MODE, dir_fd=self.fd)
        except FileNotFoundError:
            # A folder that was removed takes no new file.
            if not self.renew():
                raise
        return os.open(name, FLAGS, MODE, dir_fd=self.fd)

    def open_to_read(self, name: str) -> int:
        """A descriptor of a file for reading, -1 when there is none."""
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError:
            return -1

    def renew(self) -> bool:
        """Go to the folder that has the path now, and make it if there is none; whether it is another one.

        Raises OSError.
        """
        if not self._path:
            return False
        os.makedirs(self._path, self._mode, exist_ok=True)
        there = os.open(self._path, FOLDER_FLAGS)
        try:
            if self.fd >= 0 and is_same(os.fstat(there), os.fstat(self.fd)):
                return False
            if self.fd < 0:
                self.fd = os.dup(there)
            else:
                os.dup2(there, self.fd, inheritable=False)
        finally:
            os.close(there)
        self._renewed()
        return True

    def has(self, name: str, fd: int) -> bool:
        """Whether the file that is open has this name, in the folder that has the path."""
        try:
            there = (
                os.stat(f"{self._path}/{name}", follow_symlinks=False)
                if self._path
                else os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            )
        except FileNotFoundError:
            return False
        except OSError:
            return True  # nobody can tell
        return is_same(there, os.fstat(fd))

    def shift(self, name: str, keep: int) -> None:
        """Give each of ``name``, ``name.1`` ... the name of the next; what is behind ``keep`` goes. Raises OSError."""
        if not keep:
            self.remove(name)
        names = [name, *(f"{name}.{number}" for number in range(1, keep + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1])):
            try:
                os.rename(newer, older, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except FileNotFoundError:
                pass

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. Raises OSError."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def size(self, name: str) -> Optional[int]:
        """How long a file is, None when there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        except OSError:
            return None

    def find(self, stem: str, inode: int, but: str) -> Optional[int]:
        """How long the file with this inode is, if one whose name begins with ``stem``, ``but`` one, has it."""
        try:
            with os.scandir(self.fd) as entries:
                named = [each for each in entries if each.name.startswith(stem) and each.name != but]
                found = [each for each in named if each.inode() == inode]
        except OSError:
            return None
        return self.size(found[0].name) if found else None


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two are one file."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
