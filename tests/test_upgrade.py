"""An upgrade for which the system has no room comes to nothing: the daemon says why, keeps nothing open and goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage
from tests.unix.test_process import status_of
from tests.unix.turning import descriptors_left, open_descriptors
from vspcd import upgrade
from vspcd.unix.process import describe

GRANTS = ["sh", "-c", f"echo '{upgrade.GRANTED}0'"]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    def never(*_arguments: object) -> None:
        raise AssertionError("another version would go on")

    monkeypatch.setattr(os, "execvpe", never)
    made = Stage(tmp_path, monkeypatch)
    made.master.upgrades._command = GRANTS
    yield made
    made.close()


@pytest.mark.parametrize("room", [0, 1, 2], ids=["state", "its file", "pipe"])
def test_without_descriptors_the_other_version_is_not_asked(stage: Stage, room: int) -> None:
    before = open_descriptors()
    with descriptors_left(room):
        attempt = stage.master.upgrades.begin("a test")
    assert attempt.over
    assert "Too many open files" in attempt.reason
    assert open_descriptors() == before


def test_without_descriptors_the_other_version_does_not_go_on(stage: Stage) -> None:
    upgrades = stage.master.upgrades
    before = open_descriptors()
    attempt = upgrades.begin("a test")
    child = upgrades._child
    how = describe(status_of(child))
    with descriptors_left(0):
        assert upgrades.reaped(
            child, how
        )  # it frees what the other version has answered through, which is too few
        stage.until(lambda: attempt.over)
    assert "Too many open files" in attempt.reason
    assert open_descriptors() == before
    assert upgrades._objection() == ""
