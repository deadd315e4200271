"""Quarantine: what has killed one worker after the other is put aside, unread by any parser.

Does: empties a VM's connection into a file in the log directory or, when that takes none, beside the spools; a bounded
number of files per console.
Owns: those files while it writes them.
Never: looks at a byte of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

KILLS = "what the VM said has killed its workers again and again"
LIMIT = 16 << 20  # more than a receive buffer holds
PIECE = 1 << 16
KEEP = 10
MODE = 0o640
DIRECTORY_MODE = 0o750
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Kept(NamedTuple):
    """``file``: its path, or in words why there is none; ``size``: bytes put aside."""

    file: str
    size: int


def places(log: Mapping[str, Any]) -> list[str]:
    """Where it may go, by a worker's settings."""
    return [log["dir"], log["spool_dir"]] if log["enabled"] else [log["spool_dir"]]


def put_aside(directories: Sequence[str], console: str, leg: socket.socket, before: bytes = b"") -> Kept:
    """All that waits in a connection, behind what came ``before``, goes into a file of the first of these directories
    that takes it.
    """
    data = before + _waiting(leg)
    reason = "there is no directory for it"
    for directory in directories:
        try:
            return Kept(_written(directory, console, data), len(data))
        except OSError as error:
            reason = f"{directory}: {os.strerror(error.errno or 0)}"
    return Kept(f"no file ({reason})", len(data))


def _written(directory: str, console: str, data: bytes) -> str:
    os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_old(folder, f"{console}.quarantine.")
        name, file = _new_file(folder, console)
        try:
            _write(file, data)
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(file)
    finally:
        os.close(folder)
    return os.path.join(directory, name)


def _new_file(folder: int, console: str) -> tuple[str, int]:
    """Named by the millisecond, or by the next one that has no file yet."""
    for moment in itertools.count(int(time.time() * 1000)):
        name = f"{console}.quarantine.{moment}"
        with contextlib.suppress(FileExistsError):
            return name, os.open(name, FLAGS, MODE, dir_fd=folder)
    raise AssertionError("numbers do not end")


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _waiting(leg: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < LIMIT:
        try:
            piece = leg.recv(PIECE, socket.MSG_DONTWAIT)
        except OSError:
            break
        if not piece:
            break
        data += piece
    return bytes(data)


def _remove_old(directory: int, prefix: str) -> None:
    """Leave the latest few, so that a VM cannot fill the disk with them. The names sort by time."""
    names = sorted(name for name in os.listdir(directory) if name.startswith(prefix))
    for name in names[: len(names) - KEEP + 1]:
        os.unlink(name, dir_fd=directory)
