"""The master's side of hooks: what becomes a job, how many may wait, what a successor learns."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.test_process import status_of
from tests.unix.turning import until
from vspcd import config as configuration
from vspcd import events
from vspcd.events import Events
from vspcd.spawn import Nursery
from vspcd.table import Console
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

UUID = "0" * 32


class Half:
    """The master's half with a real hooks process; its log is in a file."""

    def __init__(self, root: Path, hook: str, queue: int = 100) -> None:
        self.config = configuration.load(None, [f"hooks.rules=[{hook}]", f"hooks.queue={queue}"], root)
        self.loop = Loop()
        self.log = root / "master.log"
        self._fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.events = Events(self.loop, Log("info", self._fd), Nursery(self.config), self.config)
        self.events.start()

    def jobs(self) -> list[str]:
        return [job.message["facts"]["event"] for job in self.events.jobs.values()]

    def until(self, condition: object) -> None:
        assert callable(condition)
        until(self.loop, condition, seconds=20)

    def kill(self) -> None:
        """The process dies, and the reaper tells."""
        pid = self.events.aide.pid
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        assert self.events.aide.reaped(pid, "killed by SIGKILL")

    def close(self) -> None:
        pid = self.events.aide.pid
        self.events.stop()
        if pid:
            os.kill(pid, signal.SIGKILL)
            status_of(pid)
        self.loop.close()
        os.close(self._fd)


@pytest.fixture
def half(tmp_path: Path) -> Iterator[Half]:
    made = Half(tmp_path, "{events: [connected, renamed, attached], run: [/bin/sleep, '600']}", queue=3)
    yield made
    made.close()


def console(name: str | None = "web01") -> Console:
    return Console(UUID, "", name)


def test_an_event_that_nobody_waits_for_is_no_job(half: Half) -> None:
    half.events.happened("detached", console())
    assert half.jobs() == []
    half.events.happened("attached", console())
    assert half.jobs() == ["attached"]


def test_a_new_vms_event_waits_for_its_name(half: Half) -> None:
    new = console(None)
    half.events.happened("connected", new)
    assert half.jobs() == []
    new.name = "web01"
    half.events.happened("renamed", new, old=None)
    assert half.jobs() == ["connected"]
    assert next(iter(half.events.jobs.values())).message["facts"]["name"] == "web01"


def test_a_vm_that_never_tells_its_name_has_its_event_too(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "NAMED_WITHIN", 0.01)
    half.events.happened("connected", console(None))
    half.until(lambda: half.jobs() == ["connected"])


def test_what_is_too_much_is_counted(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TELL_LOST_AFTER", 0.01)
    for _ in range(5):
        half.events.happened("attached", console())
    half.until(lambda: "hook-events-dropped count=2 limit=3" in half.log.read_text())
    assert len(half.jobs()) == 3


def test_long_facts_are_cut(half: Half) -> None:
    half.events.happened("attached", console(), reason="x" * 100000)
    (job,) = half.events.jobs.values()
    assert len(job.message["facts"]["reason"]) == events.SHORT


def test_a_job_before_which_processes_die_again_and_again_is_given_up(half: Half) -> None:
    half.kill()  # nobody runs anything until the loop turns for a second
    half.events.happened("attached", console())
    half.events.happened("renamed", console(), old="x")
    for _ in range(events.LIVES):
        half.events.aide._began()
    assert half.jobs() == ["attached", "renamed"]
    half.events.aide._began()
    assert half.jobs() == ["renamed"]
    assert "hook-given-up on=attached" in half.log.read_text()
