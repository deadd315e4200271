"""The master without room for a TLS helper: it says so and goes on, and the next connection has one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.stage import Stage
from vspcd.tlshelpers import TlsHelpers
from vspcd.unix import process


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Its certificate is none, which is for the helpers to find out."""
    made = Stage(tmp_path, monkeypatch, f"tls.certificate={tmp_path}/none.pem")
    made.bury_helpers()
    yield made
    made.close()


def no_room(*_arguments: object) -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@pytest.mark.parametrize(
    "begin",
    [TlsHelpers.start, TlsHelpers.renew, lambda tls: tls.reload(tls._config)],
    ids=["start", "upgrade --workers", "reload"],
)
def test_without_room_for_a_helper_the_master_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, begin: Callable[[TlsHelpers], None]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(process, "fork", no_room)
        begin(stage.master.tls)
    assert not stage.master.tls.helpers
    stage.master.reload()
    assert len(stage.master.tls.helpers) == 1
