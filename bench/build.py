"""The C programs of the benchmark, built into a temporary folder.

Does: finds a compiler and builds the relay and the load generators. Owns nothing: the folder is the caller's. Never
keeps what it has built beside the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


class CannotBuild(Exception):
    """The text says why, and what to do."""


class Programs(NamedTuple):
    """Paths of what was built."""

    relay: str
    load: str
    estate: str


def build(folder: Path) -> Programs:
    """Build all of them. Raises CannotBuild."""
    name = os.environ.get("CC", "cc")
    compiler = shutil.which(name)
    if compiler is None:
        raise CannotBuild(
            f"The load generators are in C, and there is no compiler {name!r}.\n"
            "On Debian or Ubuntu: apt-get install gcc libc6-dev. On Red Hat: dnf install gcc. Or name one: CC=clang"
        )
    return Programs(*(_built(compiler, name, folder) for name in Programs._fields))


def _built(compiler: str, name: str, folder: Path) -> str:
    source, program = SOURCES / f"{name}.c", folder / name
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(program), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBuild(f"{compiler} cannot build {source}:\n{done.stderr}")
    return str(program)
