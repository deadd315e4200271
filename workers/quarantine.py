"""Quarantine: what has killed one worker after the other is put aside, unread by any parser.

Does: empties a VM's connection into a file in the log directory, a bounded number of files per console.
Owns: those files while it writes them.
Never: looks at a byte of it.
"""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple

LIMIT = 16 << 20  # more than a receive buffer holds
PIECE = 1 << 16
KEEP = 10
MODE = 0o640
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Kept(NamedTuple):
    """``file``: its name in the log directory, or in words why there is none; ``size``: bytes put aside."""

    file: str
    size: int


def put_aside(directory: int, console: str, leg: socket.socket) -> Kept:
    """All that waits in a connection goes into a file of the open ``directory``."""
    data = _waiting(leg)
    name = f"{console}.quarantine.{int(time.time() * 1000)}"
    try:
        _remove_old(directory, f"{console}.quarantine.")
        file = os.open(name, FLAGS, MODE, dir_fd=directory)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
        finally:
            os.close(file)
    except OSError as error:
        return Kept(f"no file: {os.strerror(error.errno or 0)}", len(data))
    return Kept(name, len(data))


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
