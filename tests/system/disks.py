"""Disks in real trouble: small file systems that fill up, fail or go, mounted below a test's own root.

Owns its mounts and images and takes them away again. Needs root; tests that use it are skipped without.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.daemon import Daemon

FILLER = "filler"
MARKER = re.compile(rb"\r\n\[vspcd: (\d+) bytes not logged: ([^\]]*)\]\r\n")


def run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr.strip()}")


def mount(*words: object) -> None:
    """Mount something, or skip the test where that is not allowed."""
    try:
        run("mount", *words)
    except OSError as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")


def unmount(path: Path) -> None:
    """Take it out of the way at once, whoever still uses it."""
    run("umount", "--lazy", path)


class Disk:
    """A small file system at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / FILLER).open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                while self._more(filler.fileno(), size):
                    pass

    def _more(self, fd: int, size: int) -> bool:
        try:
            return os.write(fd, b"f" * size) > 0
        except OSError:
            return False

    def make_room(self) -> None:
        (self.path / FILLER).unlink()

    def free(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Disk]:
    """A file system in memory."""
    path.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "vspcd-test", path)
    try:
        yield Disk(path)
    finally:
        unmount(path)


def make_ext4(image: Path, *options: object) -> None:
    """An ext4 file system in a file, or skip the test where nothing makes one."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 (Debian: e2fsprogs)")
    run("mkfs.ext4", "-q", *options, image)


@contextmanager
def image(path: Path, at: Path) -> Iterator[None]:
    """An ext4 file system in a file."""
    path.mkdir(parents=True, exist_ok=True)
    with at.open("wb") as file:
        file.truncate(16 << 20)
    make_ext4(at)
    mount("-o", "loop", at, path)
    try:
        yield
    finally:
        unmount(path)


@contextmanager
def broken(file: Path, pid: int) -> Iterator[None]:
    """Each write to what has this name fails with EIO: it is the memory of a process, at an address that nobody has."""
    mount("--bind", f"/proc/{pid}/mem", file)
    try:
        yield
    finally:
        unmount(file)


def parts(log: Path) -> list[Path]:
    """The log and its rotated predecessors, the oldest first."""
    rotated = [path for path in log.parent.glob(f"{log.name}.*") if path.suffix[1:].isdigit()]
    return [*sorted(rotated, key=lambda path: -int(path.suffix[1:])), log]


def joined(log: Path) -> bytes:
    """All that was logged; empty while a file is not there."""
    try:
        return b"".join(path.read_bytes() for path in parts(log))
    except FileNotFoundError:
        return b""


def missing(log: bytes, said: bytes) -> int:
    """Checks that a log is what was said but for what its markers tell, and how much they tell."""
    at = position = lost = 0
    for marker in MARKER.finditer(log):
        piece = log[at : marker.start()]
        assert piece == said[position : position + len(piece)]
        lost += int(marker[1])
        position += len(piece) + int(marker[1])
        at = marker.end()
    assert log[at:] == said[position : position + len(log) - at]
    assert position + len(log) - at == len(said), "the end is missing"
    return lost


def is_complete(log: Path, said: bytes) -> bool:
    """Whether the log ends with what was said last: nothing waits in the spool."""
    return joined(log).endswith(said[-64:])


def wait_trouble(daemon: Daemon, name: str, reason: str) -> None:
    daemon.wait_console(name, lambda c: bool(c["log_trouble"] == reason), f"has trouble: {reason}")


def wait_works(daemon: Daemon, name: str) -> None:
    daemon.wait_console(name, lambda c: c["log_trouble"] is None, "is logged again")
