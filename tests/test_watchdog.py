"""What the watchdog sees without asking, and whom it asks."""

from __future__ import annotations

import socket

import pytest

from tests.stage import Stage
from vspcd import watchdog
from vspcd.attachments import Wish
from vspcd.core.rights import Who
from vspcd.unix import cputime
from vspcd.unix.page import HEAD


def look(stage: Stage) -> None:
    for worker in list(stage.table.workers.values()):
        stage.master.watchdog._look_at(worker)


def spend(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What a worker has spent on processors so far."""
    monkeypatch.setattr(cputime, "of_process", lambda _pid: seconds)


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


def test_a_worker_that_goes_round_without_progress_is_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    spend(monkeypatch, 0.1)
    look(stage)
    look(stage)
    assert not owner.worker.pinged
    spend(monkeypatch, 0.5)
    look(stage)
    stage.until(lambda: owner.was_told("ping"))


def test_a_worker_that_has_answered_is_not_asked_again_for_the_time_that_it_spent_before(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    spend(monkeypatch, 100.0)
    for _ in range(3):
        look(stage)
        owner.says("pong")
    assert len(owner.was_told("ping")) == 1


def test_a_worker_that_is_busy_and_gets_on_is_never_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = stage.owner()
    stage.until(lambda: owner.was_told("own"))
    for spent in range(1, 6):
        spend(monkeypatch, float(spent))
        look(stage)
        owner.worker.page.words[HEAD] += 1
    assert not owner.worker.pinged


def test_a_worker_that_waits_for_a_disk_is_killed_only_if_it_hangs_when_the_disk_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "ANSWER_WITHIN", 0.0)
    monkeypatch.setattr(cputime, "state_of", lambda _pid: "D")
    owner, far = stage.owner()
    far.send(b"said")
    for _ in range(5):
        look(stage)
    assert owner.worker.pinged
    assert not owner.worker.hung
    assert not stage.killed(owner)
    monkeypatch.setattr(cputime, "state_of", lambda _pid: "S")
    look(stage)
    stage.until(lambda: stage.killed(owner))
    assert owner.worker.hung
