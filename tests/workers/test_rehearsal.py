"""The rehearsal before the first fork: it comes to its end, and nothing of it stays."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unix.turning import open_descriptors
from vspcd import config as configuration
from vspcd.spawn import settings as plain_settings
from vspcd.unix import failpoint
from vspcd.unix.page import Arena, Page
from workers import rehearsal

KEPT: list[Page] = []
"""A worker's page must stay mapped as long as the process lives."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return plain_settings(configuration.load(None, [], tmp_path))


def test_the_vm_is_connected_and_named(settings: dict[str, Any], tmp_path: Path) -> None:
    arena = Arena()
    said = rehearsal.play(rehearsal.quiet(settings, str(tmp_path)), os.dup(arena.fd), arena.take(), KEPT)
    assert {"claim", "connected", "facts"} <= set(said)
    os.close(arena.fd)


def test_nothing_stays_but_the_pages(settings: dict[str, Any], tmp_path: Path) -> None:
    gc.collect()
    before = open_descriptors()
    pages = rehearsal.rehearse(settings, str(tmp_path / "stage"))
    KEPT.extend(pages)
    gc.collect()
    assert len(pages) == rehearsal.ROUNDS
    assert open_descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_without_a_loopback_interface_there_is_none(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_interface() -> None:
        raise OSError("no interface")

    monkeypatch.setattr(rehearsal, "tcp_pair", no_interface)
    assert rehearsal.rehearse(settings, str(tmp_path / "stage")) == []


def test_a_failpoint_waits_for_a_real_worker(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoint, "DIRECTORY", "somewhere")
    monkeypatch.setattr(rehearsal, "play", lambda *_: pytest.fail("a worker was played"))
    assert rehearsal.rehearse(settings, str(tmp_path / "stage")) == []
