"""A folder for console logs, whose disk is tried again at once after trouble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.logs import Folder
from vspcd.unix import logfile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setattr(logfile, "ROTATE_RETRY", 0.0)
    monkeypatch.setattr(logfile, "RETRY", 0.0)
    made = Folder(tmp_path)
    yield made
    made.close()
