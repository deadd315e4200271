"""A whole run at tiny sizes, with the relay and vspcd: everything is measured, and no byte is wrong."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.trials import TRIALS

SIZES = ("--rounds", "1", "--many-rounds", "1", "--seconds", "0.05", "--vms", "3", "--idle", "1")


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: sockets' names have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def run(folder: Path, *words: str) -> list[dict[str, Any]]:
    """The samples of a run."""
    assert main([*SIZES, "--folder", str(folder), "--out", str(folder / "out"), *words]) == 0
    samples: list[dict[str, Any]] = json.loads((folder / "out" / "performance.json").read_text())["samples"]
    return samples


@pytest.mark.parametrize("trial", [trial.key for trial in TRIALS])
def test_a_trial_measures_both_and_finds_no_flaw(trial: str, folder: Path) -> None:
    samples = run(folder, "--servers", "relay,vspcd", "--only", trial)
    assert [sample["server"] for sample in samples] == ["relay", "vspcd"]
    for sample in samples:
        assert (sample["failed"], sample["flaws"]) == ("", [])
        assert sample["figures"]
    assert not list(folder.glob("vspcd-bench-*")), "the temporary folder is left"


def test_the_table_has_both_and_their_ratio(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "--servers", "relay,vspcd", "--only", "typing")
    lines = (folder / "out" / "performance.md").read_text().splitlines()
    assert any(line.startswith("|  | relay | vspcd | ours / relay | wanted | reached |") for line in lines)
    assert any(line.startswith("| client → VM, MB/s | ") for line in lines)
    assert "client → VM, MB/s" in capsys.readouterr().out


def test_an_unknown_trial_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "sprint"]) == 2
    assert "no trial sprint; there are stream-1-off" in capsys.readouterr().err


def test_no_compiler_is_an_error_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["--servers", "relay", "--folder", str(folder)]) == 1
    assert "apt-get install gcc" in capsys.readouterr().err
