"""exec, expect, wait-for, send and broadcast with the real daemon, real shells, and what gets in their way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.system import processes
from tests.system.conftest import Dial
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.simulator import PLAIN_SHELL, Simulator
from tests.system.test_worker_death import kill_worker
from tests.system.tools import tool
from tests.system.wait import until

SHELLS = {
    "bash": "exec bash --norc -i",
    "plain": PLAIN_SHELL,
    "busybox": "PS1='/ # ' ENV= exec busybox sh -i",
}
GETTY = """\
while :; do
  printf 'web01 login: '; read user; stty -echo; printf 'Password: '; read password; stty echo; echo
  case "$user:$password" in
    root:secret) echo 'Last login: today'; PS1='# ' ENV= sh -i ;;
    *) echo 'Login incorrect' ;;
  esac
done
"""


def started(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [VSPCCTL, "--root", str(daemon.root), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def outcome(daemon: Daemon, *words: str) -> dict[str, Any]:
    done = daemon.ctl(words[0], "--json", *words[1:], timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit"] == done.returncode
    return found


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)
    return str(path)


def getty(daemon: Daemon, tmp_path: Path) -> Simulator:
    script = tmp_path / "getty"
    script.write_text(GETTY)
    return Simulator(daemon, "web01", "--shell", f"exec sh {script}")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_has_its_output_and_its_status(daemon: Daemon, shell: str) -> None:
    tool("busybox")
    with Simulator(daemon, "web01", "--shell", SHELLS[shell]):
        done = daemon.ctl("exec", "web01", "--", "echo one; printf 'two'; exit 3")
        assert (done.returncode, done.stdout) == (3, "one\ntwo")
        text = 'it\'s "x" $HOME `id` \\ ! \t ü ' * 60
        done = daemon.ctl("exec", "web01", "--", "printf", "%s", text)
        assert (done.returncode, done.stdout) == (0, text)
        many = daemon.ctl("exec", "web01", "--", "seq 1 5000")
        assert many.stdout.split() == [str(number) for number in range(1, 5001)]


def test_a_line_that_somebody_has_begun_is_not_executed(daemon: Daemon, root: Path) -> None:
    with Simulator(daemon, "web01", "--shell", PLAIN_SHELL):
        assert daemon.ctl("send", "-n", "web01", f"touch {root}/harm").returncode == 0
        assert daemon.ctl("exec", "web01", "--", "true").returncode == 0
    assert not (root / "harm").exists()


def test_nobody_logged_in_is_told_and_a_login_helps(daemon: Daemon, tmp_path: Path, password: str) -> None:
    with getty(daemon, tmp_path):
        assert daemon.ctl("wait-for", "web01", "login: $", "--replay", "1000").returncode == 0
        done = daemon.ctl("exec", "web01", "--", "true")
        assert done.returncode == 207
        assert "nobody is logged in on web01" in done.stderr
        found = outcome(
            daemon, "exec", "web01", "--user", "root", "--password-file", password, "--", "echo in"
        )
        assert (found["status"], found["output"], found["logged_in"]) == (0, "in\n", True)
        # It has logged out again.
        refused = daemon.ctl("exec", "web01", "--user", "bad", "--password-file", password, "--", "true")
        assert refused.returncode == 207
        assert "has refused the login of bad" in refused.stderr
    assert "secret" not in daemon.log_file("web01").read_text()


def test_a_program_that_runs_gets_no_command(daemon: Daemon) -> None:
    with Simulator(daemon, "web01", "--shell", PLAIN_SHELL):
        daemon.ctl("send", "web01", "cat > /dev/null")
        done = daemon.ctl("exec", "web01", "--timeout", "4", "--", "echo dangerous")
        assert done.returncode == 206
        assert "no shell has answered" in done.stderr
        assert "dangerous" not in daemon.log_file("web01").read_text()


def test_a_command_that_takes_too_long_is_told(daemon: Daemon) -> None:
    with Simulator(daemon, "web01", "--shell", PLAIN_SHELL):
        found = outcome(daemon, "exec", "web01", "--timeout", "2", "--", "sleep 60")
        assert (found["exit"], found["error"]) == (206, "web01: the command has not ended within 2 s")


def interrupted(daemon: Daemon, command: str, before: str = ":") -> tuple[int, str, str]:
    """exec, whose command has said that it runs, at Ctrl-C; what comes ``before`` is done by then."""
    with started(daemon, "exec", "web01", "--", f"{before}; echo begun; echo; {command}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        return ended(process)


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_c_ends_the_command_too(daemon: Daemon, shell: str) -> None:
    with Simulator(daemon, "web01", "--shell", SHELLS[shell]):
        assert interrupted(daemon, "sleep 100; echo never")[::2] == (130, "")
        assert daemon.ctl("exec", "web01", "--", "echo again", timeout=60).stdout == "again\n"


def test_a_command_that_ctrl_c_does_not_end_is_told(daemon: Daemon) -> None:
    with Simulator(daemon, "web01", "--shell", SHELLS["bash"]):
        code, _, err = interrupted(daemon, "sleep 30; trap - INT", "trap '' INT")
    assert (code, err) == (130, "\nvspcctl: the command may still run on web01; look with vspcctl console\n")


def test_a_lock_keeps_commands_out_and_a_command_is_locked_in(daemon: Daemon, root: Path) -> None:
    with Simulator(daemon, "web01", "--shell", PLAIN_SHELL):
        with started(daemon, "console", "web01", "--lock", "--linger", "600") as other:
            daemon.wait_clients("web01", 1)
            for words, code in ((("exec", "web01", "--", "true"), 205), (("send", "web01", "x"), 5)):
                done = daemon.ctl(*words)
                assert (done.returncode, "is locked by" in done.stderr) == (code, True)
            other.kill()
        daemon.wait_clients("web01", 0)
        running = started(daemon, "exec", "web01", "--", "sleep 1")
        until(lambda: ": vspcctl exec" in daemon.ctl("send", "web01", "x").stderr, "exec has the lock")
        assert ended(running)[0] == 0


def test_a_console_without_a_vm_is_told(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01").close()
    daemon.wait_state("web01", "waiting")
    for words, code in (
        (("exec", "web01", "--", "true"), 201),
        (("send", "web01", "x"), 1),
        (("broadcast", "web*", "x"), 3),
        (("send", "web02", "x"), 3),
    ):
        done = daemon.ctl(*words)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""


def waiting(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    process = started(daemon, "wait-for", "web01", "marker [0-9]+", "--timeout", "50", *words)
    daemon.wait_clients("web01", 1)
    return process


def test_what_is_waited_for_is_told(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    vm.send(b"marker 1\r\n")
    process = waiting(daemon)
    vm.send(b"\x1b[1mthe mar")
    vm.send(b"ker 2\x1b[0m is here\r\n")
    assert ended(process) == (0, "the marker 2 is here\n", "")


def test_which_of_several_patterns_came_is_the_exit_code(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    process = started(daemon, "expect", "web01", "good", "bad", "ugly", "--json")
    daemon.wait_clients("web01", 1)
    vm.send(b"so bad\r\n")
    code, out, _ = ended(process)
    found = json.loads(out)
    assert (code, found["number"], found["match"], found["exit"]) == (11, 2, "bad", 11)


def test_what_does_not_come_is_told(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01")
    done = daemon.ctl("wait-for", "web01", "panic", "--timeout", "0.3")
    assert (done.returncode, done.stderr) == (6, "vspcctl: web01: 'panic' was not seen within 0.3 s\n")


def test_a_pattern_that_never_ends_is_ended(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    process = started(daemon, "wait-for", "web01", "(a+)+$", "--timeout", "2")
    daemon.wait_clients("web01", 1)
    vm.send(b"a" * 60 + b"b")
    code, _, err = ended(process)
    assert code == 6
    assert "simplifying" in err


def upgrade(daemon: Daemon) -> None:
    assert daemon.ctl("upgrade", "--workers").returncode == 0


def master_dies(daemon: Daemon) -> None:
    processes.kill(daemon.pid)
    daemon.wait_end()
    daemon.start()


def worker_dies(daemon: Daemon) -> None:
    kill_worker(daemon, "web01")


def both_die(daemon: Daemon) -> None:
    daemon.signal(signal.SIGSTOP)
    worker = daemon_worker(daemon)
    processes.kill(worker)
    processes.kill(daemon.pid)
    daemon.wait_end()
    daemon.start()


def daemon_worker(daemon: Daemon) -> int:
    found = [pid for pid, title in daemon.titles().items() if "web01" in title]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("what", [worker_dies, master_dies, upgrade])
def test_deaths_and_upgrades_break_no_wait(
    daemon: Daemon, dial: Dial, what: Callable[[Daemon], None]
) -> None:
    vm = dial(name="web01")
    process = waiting(daemon)
    vm.send(b"mar")
    what(daemon)
    vm.send(b"ker 7\r\n")
    assert ended(process) == (0, "marker 7\n", "")


def test_a_wait_gets_on_again_when_everybody_has_died(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    process = waiting(daemon)
    both_die(daemon)
    daemon.wait_clients("web01", 1)
    again = daemon.dial(name="web01", uuid=vm.uuid)
    again.send(b"marker 8\r\n")
    assert ended(process) == (0, "marker 8\n", "")
    again.close()


def test_a_worker_that_dies_breaks_no_command(daemon: Daemon) -> None:
    with Simulator(daemon, "web01", "--shell", PLAIN_SHELL):
        process = started(daemon, "exec", "web01", "--", "echo begun; sleep 2; echo done; exit 5")
        until(lambda: b"\nbegun" in daemon.log_file("web01").read_bytes(), "it runs")
        kill_worker(daemon, "web01")
        assert ended(process)[:2] == (5, "begun\ndone\n")


def test_what_is_sent_arrives_as_it_is(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web01")
    assert daemon.ctl("send", "web01", r"a\tb\x03").returncode == 0
    assert vm.read(5) == b"a\tb\x03\r"
    assert daemon.ctl("send", "-n", "web01", "x").returncode == 0
    assert vm.read(1) == b"x"
    with subprocess.Popen(
        [VSPCCTL, "--root", str(daemon.root), "send", "-n", "web01", "-"], stdin=subprocess.PIPE
    ) as piped:
        piped.communicate(b"\x00\\n\xff" * 5000, timeout=30)
    assert piped.returncode == 0
    assert vm.read(20000) == b"\x00\\n\xff" * 5000


def test_a_broadcast_goes_to_those_that_are_meant(daemon: Daemon, dial: Dial) -> None:
    vms = {name: dial(name=name) for name in ("web01", "web02", "db01")}
    found = outcome(daemon, "broadcast", "web*,!web02", "hello")
    assert [(each["name"], each["ok"]) for each in found["results"]] == [("web01", True)]
    done = daemon.ctl("broadcast", "*", "all")
    assert (done.returncode, done.stdout) == (0, "db01: typed\nweb01: typed\nweb02: typed\n")
    assert bytes(vms["web01"].read(10)) == b"hello\rall\r"
    assert bytes(vms["db01"].read(4)) == b"all\r"


def test_a_broadcast_tells_which_console_is_locked(daemon: Daemon, dial: Dial) -> None:
    for name in ("web01", "web02"):
        dial(name=name)
    with started(daemon, "console", "web01", "--lock", "--linger", "600") as other:
        daemon.wait_clients("web01", 1)
        done = daemon.ctl("broadcast", "web*", "x")
        other.kill()
    assert (done.returncode, done.stdout) == (1, "web02: typed\n")
    assert done.stderr.startswith("web01 is locked by")
    assert done.stderr.endswith("vspcctl: typed on 1 of 2 consoles\n")


@pytest.fixture
def stopped(daemon: Daemon) -> Iterator[Callable[[str], None]]:
    """Lets a console's worker take nothing for now."""
    pids: list[int] = []

    def stop(name: str) -> None:
        pids.append(daemon.console(name)["worker"]["pid"])
        os.kill(pids[-1], signal.SIGSTOP)

    yield stop
    for pid in pids:
        with suppress(ProcessLookupError):  # It has been replaced: it hung too long.
            os.kill(pid, signal.SIGCONT)


