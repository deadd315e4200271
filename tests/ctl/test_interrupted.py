"""Ctrl-C, whenever it comes: no traceback, and the exit code that shells give it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.ctl.conftest import ROOT, Daemon, Terminal, command, environment
from tests.system import processes
from tests.system.wait import until
from vspcd.ctl import failure, main


def interrupted_in(module: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """vspcctl, interrupted when it imports this module, in a place where Python ignores exceptions."""
    code = (
        "import os, sys, weakref, vspcd.ctl.main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            reference = weakref.ref(Interrupted(), lambda _: (os.kill(os.getpid(), 2), None))\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.exit(vspcd.ctl.main.main())\n"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=20,
        check=False,
    )


def listed(daemon: Daemon, code: str) -> subprocess.CompletedProcess[bytes]:
    """``vspcctl list`` in a Python that runs this."""
    return subprocess.run(
        [sys.executable, "-c", code, "--root", str(daemon.root), "list"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    "module",
    ["typing", "argparse", "vspcd.ctl.failure", "vspcd.ctl.commandline", "vspcd.ctl.status", "socket"],
)
def test_an_interrupt_of_the_imports_shows_no_traceback(module: str) -> None:
    done = interrupted_in(module, "status")
    assert (done.returncode, done.stderr) == (130, b"")


def test_what_is_imported_before_an_interrupt_has_its_meaning_is_next_to_nothing() -> None:
    code = (
        "import os, sys; before = set(sys.modules); import vspcd.ctl.main; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, timeout=20, check=True, text=True
    )
    assert set(done.stdout.split()) == {"__future__", "vspcd", "vspcd.ctl", "vspcd.ctl.main"}


def test_an_interrupt_after_the_end_of_a_command_changes_nothing(web01: Daemon) -> None:
    code = (
        "import atexit, os, signal, sys; from vspcd.ctl.main import main\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.exit(main())"
    )
    done = listed(web01, code)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"web01\t")


def test_words_that_nobody_reads_do_not_keep_an_interrupted_command() -> None:
    code = (
        "import os, signal, sys, vspcd.ctl.commands as commands; from vspcd.ctl.main import main\n"
        "def interrupted(_):\n"
        "    os.set_blocking(1, False)\n"
        "    try:\n"
        "        while True: os.write(1, bytes(1))\n"
        "    except BlockingIOError: os.set_blocking(1, True)\n"
        "    sys.stdout.write('nobody reads this')\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "commands.list_consoles = interrupted\n"
        "sys.exit(main())"
    )
    reader, writer = os.pipe()
    buffered = {key: value for key, value in environment().items() if key != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "list"], cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"begun\n"
        until(lambda: process.poll() is not None or defaults_to_the_end(process.pid), "it was interrupted")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def defaults_to_the_end(pid: int) -> bool:
    """Whether a process neither ignores nor handles an interrupt."""
    lines = dict(line.split(":\t", 1) for line in (processes.read(pid, "status") or "").splitlines())
    return not (int(lines["SigIgn"], 16) | int(lines["SigCgt"], 16)) >> (signal.SIGINT - 1) & 1


def test_an_interrupt_of_the_command_itself_is_told_in_its_own_way(
    web01: Daemon, terminals: Callable[..., Terminal]
) -> None:
    terminal = terminals(*command("--root", str(web01.root), "send", "--json", "web01", "-"))
    terminal.see(b"Ctrl-D")
    terminal.until_it_reads()
    terminal.type(b"\x03")
    assert terminal.wait() == 130
    assert b'{"exit": 130, "error": "interrupted"}' in terminal.output
    assert terminal.is_restored


def test_an_interrupt_that_was_ignored_at_the_start_is_ignored_on(web01: Daemon) -> None:
    """As a shell has it for what it starts in the background."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from vspcd.ctl.main import main\n"
        "sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGINT) if event == 'import' else None)\n"
        "sys.exit(main())"
    )
    done = listed(web01, code)
    assert (done.returncode, done.stdout[:6], done.stderr) == (0, b"web01\t", b"")


def test_the_exit_code_of_an_interrupt_is_the_same_everywhere() -> None:
    assert main.INTERRUPTED == failure.INTERRUPTED == 128 + signal.SIGINT
