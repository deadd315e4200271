"""Bringing children into the world, when the system has no room for them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.unix.turning import open_descriptors
from tests.workers.bench import HOST, tcp_pair
from vspcd import config as configuration
from vspcd.config_schema import Config
from vspcd.proto.control import NEGOTIATING, OWNER
from vspcd.spawn import Nursery
from vspcd.table import LegRecord
from vspcd.unix import process
from vspcd.unix.channel import pair


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration.load(None, ["log.dir=off"], tmp_path)


@pytest.fixture
def nursery(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """No child can be made."""

    def fork(*_: Any) -> int:
        raise BlockingIOError("no process")

    monkeypatch.setattr(process, "fork", fork)
    made = Nursery(config)
    yield made
    for fd in (made._arena.fd, made._sync_reader, made._sync_writer):
        os.close(fd)


def test_a_worker_that_cannot_be_made_leaves_nothing_open(nursery: Nursery, config: Config) -> None:
    before = open_descriptors()
    with pytest.raises(OSError):
        nursery.worker(config, OWNER)
    assert open_descriptors() == before


def test_the_page_of_a_worker_that_cannot_be_made_is_used_again(nursery: Nursery, config: Config) -> None:
    for _ in range(3):
        with pytest.raises(OSError):
            nursery.worker(config, OWNER)
    assert nursery._arena.take() == 0


def test_the_page_of_a_dead_worker_that_cannot_be_replaced_stays_its_own(
    nursery: Nursery, config: Config
) -> None:
    """Its master gives it back when it is buried; twice would put two consoles on one page."""
    page = nursery._arena.take()
    with pytest.raises(OSError):
        nursery.worker(config, OWNER, page=page)
    assert nursery._arena.take() != page


def test_when_not_all_workers_can_be_made_the_first_ones_are_there_and_nothing_stays_open(
    nursery: Nursery, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [tcp_pair() for _ in range(3)]
    before = open_descriptors()
    monkeypatch.setattr(process, "fork_all", lambda *_: ([os.getpid()], BlockingIOError("no process")))
    legs = [LegRecord(number, HOST, near, 0.0) for number, (near, _) in enumerate(pairs)]
    workers, error = nursery.workers(config, NEGOTIATING, legs)
    assert [list(worker.legs) for worker in workers] == [[0]]
    assert isinstance(error, BlockingIOError)
    assert {nursery._arena.take(), nursery._arena.take()} == {1, 2}
    workers[0].channel.close()
    assert open_descriptors() == before
    for near, far in pairs:
        near.close()
        far.close()


def test_when_there_are_no_descriptors_for_all_workers_the_first_ones_are_made(
    nursery: Nursery, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = tcp_pair()
    made: list[process.Child] = []

    def fork_all(children: list[process.Child], _memory: Optional[int]) -> tuple[list[int], None]:
        made.extend(children)
        return [os.getpid() for _ in children], None

    monkeypatch.setattr("vspcd.spawn.pair", pairs_for(1))
    monkeypatch.setattr(process, "fork_all", fork_all)
    legs = [LegRecord(number, HOST, near, 0.0) for number in range(3)]
    workers, error = nursery.workers(config, NEGOTIATING, legs)
    assert len(workers) == len(made) == 1
    assert isinstance(error, OSError)
    workers[0].channel.close()
    near.close()
    far.close()


def pairs_for(count: int) -> Callable[[], tuple[socket.socket, socket.socket]]:
    """Channels until there are no descriptors left."""
    left = iter(range(count))

    def made() -> tuple[socket.socket, socket.socket]:
        if next(left, None) is None:
            raise OSError(errno.EMFILE, "no descriptors")
        return pair()

    return made
