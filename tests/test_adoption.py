"""Those who are to be adopted and die at the worst time: the new master goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage
from tests.unix.test_process import status_of
from vspcd.adoption import Adoption, opened
from vspcd.unix import roster
from vspcd.unix.process import fork


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()


def orphan(stage: Stage) -> int:
    """A process that another master has left."""
    book = stage.cradle.roster
    reader, writer = os.pipe()

    def main() -> None:
        roster.enter(book)
        os.write(writer, b"!")
        signal.pause()

    pid = fork(main, {book, writer})
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return pid


@pytest.mark.parametrize("ends", [Adoption._too_late, Adoption.close], ids=["too late", "stopping"])
def test_whoever_is_dead_already_need_not_be_killed(stage: Stage, ends: object) -> None:
    assert callable(ends)
    pid, known = orphan(stage), list[str]()
    adoption = Adoption(stage.master, opened(stage.master.directory.fd), lambda: known.append("all"))
    adoption.begin()
    os.kill(pid, signal.SIGKILL)
    status_of(pid)  # it has gone, and the loop has not turned
    ends(adoption)
    stage.until(lambda: known == ["all"])
    adoption.close()
