"""The master dies while another version takes its place, or while it adopts; its consoles go on.

Owns the table ``MASTERS``. A worker that dies while nobody is master takes its connections with it: its VM and its
clients dial again, and the log has all that was said before.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Mapping
from typing import Callable

from tests.crash.stage import Stage
from tests.system.daemon import Daemon
from tests.system.wait import until

START = 0.02  # seconds between turns while a master starts
UPGRADE = json.dumps({"type": "upgrade", "workers": False}).encode()


def serves(daemon: Daemon) -> bool:
    """Whether the master answers. None may be there yet."""
    try:
        return bool(daemon.status()["pid"] == daemon.pid)
    except (OSError, AssertionError):
        return False


def another(stage: Stage) -> None:
    """The master is dead, and another one starts."""
    daemon = stage.daemon
    assert daemon.process is not None
    process = daemon.process
    stage.until(lambda: process.poll() is not None, "the master is dead", START)
    daemon.process = daemon.spawn()


def upgraded(stage: Stage, point: str) -> None:
    """The master dies while another version takes its place."""
    stage.arm(point)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as operator:
        operator.connect(stage.control)
        operator.send(UPGRADE)
        stage.until(lambda: stage.reached(point), f"{point} is reached", START)
        another(stage)
    stage.recovered(point)
    stage.until(lambda: serves(stage.daemon), "another master serves", START)
    stage.talk(5)


def adopting(stage: Stage, point: str) -> None:
    """A master dies, and the next one while it adopts."""
    stage.arm(point)
    stage.daemon.signal(signal.SIGKILL)
    another(stage)
    stage.until(lambda: stage.reached(point), f"{point} is reached", START)
    another(stage)
    stage.recovered(point)
    stage.until(lambda: serves(stage.daemon), "another master serves", START)
    stage.talk(5)


def adopted(stage: Stage, point: str) -> None:
    """A master dies, and the worker when the next one has adopted it."""
    stage.arm(point)
    stage.daemon.signal(signal.SIGKILL)
    another(stage)
    stage.until(lambda: stage.reached(point), f"{point} is reached", START)
    stage.recovered(point)
    stage.talk(5)


def orphaned(stage: Stage, point: str) -> None:
    """A worker dies while nobody is master: everybody comes again, and sees what is said from then on."""
    stage.settle()
    stage.arm(point)
    stage.daemon.signal(signal.SIGKILL)
    assert stage.daemon.process is not None
    stage.daemon.process.wait(timeout=20)
    stage.daemon.process = stage.daemon.spawn()
    until(lambda: stage.reached(point), f"{point} is reached")
    until(lambda: serves(stage.daemon), "another master serves")
    stage.everybody_again()
    stage.recovered(point)


MASTERS: Mapping[str, Callable[[Stage, str], None]] = {
    **dict.fromkeys(
        ("upgrade.checked", "upgrade.packed", "upgrade.exec", "upgrade.trusted", "upgrade.taken"), upgraded
    ),
    **dict.fromkeys(("adopt.complete", "adopt.known"), adopting),
    **dict.fromkeys(("adopt.orphaned", "adopt.here", "adopt.moved", "adopt.told"), orphaned),
    "adopt.adopted": adopted,
}
