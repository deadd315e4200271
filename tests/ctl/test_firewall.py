"""What is said of a firewall that the caller's own rights and PATH do not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vspcd.ctl import firewall


@pytest.mark.parametrize(
    ("user", "says"), [(0, "neither nft nor iptables is installed"), (1000, "cannot be read by you")]
)
def test_who_is_not_root_need_not_see_the_tools(
    user: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (found,) = firewall.findings(13370)
    assert says in found.text
    assert ("sudo vspcctl doctor" in found.cure) is (user != 0)
