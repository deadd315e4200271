"""Those who are to be adopted and die at the worst time: the new master goes on."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.stage import HOST, Stage
from tests.unix.test_process import status_of
from tests.workers.bench import UUID, tcp_pair
from vspcd.adoption import Adoption, opened
from vspcd.proto.control import NEGOTIATING, OWNER, PACKET_LIMIT, decode, encode
from vspcd.unix import roster
from vspcd.unix.page import LAYOUT
from vspcd.unix.process import fork
from workers.orphan import DOOR


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
            sock.send(b'{"type":"here","kind":"worker","layout":1}')
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


@pytest.mark.parametrize("layout", [LAYOUT - 1, LAYOUT + 1])
def test_one_whose_page_has_another_layout_is_refused_and_gets_no_page(
    stage: Stage, layout: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.master.adoption.close()
    said: list[str] = []
    monkeypatch.setattr(
        stage.master.log, "write", lambda _level, _event, fields: said.append(fields["reason"])
    )
    adoption = Adoption(stage.master, opened(stage.master.directory.fd), lambda: None)
    stage.master.adoption = adoption
    book, place = stage.cradle.roster, str(stage.run / DOOR)
    reader, writer = os.pipe()

    def main() -> None:
        roster.enter(book)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(place)
            sock.send(encode({"type": "here", "kind": "worker", "layout": layout}))
            os.write(writer, sock.recv(PACKET_LIMIT))
            signal.pause()

    pid = fork(main, {book, writer})
    os.close(writer)
    stage.until(lambda: adoption._refused)
    assert decode(os.read(reader, PACKET_LIMIT))["type"] == "quit"
    os.close(reader)
    assert f"layout {layout} and ours {LAYOUT}; its VMs dial again" in said[0]
    os.kill(pid, signal.SIGKILL)
    status_of(pid)
    adoption.close()


def survivor(stage: Stage, leg: socket.socket, number: int, state: str) -> tuple[int, int]:
    """A worker that another master has left, with this connection: its pid, and where to read what it is told."""
    book, place = stage.cradle.roster, str(stage.run / DOOR)
    reader, writer = os.pipe()
    console = {"uuid": UUID, "label": "", "name": None} if state == OWNER else None
    itself = {"type": "worker", "state": state, "console": console, "move": None, "known": None}
    facts = {
        "leg": number,
        "peer": f"{HOST}:1000",
        "session": None,
        "secured": False,
        "feeds": state == OWNER,
    }

    def main() -> None:
        roster.enter(book)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(place)
        sock.send(encode({"type": "here", "kind": "worker", "layout": LAYOUT}))
        sock.recv(PACKET_LIMIT)
        sock.send(encode(itself))
        socket.send_fds(sock, [encode({"type": "leg", **facts})], [leg.fileno()])
        sock.send(encode({"type": "complete"}))
        os.write(writer, sock.recv(PACKET_LIMIT))
        signal.pause()

    pid = fork(main, {book, writer, leg.fileno()})
    os.close(writer)
    return pid, reader


def test_a_connection_that_its_owner_has_already_is_not_negotiated_by_another_one(stage: Stage) -> None:
    stage.master.adoption.close()
    known: list[str] = []
    adoption = Adoption(stage.master, opened(stage.master.directory.fd), lambda: known.append("all"))
    stage.master.adoption = adoption
    ends = [*tcp_pair(), *tcp_pair()]
    parts = [(ends[0], OWNER), (ends[0], NEGOTIATING), (ends[2], NEGOTIATING)]
    survivors = [survivor(stage, leg, number, state) for number, (leg, state) in enumerate(parts, 1)]
    stage.until(lambda: len([each for each in adoption._orphans.values() if each.complete]) == len(parts))
    adoption.begin()
    stage.until(lambda: known == ["all"])
    told = [decode(os.read(reader, PACKET_LIMIT))["type"] for _, reader in survivors]
    assert told == ["adopted", "handed", "adopted"]
    for pid, reader in survivors:
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        os.close(reader)
    for end in ends:
        end.close()
