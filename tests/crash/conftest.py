"""Daemons whose processes can be made to fail, one per variant for as long as it is well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import pytest

from tests.crash.variants import VARIANTS, FailingDaemon

Visit = Callable[[str, Sequence[str], int], None]


@pytest.fixture(scope="session")
def daemons() -> Iterator[dict[str, FailingDaemon]]:
    running: dict[str, FailingDaemon] = {}
    yield running
    for daemon in running.values():
        daemon.end()


@pytest.fixture
def visit(daemons: dict[str, FailingDaemon]) -> Visit:
    """visit(variant, points, kills): a daemon that has failed once is not used again."""

    def go(variant: str, points: Sequence[str], kills: int) -> None:
        daemon = daemons.pop(variant, None) or started(variant)
        begins = len(daemon.log())
        try:
            daemon.visit(points, f"{variant} {points[0]}", kills)
            daemons[variant] = daemon
        finally:
            if variant not in daemons:
                print(daemon.log()[begins:])
                daemon.end()

    return go


def started(variant: str) -> FailingDaemon:
    daemon = FailingDaemon(VARIANTS[variant])
    daemon.start()
    return daemon
