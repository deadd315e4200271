"""Fixtures of the tests of packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.rpms import MISSING, Packages
from tests.system.conftest import daemon, dial, root, stack, start_daemon

__all__ = ["daemon", "dial", "packages", "root", "stack", "start_daemon"]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Packages:
    """Built once for all processes of a run: with xdist, the folder above is theirs together."""
    if MISSING:
        pytest.skip(f"there is no {', '.join(MISSING)}")
    base = tmp_path_factory.getbasetemp()
    shared: Path = base.parent if hasattr(request.config, "workerinput") else base
    folder = shared / "packages"
    folder.mkdir(exist_ok=True)
    return Packages(folder)
