"""The rehearsal before the first fork: it comes to its end, and nothing of it stays."""

from __future__ import annotations

import errno
import gc
import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unix.turning import open_descriptors
from vspcd import config as configuration
from vspcd.spawn import settings as plain_settings
from vspcd.unix import failpoint
from vspcd.unix.logfolder import Folder
from vspcd.unix.page import Arena, Page
from workers import rehearsal
from workers.vmware import VmwareWorker

KEPT: list[Page] = []
"""A worker's page must stay mapped as long as the process lives."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return plain_settings(configuration.load(None, [], tmp_path))


def test_the_vm_is_connected_and_named(settings: dict[str, Any], tmp_path: Path) -> None:
    arena = Arena()
    said = rehearsal.play(
        rehearsal.settings_here(settings, str(tmp_path)), str(tmp_path), os.dup(arena.fd), arena.take(), KEPT
    )
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


def test_logs_are_written_on_the_stage_and_nowhere_else(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    removed = rehearsal.remove

    def remove(folder: str) -> None:
        seen.update(os.path.relpath(entry.path, tmp_path) for entry in os.scandir(folder))
        removed(folder)

    monkeypatch.setattr(rehearsal, "remove", remove)
    KEPT.extend(rehearsal.rehearse(settings, str(tmp_path / "stage")))
    assert {Path(name).suffix for name in seen if name.startswith("stage/0")} == {".log", ".idx"}
    assert "log" in settings
    assert not Path(settings["log"]["dir"]).exists()


def test_what_one_has_left_who_was_killed_is_removed(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "stage" / "by-name").mkdir(parents=True)
    (tmp_path / "stage" / "old.log").write_text("old")
    pages = rehearsal.rehearse(settings, str(tmp_path / "stage"))
    KEPT.extend(pages)
    assert len(pages) == rehearsal.ROUNDS
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_takes_no_file_is_nobodys_business(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_all: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Folder, "open", refuse)
    KEPT.extend(rehearsal.rehearse(settings, str(tmp_path / "stage")))
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_has_not_begun_holds_nothing(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "mmap", lambda *_all: pytest.fail("memory that all children would share"))
    before = open_descriptors()
    worker = VmwareWorker(settings, -1)
    assert open_descriptors() == before
    assert worker.console is None


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
