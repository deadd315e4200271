"""Bringing children into the world, when the system has no room for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unix.turning import open_descriptors
from vspcd import config as configuration
from vspcd.config_schema import Config
from vspcd.proto.control import OWNER
from vspcd.spawn import Nursery
from vspcd.unix import process


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
