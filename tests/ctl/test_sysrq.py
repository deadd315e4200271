"""The table of magic SysRq keys."""

from __future__ import annotations

import pytest

from vspcd.ctl import sysrq
from vspcd.ctl.table import display_width


@pytest.mark.parametrize(
    ("text", "key"),
    [("b", "b"), ("B", "b"), (" reboot ", "b"), ("Sync", "s"), ("7", "7"), ("loglevel0", "0")],
)
def test_a_key_is_known_by_itself_and_by_its_name(text: str, key: str) -> None:
    found = sysrq.find(text)
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize("text", ["", "boot", "10", "x", "bb"])
def test_what_is_no_key_is_not_found(text: str) -> None:
    assert sysrq.find(text) is None


def test_keys_and_names_are_unique() -> None:
    known = [name for each in sysrq.TABLE for name in (each.key, each.name)]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("key", "bcefikoru")
def test_what_changes_the_machine_is_not_harmless(key: str) -> None:
    found = sysrq.find(key)
    assert found is not None
    assert not found.harmless


@pytest.mark.parametrize("width", [15, 38, 78, 200])
def test_the_list_has_every_key_and_fits_a_terminal(width: int) -> None:
    lines = sysrq.listed(width)
    assert max(map(display_width, lines)) <= width
    words = " ".join(lines).split()
    assert [each.key for each in sysrq.TABLE if not each.key.isdigit() and each.key not in words] == []
    assert "reboot !" in " ".join(lines)
    assert "sync !" not in " ".join(lines)
