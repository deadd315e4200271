"""What a command imports before it does anything: the start is most of the time that a short command takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.ctl.conftest import ROOT
from vspcd.ctl.commandline import COMMANDS, HIDDEN

HEAVY = frozenset(
    {
        "asyncio",
        "base64",
        "concurrent.futures",
        "ctypes",
        "dataclasses",
        "datetime",
        "decimal",
        "email",
        "hashlib",
    }
    | {
        "hmac",
        "html",
        "http",
        "inspect",
        "ipaddress",
        "logging",
        "multiprocessing",
        "pathlib",
        "pickle",
        "platform",
    }
    | {"psutil", "pydoc", "queue", "random", "rich", "secrets", "setproctitle", "shutil", "sqlite3", "ssl"}
    | {"statistics", "string", "subprocess", "tempfile", "textwrap", "threading", "traceback", "unicodedata"}
    | {"unittest", "urllib", "urllib.parse", "urllib.request", "uuid", "xml", "yaml", "zipfile"}
)
PROCESSES = {"subprocess", "threading"}
NEEDED = {
    "cert": (PROCESSES | {"base64", "datetime", "hashlib", "ipaddress", "pathlib", "random", "shutil", "tempfile"}
             | {"urllib", "urllib.parse"}, "it runs openssl over files of its own, and reads certificates"),
    "doctor": (PROCESSES, "it asks the tools of the firewall"),
    "grep": (PROCESSES | {"datetime"}, "it runs ripgrep; --since is in human terms"),
    "import-vspc": ({"dataclasses", "inspect", "ipaddress", "urllib", "urllib.parse"},
                    "it is used once, and reads what the daemon reads too"),
    "log": ({"datetime"}, "--since is in human terms"),
    "replay": ({"datetime"}, "--since is in human terms"),
    "simulate": (HEAVY, "it is a program of its own, and runs until it is ended"),
    "tail": ({"ctypes", "datetime"}, "inotify; --since is in human terms"),
}  # fmt: skip
"""The commands that may import some of these, and why."""

MODULES = """
import sys
from importlib import import_module
from vspcd.ctl import main
from vspcd.ctl.commandline import COMMANDS, HIDDEN, build_parser
name = sys.argv[1]
build_parser([name])
if sys.argv[2] == "command":
    import_module({**COMMANDS, **HIDDEN}[name].module)
print(*sys.modules)
"""


def modules(name: str, part: str) -> set[str]:
    """What is loaded before a command runs, or before its options are read; without what the site's own files load."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", MODULES, name, part],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=20,
        check=True,
        text=True,
    )
    found = set(done.stdout.split())
    assert "vspcd.ctl.commandline" in found
    return found


@pytest.mark.parametrize("name", [*COMMANDS, *HIDDEN])
def test_a_command_loads_nothing_heavy_without_a_reason(name: str) -> None:
    allowed, _ = NEEDED.get(name, (frozenset(), ""))
    assert modules(name, "command") & HEAVY - allowed == set()


@pytest.mark.parametrize("name", [*COMMANDS, *HIDDEN])
def test_options_and_their_help_need_nothing_heavy(name: str) -> None:
    assert modules(name, "options") & HEAVY == set()


def test_all_options_together_need_nothing_heavy() -> None:
    """The completion scripts are made of them."""
    code = "import sys; from vspcd.ctl.main import main; main(['completion', 'bash']); print('END', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        check=True,
        text=True,
    )
    found = set(done.stdout.rpartition("END ")[2].split())
    assert "vspcd.simulator.options" in found
    assert found & HEAVY == set()
