"""The master dies, or another version takes its place, while a VM moves: the move goes on and is exact."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Callable

import pytest

from tests.system import processes
from tests.system.daemon import Daemon
from tests.system.vmotion_vm import THERE, Scene
from tests.system.wait import until

Change = Callable[[Daemon], None]


def kill(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()


def upgrade(daemon: Daemon) -> None:
    assert daemon.ctl("upgrade", timeout=90).returncode == 0


def renew(daemon: Daemon) -> None:
    assert daemon.ctl("upgrade", "--workers", timeout=90).returncode == 0


@pytest.fixture
def scene(daemon: Daemon, stack: ExitStack) -> Scene:
    return Scene(daemon, stack)


@pytest.mark.parametrize("change", [kill, upgrade, renew])
def test_pair_that_was_given_before_opens_the_console_after(scene: Scene, change: Change) -> None:
    scene.turns()
    pair = scene.goahead()
    change(scene.daemon)
    scene.complete(scene.target(pair))
    scene.until(scene.recorded, "the move is recorded")
    scene.check()


@pytest.mark.parametrize("change", [kill, upgrade, renew])
def test_target_that_has_joined_before_is_the_vm_after(scene: Scene, change: Change) -> None:
    scene.turns()
    target = scene.target(scene.goahead())
    change(scene.daemon)
    scene.complete(target)
    scene.until(scene.recorded, "the move is recorded")
    scene.check()


def kill_both(daemon: Daemon) -> None:
    """The console's worker dies first, so that another one has to know what it knew."""
    (console,) = daemon.consoles()
    pid = console["worker"]["pid"]
    processes.kill(pid)
    until(lambda: (daemon.consoles()[0]["worker"] or {"pid": pid})["pid"] != pid, "another goes on")
    kill(daemon)


@pytest.mark.parametrize("change", [kill, kill_both, upgrade])
def test_latest_moves_are_known_after(scene: Scene, change: Change) -> None:
    scene.turns()
    scene.complete(scene.target(scene.goahead()))
    scene.until(scene.recorded, "the move is recorded")
    (console,) = scene.daemon.consoles()
    assert len(console["moves"]) == 1
    change(scene.daemon)
    assert scene.daemon.consoles()[0]["moves"] == console["moves"]


@pytest.mark.parametrize("change", [kill, upgrade, renew])
def test_source_that_left_before_is_not_missed_after(scene: Scene, change: Change) -> None:
    scene.turns()
    source = scene.guest
    target = scene.target(scene.goahead())
    assert source is not None
    source.leave()
    scene.mute = scene.quiet = True
    scene.turns()
    change(scene.daemon)
    target.complete()
    scene.guest, scene.mute, scene.quiet = target, False, False
    scene.until(scene.recorded, "the move is recorded")
    scene.check()


def test_move_that_completes_without_a_master_is_exact(scene: Scene) -> None:
    scene.turns()
    target = scene.target(scene.goahead())
    scene.daemon.signal(signal.SIGKILL)
    scene.daemon.wait_end()
    scene.complete(target)
    scene.turns()
    scene.daemon.start()
    scene.turns()
    scene.check()


def test_pair_that_is_shown_while_there_is_no_master_is_matched_by_the_next(scene: Scene) -> None:
    scene.turns()
    pair = scene.goahead()
    target = scene.dial(THERE)
    target.take_step(target.steps()[0])
    scene.daemon.signal(signal.SIGKILL)
    scene.daemon.wait_end()
    target.show(pair)
    scene.daemon.start()
    scene.until(target.admitted, "PEER-OK")
    scene.complete(target)
    scene.until(scene.recorded, "the move is recorded")
    scene.check()
