"""Forking: what a child keeps, how its end is told."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import Callable

import pytest

from vspcd.unix import process
from vspcd.unix.process import CRASHED, OUT_OF_MEMORY, Child, describe, fork, fork_all

PATIENCE = 20


def status_of(pid: int) -> int:
    """The wait status of a child that ends within the time."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(PATIENCE)
    try:
        return os.waitpid(pid, 0)[1]
    finally:
        signal.alarm(0)


def told(main: Callable[[int], None], keep: frozenset[int] = frozenset()) -> str:
    """What a child writes into a pipe that it keeps."""
    reader, writer = os.pipe()
    pid = fork(lambda: main(writer), {writer, *keep})
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert status_of(pid) == 0
    return text


def wait_for(gate: int) -> Callable[[], None]:
    """What a child does that lives until somebody writes into the gate."""

    def main() -> None:
        os.read(gate, 1)

    return main


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter whose stderr is the real one: pytest has its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_child_keeps_its_descriptors_and_no_other() -> None:
    kept, foreign = socket.socketpair()
    high = os.dup2(foreign.fileno(), 700)

    def main(writer: int) -> None:
        found = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        os.write(writer, " ".join(str(fd) for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")).encode())

    found = {int(word) for word in told(main, frozenset({kept.fileno()})).split()}
    assert kept.fileno() in found
    assert not found & {foreign.fileno(), high}
    assert len(found) == 5  # the standard ones, the kept one, and the pipe
    for end in (kept, foreign):
        end.close()
    os.close(high)


def test_a_child_keeps_no_descriptor_from_above_a_limit_that_was_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    foreign = os.dup2(0, 700)

    def main(writer: int) -> None:
        os.write(writer, str(os.path.lexists(f"/proc/self/fd/{foreign}")).encode())

    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert told(main) == "False"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(foreign)


def test_a_connection_ends_when_the_parent_closes_it_though_a_child_lives() -> None:
    near, far = socket.socketpair()
    gate, opened = os.pipe()
    pid = fork(wait_for(gate), {gate})
    near.close()
    far.settimeout(PATIENCE)
    assert far.recv(1) == b""
    os.write(opened, b"x")
    assert status_of(pid) == 0
    for fd in (gate, opened):
        os.close(fd)
    far.close()


def leave(code: object) -> Callable[[], None]:
    def main() -> None:
        raise SystemExit(code)

    return main


@pytest.mark.parametrize(("code", "status"), [(0, 0), (3, 3), (None, 0), ("words", 1)])
def test_a_child_that_leaves_has_the_status_that_it_said(code: object, status: int) -> None:
    assert os.WEXITSTATUS(status_of(fork(leave(code), set()))) == status


def test_a_child_that_returns_has_ended_well() -> None:
    assert status_of(fork(lambda: None, set())) == 0


def test_a_child_that_crashes_says_so_and_tells_where() -> None:
    done = python(
        "import os\n"
        "from vspcd.unix.process import fork\n"
        "def broken_part():\n"
        "    raise ValueError('it broke')\n"
        "status = os.waitpid(fork(broken_part, set()), 0)[1]\n"
        "print(os.WEXITSTATUS(status))\n"
    )
    assert done.stdout == f"{CRASHED}\n"
    assert "broken_part" in done.stderr
    assert "ValueError: it broke" in done.stderr


def test_a_child_runs_no_exit_handler_of_its_parent() -> None:
    done = python(
        "import atexit, os\n"
        "from vspcd.unix.process import fork\n"
        "atexit.register(print, 'only once')\n"
        "os.waitpid(fork(lambda: None, set()), 0)\n"
    )
    assert done.stdout == "only once\n"


def test_a_child_that_crashes_without_a_stderr_still_says_so_by_its_status() -> None:
    def main() -> None:
        os.close(2)
        raise ValueError("nobody hears")

    assert os.WEXITSTATUS(status_of(fork(main, set()))) == CRASHED


def test_a_child_ignores_what_is_for_the_master() -> None:
    def main(writer: int) -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        os.write(writer, b"alive")

    assert told(main) == "alive"


def test_a_child_dies_of_a_sigterm_whatever_its_parent_does_with_it() -> None:
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        pid = fork(signal.pause, set())
    finally:
        signal.signal(signal.SIGTERM, before)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:  # until the child has put its handlers right
        os.kill(pid, signal.SIGTERM)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_a_child_has_no_garbage_collector() -> None:
    def main(writer: int) -> None:
        os.write(writer, str(gc.isenabled()).encode())

    assert told(main) == "False"
    assert gc.isenabled()


def test_freezing_takes_everything_out_of_the_collectors_reach() -> None:
    done = python(
        "import gc\nfrom vspcd.unix.process import freeze\nfreeze()\nprint(gc.get_freeze_count() > 1000)"
    )
    assert done.stdout == "True\n"


def test_ps_shows_the_name_of_a_child() -> None:
    def main(writer: int) -> None:
        process.name("vspcd: web01 [uuid]")
        with open("/proc/self/cmdline", "rb") as file:
            os.write(writer, file.read().rstrip(b"\0"))

    assert told(main) == "vspcd: web01 [uuid]"


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended"), (3 << 8, "exited with 3"), (70 << 8, "exited with 70"),
     (71 << 8, "ran out of memory"), (9, "killed by SIGKILL"),
     (11 | 0x80, "killed by SIGSEGV")],
)  # fmt: skip
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert describe(status) == words


