"""The run directory: one daemon at a time has it.

Does: makes the daemon's directories, takes the lock, writes the pid file.
Owns: the directory's descriptor and the lock, which goes with the process, whatever ends it.
Never: waits for the lock.
"""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple

from vspcd.config_schema import Dirs
from vspcd.unix import listen, roster

PID_FILE = "vspcd.pid"


class CannotStart(Exception):
    """The daemon cannot start; the text says why."""


class RunDirectory(NamedTuple):
    """Descriptors of the directory and of the locked pid file in it."""

    fd: int
    lock: int

    def leave(self) -> None:
        """The daemon has ended as asked."""
        listen.remove(self.fd, roster.NAME)
        listen.remove(self.fd, PID_FILE)


def prepare(dirs: Dirs) -> RunDirectory:
    """Make the directories that are missing and take the lock. Raises CannotStart."""
    try:
        for path in (dirs.run, dirs.state, dirs.log):
            path.mkdir(mode=0o755 if path == dirs.run else 0o750, parents=True, exist_ok=True)
        directory = os.open(dirs.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return RunDirectory(directory, _lock(directory, dirs))
    except OSError as error:
        place = dirs.run / PID_FILE if error.filename == PID_FILE else error.filename or dirs.run
        hint = "; run it as root, or with --root DIR" if isinstance(error, PermissionError) else ""
        raise CannotStart(f"{place}: {error.strerror}{hint}") from None


def _lock(directory: int, dirs: Dirs) -> int:
    """One daemon per run directory."""
    fd = os.open(PID_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(fd, 20).decode("ascii", "replace").strip()
        raise CannotStart(f"vspcd runs already in {dirs.run} (pid {pid})") from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd
