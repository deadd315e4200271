"""What the watchdog sees without asking, and whom it asks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage
from vspcd import watchdog
from vspcd.attachments import Wish
from vspcd.core.rights import Who
from vspcd.unix.page import HEAD


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()


def look(stage: Stage) -> None:
    for worker in list(stage.table.workers.values()):
        stage.master.watchdog._look_at(worker)


def test_a_worker_for_whom_nothing_waits_is_never_asked(stage: Stage) -> None:
    owner, _ = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    for _ in range(5):
        look(stage)
    assert not owner.worker.pinged


def test_a_worker_whose_vm_waits_is_asked_and_its_answer_is_heard(stage: Stage) -> None:
    owner, far = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    far.send(b"said")
    look(stage)
    look(stage)
    stage.until(lambda: owner.was_told("ping"))
    owner.says("pong")
    assert not owner.worker.pinged


def test_a_worker_whose_page_has_moved_is_not_asked(stage: Stage) -> None:
    owner, far = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    far.send(b"said")
    for _ in range(5):
        look(stage)
        owner.worker.page.words[HEAD] += 1
    assert not owner.worker.pinged


def test_a_client_that_waits_is_a_reason_to_ask(stage: Stage) -> None:
    owner, _ = stage.owner()
    near, far = socket.socketpair()
    stage.master.attachments.attach(
        stage.console, Wish("raw", Who(uid=1000)), near, next(stage.table.numbers)
    )
    stage.until(lambda: owner.was_told("client"))
    far.send(b"typed")
    look(stage)
    look(stage)
    assert owner.worker.pinged
    far.close()


def test_one_that_gives_no_sign_of_life_is_killed_as_hung(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "ANSWER_WITHIN", 0.0)
    owner, far = stage.owner()
    far.send(b"said")
    for _ in range(3):
        look(stage)
    stage.until(lambda: stage.killed(owner))
    assert owner.worker.hung


def test_time_on_a_processor_is_seen() -> None:
    before, end = watchdog.processor_time(os.getpid()), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert watchdog.processor_time(os.getpid()) > before
