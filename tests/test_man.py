"""The manual pages say what the command lines and the table of keys say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

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
def test_a_page_is_as_the_options_are(name: str, generate: ModuleType) -> None:
    assert (MAN / name).read_text(encoding="utf-8") == generate.page(name), "run python man/generate.py"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say_against_it(name: str) -> None:
    command = ["groff", "-man", "-ww", "-Tutf8", "-z", str(MAN / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
