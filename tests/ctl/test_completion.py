"""Completion scripts: they work in their shells, and a console's name is never evaluated."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import ROOT, UUIDS, Daemon, Terminal, command, console, environment, run
from tests.system.tools import tool

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


VALUES = [
    (["top", "--sort", "tr"], ["traffic"]),
    (["console", "--mode", "ex"], ["exclusive"]),
    (["grep", "--since", "yes"], ["yesterday"]),
    (["log", "--export", "a"], ["asciicast"]),
    (["break", "--sysrq", "sy"], ["sync"]),
    (["simulate", "--vmotion", "cro"], ["crossing"]),
    (["completion", "z"], ["zsh"]),
    (["log", "--output", "FI"], ["FILE"]),
    (["import-vspc", "FI"], ["FILE"]),
    (["log", "--dir", "FO"], ["FOLDER/"]),
    (["exec", "--timeout", "1"], []),
    (["doctor", "--js"], ["--json"]),
    (["sta"], ["status"]),
]


@pytest.fixture
def place(bin_directory: Path) -> Path:
    """The directory that the shells are in, with something to be completed."""
    (bin_directory / "FILE").touch()
    (bin_directory / "FOLDER").mkdir()
    return bin_directory


@pytest.mark.parametrize(("words", "offered"), VALUES, ids="-".join)
def test_values_are_completed_in_bash(place: Path, words: list[str], offered: list[str]) -> None:
    assert completed(place, *words) == ([one.rstrip("/") for one in offered] or [""])


def test_an_option_is_another_one_in_another_command(place: Path, daemons: Daemons) -> None:
    """-n is --lines of top, and --no-enter of send."""
    root = str(daemons(console(1, "web01")).root)
    assert completed(place, "--root", root, "send", "-n", "we") == ["web01"]
    assert completed(place, "--root", root, "top", "-n", "we") == [""]


def in_fish(place: Path, line: str) -> list[str]:
    """What fish offers for the end of a line, without the descriptions."""
    script = run("completion", "fish").stdout
    (place / "vspcctl.fish").write_text(script)
    done = subprocess.run(
        [tool("fish"), "--no-config", "-c", 'source vspcctl.fish; complete -C "$argv"', line],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(PATH=f"{place}:{os.environ['PATH']}", HOME=str(place)),
        check=True,
        cwd=place,
    )
    assert done.stderr == ""
    return [each.partition("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.parametrize(("words", "offered"), VALUES, ids="-".join)
def test_values_are_completed_in_fish(place: Path, words: list[str], offered: list[str]) -> None:
    assert in_fish(place, " ".join(["vspcctl", *words])) == offered


def test_names_are_completed_in_fish(place: Path, daemons: Daemons) -> None:
    root = str(daemons(console(1, "web01"), console(2, "web $(touch pwned)"), console(3, "db")).root)
    assert in_fish(place, f"vspcctl --root {root} console we") == ["web $(touch pwned)", "web01"]
    assert in_fish(place, f"vspcctl --root {root} tail d") == ["db"]
    assert in_fish(place, f"vspcctl --root {place} console we") == []
    assert not (place / "pwned").exists()


class Zsh:
    """A zsh at a terminal, which tells what is on its line at Ctrl-O."""

    def __init__(self, place: Path, terminals: Callable[..., Terminal]) -> None:
        (place / "_vspcctl").write_text(run("completion", "zsh").stdout)
        (place / ".zshrc").write_text(
            "PS1='> '; unsetopt beep; autoload -Uz compinit; compinit -D -u; source $HOME/_vspcctl; cd $HOME\n"
            'tell() { print -r -- "LINE<$BUFFER>"; BUFFER=; zle reset-prompt }\n'
            "zle -N tell; bindkey '^O' tell; print READY\n"
        )
        env = {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place), "ZDOTDIR": str(place)}
        self._terminal = terminals(tool("zsh"), "-d", "-i", width=200, **env)
        self._terminal.see(b"READY")
        self._terminal.see(b"> ")

    def completed(self, line: str) -> str:
        """The line after a Tab."""
        self._terminal.type(line.encode() + b"\t\x0f")
        seen = self._terminal.see(re.compile(rb"LINE<([^\r\n]*)>\r"))
        return seen.rpartition(b"LINE<")[2].decode()[:-2]


@pytest.fixture
def zsh(place: Path, terminals: Callable[..., Terminal]) -> Zsh:
    return Zsh(place, terminals)


def test_values_are_completed_in_zsh(zsh: Zsh) -> None:
    for words, offered in VALUES:
        line = " ".join(["vspcctl", *words])
        done = zsh.completed(line)
        assert done.rstrip() == " ".join(["vspcctl", *words[:-1], *(offered or words[-1:])]), line


def test_names_are_completed_in_zsh(zsh: Zsh, daemons: Daemons, place: Path) -> None:
    root = str(daemons(console(1, "web01"), console(2, "evil $(touch pwned)"), console(3, "db")).root)
    assert zsh.completed(f"vspcctl --root {root} console we") == f"vspcctl --root {root} console web01 "
    assert zsh.completed(f"vspcctl --root {root} send -n we") == f"vspcctl --root {root} send -n web01 "
    assert zsh.completed(f"vspcctl --root {root} console ev") == (
        f"vspcctl --root {root} console evil\\ \\$\\(touch\\ pwned\\) "
    )
    assert zsh.completed(f"vspcctl --root {place} console we") == f"vspcctl --root {place} console we"
    assert not (place / "pwned").exists()


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
