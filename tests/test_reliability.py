"""The table of what is required and how it is shown: each test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
TEXT = (HOME / "docs" / "reliability.md").read_text()
TABLES = ("## Attacks", "## Faults")
NAMED = re.compile(r"`((?:tests/\w+/|tests/)?test_\w+\.py)(?:::(test_\w+))?`( \(long)?")


def rows(heading: str) -> list[str]:
    section = TEXT.partition(f"{heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def place(name: str) -> Path:
    return HOME / (name if name.startswith("tests/") else f"tests/system/{name}")


@cache
def functions(path: Path) -> dict[str, bool]:
    """The tests of a file, and whether each is marked long."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return {
        node.name: any("mark.long" in ast.unparse(mark) for mark in node.decorator_list) for node in found
    }


@pytest.mark.parametrize("heading", TABLES)
def test_each_row_names_a_test(heading: str) -> None:
    assert len(rows(heading)) > 10
    assert [row for row in rows(heading) if not NAMED.search(row)] == []


def test_each_test_that_is_named_exists() -> None:
    named = [(file, function) for file, function, _ in NAMED.findall(TEXT)]
    missing = [file for file, _ in named if not place(file).exists()]
    assert missing == []
    assert [(f, name) for f, name in named if name and name not in functions(place(f))] == []


def test_tests_that_take_minutes_are_said_to() -> None:
    said = {(file, name): bool(long) for file, name, long in NAMED.findall(TEXT) if name}
    wrong = [(file, name) for (file, name), long in said.items() if functions(place(file))[name] and not long]
    assert wrong == []