def test_a_broadcast_waits_for_all_consoles_at_once(
    daemon: Daemon, dial: Dial, stopped: Callable[[str], None]
) -> None:
    vms = [dial(name=f"vm{number}") for number in range(6)]
    for number in (0, 1, 3, 4):
        stopped(f"vm{number}")
    began = time.monotonic()
    done = daemon.ctl("broadcast", "vm*", "hello", "--timeout", "2", timeout=60)
    assert 2 <= time.monotonic() - began < 6
    assert (done.returncode, done.stdout) == (1, "vm2: typed\nvm5: typed\n")
    told = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["vm0", "vm1", "vm3", "vm4", "vspcctl"]
    assert all("the VM has not taken what was typed in time" in line for line in told[:-1])
    assert told[-1] == "vspcctl: typed on 2 of 6 consoles"
    assert vms[2].read(6) == vms[5].read(6) == b"hello\r"


def test_ctrl_c_ends_a_broadcast_with_what_was_done(
    daemon: Daemon, dial: Dial, stopped: Callable[[str], None]
) -> None:
    vms = [dial(name=f"vm{number}") for number in range(3)]
    stopped("vm1")
    with started(daemon, "broadcast", "vm*", "hello", "--timeout", "30") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "vm0: typed\n"
        assert vms[2].read(6) == b"hello\r"
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert (code, out) == (130, "vm2: typed\n")
    assert "vm1: interrupted before the VM had taken it (6 of 6 bytes handed over" in err
    assert err.endswith("vspcctl: interrupted: typed on 2 of 3 consoles\n")
