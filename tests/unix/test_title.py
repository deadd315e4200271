"""The name of a process, and what finding out how to set it must not bring along."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder
from types import SimpleNamespace

import pytest

from vspcd.unix import title

UNWANTED = {"logging", "threading", "shutil", "lzma", "bz2", "ctypes"}


def modules(code: str) -> set[str]:
    """What a fresh interpreter has read after this code."""
    code = f"{code}; import sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        ).stdout.split()
    )


def test_the_daemon_reads_nothing_that_costs_each_worker_something() -> None:
    read = modules("from vspcd import daemon; daemon.parser().parse_args([])")
    assert "workers.vmware" in read
    assert UNWANTED.isdisjoint(read)


def test_the_name_is_shown() -> None:
    code = (
        "from vspcd.unix.title import set_title; set_title('web01'); print(open('/proc/self/cmdline').read())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert shown.rstrip("\0\n") == "web01"


def test_a_library_without_that_module_is_used_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = PathFinder.find_spec

    def without(name: str, path: object = None) -> object:
        return None if name == title.MODULE else found(name, path)  # type: ignore[arg-type]

    library = SimpleNamespace(setproctitle=lambda _name: None)
    monkeypatch.setattr(title, "PathFinder", SimpleNamespace(find_spec=without))
    monkeypatch.setitem(sys.modules, title.PACKAGE, library)
    assert title.found() is library.setproctitle