@pytest.mark.parametrize("number", range(1, signal.NSIG))
def test_every_signal_that_can_kill_has_words(number: int) -> None:
    assert describe(number).startswith("killed by ")


def test_reaping_tells_every_child_that_has_died_and_no_other() -> None:
    gate, opened = os.pipe()
    alive = fork(wait_for(gate), {gate})
    dead = {fork(leave(code), set()): code for code in (0, 5)}
    found: list[tuple[int, str]] = []
    end = time.monotonic() + PATIENCE
    while len(found) < 2 and time.monotonic() < end:
        found += process.reap()
    assert dict(found) == {pid: "ended" if code == 0 else f"exited with {code}" for pid, code in dead.items()}
    os.write(opened, b"x")
    assert status_of(alive) == 0
    for fd in (gate, opened):
        os.close(fd)


def test_reaping_without_children_is_harmless() -> None:
    assert process.reap() == []


def test_killing_one_that_is_gone_is_harmless() -> None:
    pid = fork(lambda: None, set())
    status_of(pid)
    process.kill(pid)


def test_a_fork_that_fails_raises_and_leaves_nothing() -> None:
    done = python(
        "import os, resource\n"
        "from vspcd.unix.process import fork\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "try:\n"
        "    fork(lambda: None, set())\n"
        "except OSError as error:\n"
        "    print('refused')\n"
    )
    assert done.stdout == "refused\n"


def eats(writer: int, size: int) -> Callable[[], None]:
    def main() -> None:
        os.write(writer, b"begins")
        bytearray(size)
        os.write(writer, b" and goes on")

    return main


@pytest.mark.parametrize(
    ("size", "heard", "code"), [(1 << 20, "begins and goes on", 0), (64 << 20, "begins", OUT_OF_MEMORY)]
)
def test_a_child_that_takes_more_memory_than_it_may_ends(size: int, heard: str, code: int) -> None:
    reader, writer = os.pipe()
    pid = fork(eats(writer, size), {writer}, memory=16 << 20)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == heard
    assert os.WEXITSTATUS(status_of(pid)) == code


def test_memory_that_a_child_shares_with_its_parent_does_not_count() -> None:
    ours = bytearray(64 << 20)
    reader, writer = os.pipe()
    pid = fork(eats(writer, 1 << 20), {writer}, memory=16 << 20)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "begins and goes on"
    assert status_of(pid) == 0
    assert len(ours) == 64 << 20


# Many at once.


def numbered(number: int) -> Child:
    """A child whose number tells it from the others."""

    def main() -> None:
        raise SystemExit(number)

    return Child(main, set())


def test_children_that_are_forked_in_a_row_live_each_its_own_life() -> None:
    pids, error = fork_all([numbered(1), numbered(2), numbered(3)])
    assert [os.waitstatus_to_exitcode(status_of(pid)) for pid in pids] == [1, 2, 3]
    assert error is None


def test_children_that_are_forked_in_a_row_keep_only_their_own_descriptors() -> None:
    pipes = [os.pipe() for _ in range(3)]

    def child(ours: int) -> Child:
        def main() -> None:
            mine = [fd for pair in pipes for fd in pair if is_open(fd)]
            raise SystemExit(mine != [ours])

        return Child(main, {ours})

    pids, _ = fork_all([child(writer) for _, writer in pipes])
    assert [status_of(pid) for pid in pids] == [0, 0, 0]
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_when_there_is_no_room_for_all_the_first_ones_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", forks(1))
    pids, error = fork_all([numbered(1), numbered(2), numbered(3)])
    assert [os.waitstatus_to_exitcode(status_of(pid)) for pid in pids] == [1]
    assert isinstance(error, BlockingIOError)


def forks(count: int) -> Callable[[], int]:
    """A fork that works so many times."""
    left, fork_one = iter(range(count)), os.fork

    def forked() -> int:
        if next(left, None) is None:
            raise BlockingIOError("no process")
        return fork_one()

    return forked


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
