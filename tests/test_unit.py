"""The systemd unit: what the daemon needs so that its consoles outlive it, and no mistake in the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parent.parent / "conf" / "vspcd.service"


def lines() -> dict[str, str]:
    text = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in text)


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
    ],
)
def test_consoles_outlive_the_main_process(key: str, value: str) -> None:
    assert lines()[key] == value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    text = UNIT.read_text()
    for program in ("/usr/bin/vspcd", "/usr/bin/vspcctl"):
        text = text.replace(program, sys.executable)
    unit = tmp_path / "vspcd.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
