"""The manual pages say what the command lines and the table of keys say."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

from vspcd import config, daemon
from vspcd.ctl import commandline

MAN = Path(__file__).resolve().parent.parent / "man"
PAGES = ("vspcd.8", "vspcctl.1", "vspcd.yaml.5")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = util.spec_from_file_location("generate", MAN / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_each_option_and_key(name: str, generate: ModuleType) -> None:
    parsers = {"vspcd.8": [daemon.parser()], "vspcctl.1": commands()}.get(name, [])
    options = {option for parser in parsers for action in parser._actions for option in shown(action)}
    words = options | ({key.name for key in config.describe()} if name == "vspcd.yaml.5" else set())
    page = generate.page(name)
    assert len(words) > 5
    assert [word for word in sorted(words) if generate.escaped(word) not in page] == []


def commands() -> list[argparse.ArgumentParser]:
    parser = commandline.build_parser(list(commandline.COMMANDS))
    return [parser, *commandline.subparsers(parser).values()]


def shown(action: argparse.Action) -> list[str]:
    return [] if action.help == argparse.SUPPRESS else list(action.option_strings)


def test_the_program_writes_all_pages(tmp_path: Path, generate: ModuleType) -> None:
    generate.write(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        name: generate.page(name) for name in PAGES
    }


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say_against_it(name: str, tmp_path: Path, generate: ModuleType) -> None:
    generate.write(tmp_path)
    command = ["groff", "-man", "-ww", "-Tutf8", "-z", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
