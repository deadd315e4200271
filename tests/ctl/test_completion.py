"""Completion scripts: they work in their shells, and a console's name is never evaluated."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import ROOT, UUIDS, Daemon, command, console, environment, run

Daemons = Callable[..., Daemon]

COMPLETE = """
source /dev/stdin <<'SCRIPT'
{script}
SCRIPT
COMP_WORDS=({words})
COMP_CWORD={cword}
_vspcctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """A directory with a vspcctl in it, for PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    tool = directory / "vspcctl"
    tool.write_text(f'#!/bin/sh\ncd {ROOT} && exec {" ".join(command())} "$@"\n')
    tool.chmod(0o755)
    return directory


def completed(bin_directory: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    script = COMPLETE.format(
        script=run("completion", "bash").stdout,
        words=" ".join(f"'{word}'" for word in ("vspcctl", *words)),
        cword=len(words),
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(PATH=f"{bin_directory}:{os.environ['PATH']}"),
        check=True,
        cwd=bin_directory,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_commands_are_completed(bin_directory: Path) -> None:
    assert completed(bin_directory, "sta") == ["status"]


def test_options_of_a_command_are_completed(bin_directory: Path) -> None:
    assert completed(bin_directory, "status", "--j") == ["--json"]


def test_names_of_consoles_are_completed(bin_directory: Path, daemons: Daemons) -> None:
    root = str(daemons(console(1, "web01"), console(2, "web02"), console(3, "db")).root)
    assert completed(bin_directory, "--root", root, "console", "we") == ["web01", "web02"]


@pytest.mark.parametrize("command", ["grep", "tail", "replay", "unpark"])
def test_each_command_that_takes_names_completes_them(
    bin_directory: Path, daemons: Daemons, command: str
) -> None:
    root = str(daemons(console(1, "web01")).root)
    assert completed(bin_directory, "--root", root, command, "we") == ["web01"]


def test_without_a_daemon_nothing_is_completed_quietly(bin_directory: Path, tmp_path: Path) -> None:
    assert completed(bin_directory, "--root", str(tmp_path), "console", "we") == [""]


def test_a_name_is_never_evaluated_by_the_shell(bin_directory: Path, daemons: Daemons) -> None:
    evil = "x$(touch pwned)`touch pwned`;touch pwned"
    root = str(daemons(console(1, evil)).root)
    (offered,) = completed(bin_directory, "--root", root, "console", "x")
    again = subprocess.run(
        ["/bin/bash", "-c", f"printf %s {offered}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=bin_directory,
    )
    assert again.stdout == evil
    assert not (bin_directory / "pwned").exists()


def test_names_that_say_nothing_or_too_much_give_way_to_ids(daemons: Daemons) -> None:
    daemon = daemons(
        console(1, "twin"), console(2, "twin"), console(3, None), console(4, "a\nb"), console(5, "web01")
    )
    assert daemon.ctl("_names").stdout.split("\n")[:-1] == [*UUIDS[1:5], "web01"]


def test_labelled_ports_are_offered_with_their_label(daemons: Daemons) -> None:
    assert daemons(console(1, "db", label="com2")).ctl("_names").stdout == "db.com2\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    script = run("completion", shell).stdout
    assert [
        c for c in ("status", "console", "log", "grep", "tail", "replay", "simulate") if c not in script
    ] == []
    assert [o for o in ("json", "read-only", "timestamps", "since", "root") if o not in script] == []
    assert "_names" in script
    assert "SUPPRESS" not in script


def test_an_unknown_shell_is_wrong_usage() -> None:
    assert run("completion", "tcsh").returncode == 2
