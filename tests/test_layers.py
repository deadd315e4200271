"""Reads every import of the product and fails on one that points up.

Owns the table of layers. Never imports what it reads, so that a broken module is still checked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The longest name that fits a module decides. A module may import its own layer and lower ones.
LAYERS = {
    "vspcd": 0,
    "vspcd.proto": 0,
    "vspcd.core": 1,
    "vspcd.unix": 2,
    "vspcd.portmap": 3,
    "vspcd.config": 3,
    "vspcd.config_access": 3,
    "vspcd.config_automation": 3,
    "vspcd.config_backend": 3,
    "vspcd.config_schema": 3,
    "vspcd.config_values": 3,
    "workers": 4,
    "vspcd.master": 5,
    "vspcd.ctl": 5,
    "vspcd.simulator": 5,
    "vspcd.ctl.main": 6,
    "vspcd.daemon": 6,
    "vspcd.demo": 6,
    "vspcd.__main__": 6,
}

# What a folder may not import, whatever its layer: the reason that it exists.
FORBIDDEN = {
    "vspcd.proto": {"asyncio", "fcntl", "os", "pathlib", "select", "signal", "socket", "subprocess", "time"},
    "vspcd.core": {"asyncio", "fcntl", "os", "select", "signal", "socket", "subprocess", "time"},
    "vspcd.ctl": {"vspcd.master", "workers"},
    "vspcd.simulator": {"vspcd.master", "vspcd.core", "workers"},
    "vspcd.master": {"asyncio", "vspcd.ctl", "vspcd.simulator", "vspcd.proto.telnet"},
    "workers": {"asyncio"},
    "vspcd": {"pickle", "threading", "concurrent.futures"},
}


class Import(NamedTuple):
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return sorted([*(ROOT / "vspcd").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])


def imports(text: str, module: str, package: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            yield from (Import(module, target(source, alias.name), node.lineno) for alias in node.names)


def imports_of_file(path: Path) -> Iterator[Import]:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imports(path.read_text(encoding="utf-8"), module, package)


def target(source: str, name: str) -> str:
    """The module behind `from source import name`: a submodule where there is one."""
    place = ROOT.joinpath(*source.split("."), name)
    return f"{source}.{name}" if place.with_suffix(".py").exists() or place.is_dir() else source


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room(module: str) -> str:
    """The row that decides for a module. What stands beside master.py and has no row is a part of it."""
    fitting = max((row for row in LAYERS if within(module, row)), key=len)
    beside_master = fitting == "vspcd" and module.count(".") == 1
    return "vspcd.master" if beside_master else fitting


def layer(module: str) -> int:
    return LAYERS[room(module)]


def ours(module: str) -> bool:
    return within(module, "vspcd") or within(module, "workers")


@cache
def all_imports() -> list[Import]:
    """Read once: there is more to read than to check."""
    return [found for path in sources() for found in imports_of_file(path)]


def upward(found: Import) -> bool:
    return ours(found.imported) and layer(found.imported) > layer(found.importer)


def test_imports_only_point_down() -> None:
    assert [str(i) for i in all_imports() if upward(i)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import workers.shell",
        "from vspcd.core import journal",
        "from ..core import journal",
        "from vspcd import unix",
        "def f():\n    import vspcd.unix.loop",
    ],
)
def test_an_upward_import_in_the_lowest_layer_is_seen(line: str) -> None:
    assert [upward(i) for i in imports(line, "vspcd.proto.telnet", "vspcd.proto")] == [True]


def test_every_module_has_a_layer() -> None:
    names = [module_name(path) for path in sources()]
    assert [name for name in names if room(name) == "vspcd" and name != "vspcd"] == []


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_folder_imports_nothing_that_it_must_do_without(package: str) -> None:
    wrong = [
        str(i)
        for i in all_imports()
        if within(i.importer, package) or within(room(i.importer), package)
        if any(within(i.imported, name) for name in FORBIDDEN[package])
        if layer(i.importer) < LAYERS["vspcd.daemon"] or package == "vspcd"
    ]
    assert wrong == []
