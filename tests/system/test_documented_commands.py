"""The command lines of the documents do what they say, with a daemon and its VMs. ``TOLD_APART`` has the others."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import documents
from tests.documents import Command
from tests.system import processes
from tests.system.daemon import VSPCCTL, VSPCD, Daemon
from tests.system.simulator import PLAIN_SHELL, Simulator
from tests.system.wait import until

WITHIN = 60.0
QUIET, BUSY = 0.5, 10.0
ENDLESS = "endless"
"""It goes on until somebody ends it."""


class Apart(NamedTuple):
    """What becomes of command lines like this: an exit code, ENDLESS, or None for those that are not run, with why."""

    pattern: str
    outcome: object
    why: str


TOLD_APART = (
    Apart(r"vspcctl (log -f|tail) ", ENDLESS, "it follows"),
    Apart(r"vspcctl( --root /tmp/vspc)? simulate .*(10\.1\.2\.3|unix:/tmp/s)", None, "it is for elsewhere"),
    Apart(r"vspcctl --root /tmp/vspc ", None, "another root"),
    Apart(r"vspcctl simulate ", ENDLESS, "VMs stay until they are switched off"),
    Apart(r"vspcd( --root /tmp/vspc)?$", None, "the shared daemon is started so, with another root"),
    Apart(r"vspcctl (lock NAME|kick NAME)", None, "ID is nobody's here; test_sharing.py runs them"),
    Apart(r"vspcctl unlock NAME$", 1, "it is not locked"),
    Apart(r"vspcctl doctor", (0, 1), "it says whether the machine has problems"),
    Apart(r"vspcctl grep .*(oom-killer|I/O error|panic|oops)", (0, 1), "like grep, 1 when nothing is found"),
    Apart(r"vspcctl exec .*--user root", None, "nobody can log in here; test_automation.py does"),
    Apart(r"vspcctl (wait-for|expect) ", None, "it waits for a reboot; test_automation.py runs them"),
    Apart(r"vspcctl import-vspc", None, "it wants vSPC.py's files; test_import_vspc.py has some"),
    Apart(r"vspcctl break (--sysrq sync )?web01$", 2, "nobody can be asked"),
    Apart(r"vspcctl console -e \^A", 0, "a terminal's, but harmless"),
    Apart(r"vspcctl log --boot -1", 3, "there was one boot"),
    Apart(r"vspcctl log --dir DIR", 3, "there is no such folder"),
)  # fmt: skip


def shown(command: Command) -> str:
    return " ".join((command.program, *command.words))


def apart(command: Command) -> Apart:
    return next((each for each in TOLD_APART if re.match(each.pattern, shown(command))), Apart("", 0, ""))


def distinct() -> list[Command]:
    """Those that are shown to be copied, each once, but for those that are not run."""
    found = {shown(each): each for each in documents.commands() if each.whole}
    return [each for each in found.values() if apart(each).outcome is not None]


@pytest.fixture(scope="module")
def estate() -> Iterator[Daemon]:
    """A daemon with the VMs that the documents speak of."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="vspcd-"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        daemon = Daemon(root)
        stack.callback(daemon.clean_up)
        daemon.start()
        stack.enter_context(Simulator(daemon, "web01", "--shell", PLAIN_SHELL))
        for name in ("web02", "db01"):
            stack.enter_context(Simulator(daemon, name))
        uuid = daemon.console("web01")["uuid"]
        stack.enter_context(Simulator(daemon, "web01", "--uuid", uuid, "--label", "gdb"))
        daemon.wait_state(f"{uuid}.gdb", "connected")
        made = daemon.ctl("cert", "--self-signed", "vspc.example.org", "--out", str(root))
        assert made.returncode == 0, made.stderr
        yield daemon
        print(daemon.log())


@pytest.mark.parametrize("command", distinct(), ids=shown)
def test_it_does_what_is_said(command: Command, estate: Daemon, tmp_path: Path) -> None:
    before = estate.status()
    if "--show" in command.words:
        shutil.copy(estate.root / "vspcd-cert.pem", tmp_path)
    process = subprocess.Popen(
        arguments(command, estate),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "VSPCD_ROOT": str(estate.root), "VSPCCTL_PAGER": ""},
    )
    wanted = apart(command).outcome
    try:
        if wanted == ENDLESS:
            output, code = ended(process, estate, shown(command)), 0
        else:
            output, _ = process.communicate(timeout=WITHIN)
            code = process.returncode
    finally:
        process.kill()
        process.wait()
    assert code in (wanted if isinstance(wanted, tuple) else (wanted, 0 if wanted == ENDLESS else wanted)), (
        output
    )
    assert "Traceback" not in output
    assert estate.status()["pid"] == before["pid"]


def arguments(command: Command, estate: Daemon) -> list[str]:
    program = VSPCCTL if command.program == "vspcctl" else VSPCD
    words = ["web01" if word == "NAME" else word for word in command.words]
    if words[:1] == ["simulate"]:
        host, port = estate.proxy
        words += ["--proxy", f"{host}:{port}"]
    return [program, *words]


def ended(process: subprocess.Popen[str], estate: Daemon, shown_: str) -> str:
    """What one says that goes on by itself, until Ctrl-C; it has not ended before."""
    assert process.stdout is not None
    idle = Idle(process.pid)
    until(lambda: process.poll() is not None or idle(), f"{shown_} waits")
    assert process.poll() is None, process.stdout.read()
    assert estate.status()["pid"] == estate.pid
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WITHIN)
    assert process.returncode in (0, 130), output
    return output


class Idle:
    """Whether a process has begun and has nothing more to do, or does the same for ever."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begin = self._changed = time.monotonic()
        self._used = -1.0

    def __call__(self) -> bool:
        now = time.monotonic()
        used = processes.processor_seconds(self._pid)
        if used != self._used:
            self._used, self._changed = used, now
        return now - self._changed > QUIET or now - self._begin > BUSY


def test_every_row_of_the_table_is_about_a_command_line_that_is_shown() -> None:
    lines = [shown(each) for each in documents.commands() if each.whole]
    unused = [each.pattern for each in TOLD_APART if not any(re.match(each.pattern, line) for line in lines)]
    assert unused == []
