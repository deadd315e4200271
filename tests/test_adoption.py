"""Those who are to be adopted and die at the worst time: the new master goes on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage
from tests.unix.test_process import status_of
from vspcd.adoption import Adoption, opened
from vspcd.proto.control import PACKET_LIMIT
from vspcd.unix import roster
from vspcd.unix.process import fork
from workers.orphan import DOOR


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


def liar(stage: Stage) -> int:
    """A process that another master has left, which takes its page, says nonsense and lives on."""
    book, place = stage.cradle.roster, str(stage.run / DOOR)

    def main() -> None:
        roster.enter(book)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(place)
            sock.send(b'{"type":"here","kind":"worker"}')
            sock.recv(PACKET_LIMIT)
            sock.send(b'{"type":"complete"}')
            sock.recv(PACKET_LIMIT)
            signal.pause()

    return fork(main, {book})


def test_the_page_of_one_who_is_refused_is_his_until_he_is_dead(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.master.adoption.close()
    given_back: list[int] = []
    monkeypatch.setattr(stage.cradle, "give_back", given_back.append)
    known: list[str] = []
    adoption = Adoption(stage.master, opened(stage.master.directory.fd), lambda: known.append("all"))
    stage.master.adoption = adoption
    pid = liar(stage)
    stage.until(lambda: adoption._refused)
    assert given_back == []
    adoption.begin()
    assert known == []
    os.kill(pid, signal.SIGKILL)
    status_of(pid)
    stage.until(lambda: known == ["all"])
    assert len(given_back) == 1
    assert not adoption._refused
