"""The systemd unit: what the daemon needs so that its consoles outlive it, and no mistake in the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parent.parent / "conf" / "vspcd.service"


def lines() -> dict[str, str]:
    text = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in text)


needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)
EXPOSURE = 15  # tenths


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("TasksMax", "infinity"),
        ("Restart", "on-failure"),
        ("RuntimeDirectory", "vspc"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("WatchdogSec", "30"),
    ],
)
def test_consoles_outlive_the_main_process(key: str, value: str) -> None:
    assert lines()[key] == value


@needs_analyze
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    text = UNIT.read_text()
    for program in ("/usr/bin/vspcd", "/usr/bin/vspcctl"):
        text = text.replace(program, sys.executable)
    unit = tmp_path / "vspcd.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_daemon_is_confined() -> None:
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE}",
        "--no-pager",
        str(UNIT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def calls_of(name: str) -> set[str]:
    """A system call, or all of a group."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    members = [line.strip() for line in done.stdout.splitlines()[1:] if "#" not in line]
    return {call for member in members if member for call in calls_of(member)}


@needs_analyze
@pytest.mark.parametrize("call", ["fchownat", "prlimit64", "setpriority"])
def test_what_the_daemon_does_with_groups_limits_and_priorities_is_allowed(call: str) -> None:
    allowed: set[str] = set()
    for line in UNIT.read_text().splitlines():
        key, _, words = line.partition("=")
        if key == "SystemCallFilter":
            calls = {call for word in words.lstrip("~").split() for call in calls_of(word)}
            allowed = allowed - calls if words.startswith("~") else allowed | calls
    assert call in allowed
    assert "mount" not in allowed


def test_users_and_groups_of_a_directory_are_there_before_it_starts() -> None:
    """One that sockets.group names and nobody knows is a mistake, after which it is not started again."""
    assert "nss-user-lookup.target" in lines()["After"].split()


@needs_analyze
def test_each_confinement_that_is_left_out_is_explained() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--json=short", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    left_out = {line["name"].partition("=")[0] for line in json.loads(done.stdout) if not line["set"]}
    explained = UNIT.read_text().partition("# What is left out, and why:")[2]
    assert [name for name in sorted(left_out) if f"# - {name}=" not in explained] == []
