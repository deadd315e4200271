"""The scripts of docs/state.md and the program of docs/protocol.md work as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.documents import text_of
from tests.system.conftest import StartDaemon
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.wait import until

OTHERS = 'systemctl() { :; }; chown() { :; }; vspcd() { :; }; vspcctl() { "$VSPCCTL" "$@"; }\n'
"""What the scripts ask of a system that is not ours."""

needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3")


def block(page: str, language: str, words: str) -> str:
    """The code block of a page that has these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)
    (found,) = [each for each in blocks if words in each]
    return str(found)


def run(script: str, daemon: Daemon, folder: Path) -> None:
    """With our folders in the place of the system's."""
    for system, ours in (("/var/lib/vspc", "state"), ("/var/log/vspc", "log"), ("/etc/vspcd", "etc/vspcd")):
        script = script.replace(system, str(daemon.root / ours))
    done = subprocess.run(
        ["sh", "-e", "-c", OTHERS + script.replace("DIRECTORY", str(folder)), "backup", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "VSPCD_ROOT": str(daemon.root), "VSPCCTL": VSPCCTL},
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_sqlite3
def test_what_was_backed_up_while_it_ran_is_there_after_a_restore(
    start_daemon: StartDaemon, stack: ExitStack, tmp_path: Path
) -> None:
    daemon = start_daemon()
    (daemon.root / "etc/vspcd").mkdir(parents=True)
    settings = daemon.root / "etc/vspcd/vspcd.yaml"
    settings.write_text("log_level: debug\n")
    vms = [stack.enter_context(daemon.dial(name=f"web{number:02d}")) for number in range(5)]
    vms[0].send(b"said before the backup")
    until(lambda: daemon.log_file(vms[0].console).read_bytes() == b"said before the backup", "it is logged")
    ports = {vm.console: daemon.console(vm.console)["port"] for vm in vms}
    run(block("docs/state.md", "sh", "usage: backup"), daemon, tmp_path)
    listed = json.loads((tmp_path / "status.json").read_text())["consoles"]
    assert {console["id"]: console["port"] for console in listed} == ports
    daemon.stop()
    for lost in ("state/portmap.db", "etc/vspcd/vspcd.yaml"):
        (daemon.root / lost).unlink()
    for file in (daemon.root / "log").iterdir():
        if file.is_file():
            file.unlink()
    restore = block("docs/state.md", "sh", "systemctl stop")
    run(restore.partition("vspcd --check")[0], daemon, tmp_path)  # we start it ourselves
    assert settings.read_text() == "log_level: debug\n"
    daemon.start()
    assert {console["id"]: console["port"] for console in daemon.consoles()} == ports
    with daemon.dial(name="web00", uuid=vms[0].uuid) as vm:
        vm.send(b", and after it")
        log = daemon.log_file(vm.console)
        until(lambda: log.read_bytes() == b"said before the backup, and after it", "the log goes on")


def test_the_program_of_the_protocol_page_lists_consoles(daemon: Daemon) -> None:
    program = block("docs/protocol.md", "python", "SOCK_SEQPACKET")
    with daemon.dial(name="web01"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("/run/vspc/control.sock", str(daemon.control_socket))],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("web01 connected\n", "")
