"""For all tests: hypothesis judges results, not the speed of a machine that others use too; bytecode is kept; what
stays for ever is looked for no more.

Does: sets up hypothesis, signals and the collector; the stage that the tests of the master's parts play on.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.stage import Stage

settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# A job in the background ignores them, and so would all that it starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# Thousands of daemons and tools are started: each would compile all that it reads.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end; tests that collect garbage need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    from tests.stage import Stage  # with all of the master, which most tests can do without

    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
