"""The table of points, the code, and the harness know the same names."""

from __future__ import annotations

import re
from pathlib import Path

from tests.crash.variants import VARIANTS
from vspcd.unix.failpoint import POINTS

ROOT = Path(__file__).resolve().parents[2]
DISKS = ROOT / "tests" / "system" / "test_disk_kills.py"
"""What lies in a log's trouble with its disk needs disks that make trouble."""
REACHED = re.compile(r"\breached\(\s*(?P<names>[^()]*)\)")
NAME = re.compile(r'"([a-z-]+\.[a-z-]+)"')


def used() -> set[str]:
    """The names in all calls of ``reached``; a call may choose between two."""
    files = [*(ROOT / "vspcd").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    calls = (call["names"] for file in files for call in REACHED.finditer(file.read_text(encoding="utf-8")))
    return {name for call in calls for name in NAME.findall(call)}


def visited() -> set[str]:
    elsewhere = DISKS.read_text(encoding="utf-8") if DISKS.exists() else ""
    return {point for variant in VARIANTS.values() for point in variant.points} | {*NAME.findall(elsewhere)}


def test_every_point_of_the_table_is_in_the_code() -> None:
    assert set(POINTS) - used() == set()


def test_every_point_in_the_code_is_in_the_table() -> None:
    assert used() - set(POINTS) == set()


def test_every_point_of_the_table_is_visited_by_some_test() -> None:
    assert set(POINTS) - visited() == set()


def test_every_point_that_is_visited_is_in_the_table() -> None:
    assert {point for variant in VARIANTS.values() for point in variant.points} - set(POINTS) == set()
