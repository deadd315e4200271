"""forget, reload, stop; errors and exit codes; what a start imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.ctl.conftest import ROOT, UUIDS, Daemon, command, console, environment, has_socket, run
from tests.system.wait import until

Daemons = Callable[..., Daemon]


def test_forget_passes_on_the_daemons_answer(daemons: Daemons) -> None:
    done = daemons(console(1, "web01", state="waiting")).ctl("forget", "web01")
    assert (done.returncode, done.stdout) == (0, "web01 is forgotten\n")


def test_forgetting_a_connected_console_is_refused(web01: Daemon) -> None:
    done = web01.ctl("forget", "web01")
    assert (done.returncode, done.stderr) == (5, "vspcctl: web01 is connected\n")


def test_an_ambiguous_name_lists_the_candidates(daemons: Daemons) -> None:
    done = daemons(console(1, "web01"), console(2, "web02")).ctl("forget", "web")
    assert (done.returncode, "web01" in done.stderr, "web02" in done.stderr) == (3, True, True)


def test_reload_tells_that_it_is_done(web01: Daemon) -> None:
    done = web01.ctl("reload")
    assert (done.returncode, done.stdout) == (0, "reloaded\n")


def test_a_wrong_configuration_is_told_line_by_line(daemons: Daemons) -> None:
    done = daemons(bad=True).ctl("reload")
    assert done.returncode == 1
    assert done.stderr == "vspcctl: the old configuration stays:\nvspcd.yaml:3: lgo: there is no such key\n"


def test_stop_waits_for_the_daemons_end(daemons: Daemons) -> None:
    daemon = daemons(slow=0.5)
    began = time.monotonic()
    done = daemon.ctl("stop")
    assert (done.returncode, done.stdout) == (0, "stopping\n")
    assert time.monotonic() - began >= 0.5
    assert daemon.process.wait(1) == 0


@pytest.mark.parametrize(
    "words", [["status"], ["list"], ["console", "web01"], ["forget", "web01"], ["reload"], ["stop"]]
)
def test_without_a_daemon_every_command_says_how_to_start_it(tmp_path: Path, words: list[str]) -> None:
    done = run("--root", str(tmp_path), *words)
    assert done.returncode == 4
    assert done.stderr == (
        f"vspcctl: the daemon is not running (no socket at {tmp_path}/run/control.sock)\n"
        f"  start it with: vspcd --root {tmp_path}\n"
    )


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(web01: Daemon) -> None:
    web01.end()
    done = web01.ctl("status")
    assert (done.returncode, "nobody answers" in done.stderr) == (4, True)


def test_a_daemon_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        code = (
            "import sys; from vspcd.ctl import client; client.ANSWER_DEADLINE = 0.3\n"
            "from vspcd.ctl.main import main; sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "--socket", path, "status"],
            cwd=ROOT,
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 4
    assert b"has not answered within 0.3 s" in done.stderr


def test_nonsense_from_the_daemon_is_no_traceback(tmp_path: Path) -> None:
    path = str(tmp_path / "mad.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        with subprocess.Popen(
            command("--socket", path, "status"), cwd=ROOT, stderr=subprocess.PIPE
        ) as process:
            connection, _ = listener.accept()
            connection.send(b"\xff\x00nonsense")
            _, errors = process.communicate(timeout=20)
            connection.close()
    assert (process.returncode, b"was not understood" in errors, b"Traceback" in errors) == (1, True, False)


def test_a_denied_socket_is_explained_with_the_group(web01: Daemon) -> None:
    (web01.root / "run" / "control.sock").chmod(0)
    # Root is denied nothing as long as it has these capabilities.
    mortal = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*mortal, *command("--root", str(web01.root), "status")],
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        env=environment(),
        check=False,
        text=True,
    )
    assert done.returncode == 5
    assert "permission denied on" in done.stderr
    assert "sudo usermod -aG" in done.stderr


def test_the_root_can_come_from_the_environment(web01: Daemon) -> None:
    assert run("list", VSPCD_ROOT=str(web01.root)).stdout.startswith("web01\t")


def test_the_root_can_stand_behind_the_command(web01: Daemon) -> None:
    assert run("list", "--root", str(web01.root)).stdout.startswith("web01\t")


def test_a_socket_goes_before_a_root(web01: Daemon, tmp_path: Path) -> None:
    path = str(web01.root / "run" / "control.sock")
    assert run("--root", str(tmp_path / "elsewhere"), "--socket", path, "list").returncode == 0


def test_a_mistyped_command_gets_a_suggestion() -> None:
    done = run("statsu")
    assert done.returncode == 2
    assert "there is no command 'statsu'; did you mean status?" in done.stderr
    assert "_names" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--jsn"], "vspcctl status: there is no option --jsn; did you mean --json?"),
        (["simulate", "--shel=sh"], "vspcctl simulate: there is no option --shel; did you mean --shell?"),
        (["list", "--frobnicate"], "vspcctl list: there is no option --frobnicate\n"),
        (["--json", "status"], "vspcctl status: --json goes behind status"),
        (["status", "web", "01"], "vspcctl status: '01' is one word too many"),
    ],
)
def test_a_word_that_nothing_takes_is_explained(words: list[str], said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)


def test_wrong_usage_points_to_the_help_of_that_command() -> None:
    assert run("status", "--jsn").stderr.endswith("\n(more: vspcctl status --help)\n")


def test_without_a_command_the_commands_are_listed() -> None:
    assert run().stderr.startswith("vspcctl: a command is missing; there are status, ")


@pytest.mark.parametrize("command", ["console", "status", "log", "forget"])
def test_an_empty_name_is_wrong_usage(command: str) -> None:
    done = run(command, "")
    assert (done.returncode, "the name is empty" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [[], ["console"], ["status", "--jso"], ["log", "web01", "-n", "x"], ["console", "a", "--linger", "-1"]],
)
def test_wrong_usage_is_exit_code_two(words: list[str]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_version_is_told() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, "vspcctl 0.1.0\n")


def test_help_lists_commands_and_exit_codes_but_nothing_hidden() -> None:
    shown = run("--help").stdout
    assert all(
        word in shown for word in ("status", "console", "log", "simulate", "exit codes:", "not running")
    )
    assert "_names" not in shown


def test_ctrl_c_ends_without_a_traceback(web01: Daemon) -> None:
    os.kill(web01.process.pid, signal.SIGSTOP)
    with subprocess.Popen(
        command("--root", str(web01.root), "status"), cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        until(lambda: has_socket(process.pid), "it speaks to the daemon")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, b"")


def imported(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", "-m", "vspcd.ctl.main", *words],
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        check=False,
        text=True,
    )
    lines = [
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    ]
    return {line.partition(".")[0] if not line.startswith("vspcd") else line for line in lines}


NEEDLESS = {
    "asyncio",
    "yaml",
    "psutil",
    "subprocess",
    "shutil",
    "hypothesis",
    "logging",
    "tempfile",
    "datetime",
    "unicodedata",
}


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["list"], ["reload"]])
def test_a_short_command_imports_nothing_that_it_does_not_need(web01: Daemon, words: list[str]) -> None:
    found = imported("--root", str(web01.root), *words)
    assert "vspcd.ctl.client" in found
    assert found & NEEDLESS == set()
    assert (
        found
        & {"vspcd.ctl.session", "vspcd.ctl.log", "vspcd.ctl.completion", "vspcd.simulator", "vspcd.config"}
        == set()
    )


def test_a_session_imports_neither_asyncio_nor_yaml(web01: Daemon) -> None:
    found = imported("--root", str(web01.root), "console", "nobody")
    assert "vspcd.ctl.session" in found
    assert found & {"asyncio", "yaml", "psutil", "shutil"} == set()


@pytest.mark.parametrize("words", [["status", "--json"], ["list"], ["reload"], ["completion", "bash"]])
def test_output_that_cannot_be_written_is_told(web01: Daemon, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("--root", str(web01.root), *words),
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=20, env=environment(), check=False,
        )  # fmt: skip
    assert done.stderr == b"vspcctl: the output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("words", "code", "facts"),
    [
        (
            ["list"],
            0,
            {
                "consoles": [
                    {"id": UUIDS[1], "name": "web01", "label": None, "state": "connected", "port": 50001}
                ]
            },
        ),
        (["forget", "web01"], 5, {"error": "web01 is connected"}),
        (["forget", "web02"], 3, {"error": "no console is named web02; did you mean web01?"}),
        (["reload"], 0, {"said": ["reloaded"]}),
        (["stop"], 0, {"said": ["stopping"]}),
        (["break", "web01"], 2, {"error": "nobody can be asked whether it is meant: --yes says so"}),
        (["cert", "--show", "/nowhere"], 1, {"error": "/nowhere: No such file or directory"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_short_commands_for_programs(
    web01: Daemon, words: list[str], code: int, facts: dict[str, object]
) -> None:
    done = web01.ctl(*words, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    assert json.loads(done.stdout) == {"exit": code, "error": None, **facts}


def test_all_that_is_said_is_in_one_list(daemons: Daemons) -> None:
    done = daemons(bad=True).ctl("reload", "--json")
    assert (
        json.loads(done.stdout)["error"]
        == "the old configuration stays:\nvspcd.yaml:3: lgo: there is no such key"
    )
