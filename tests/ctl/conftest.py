"""A stand-in daemon and a real terminal for vspcctl's tests.

Owns the processes that it starts, and ends them by their ids.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Any, Callable, Optional, Union

import pytest

from vspcd.unix import cputime

PATIENCE = 20.0
UUIDS = [f"5000{number:04x}-0000-0000-0000-000000000000" for number in range(4096)]
ROOT = Path(__file__).resolve().parents[2]

Record = dict[str, Any]


def console(number: int, name: Optional[str], **more: Any) -> Record:
    """A console as the daemon tells of it."""
    label = more.get("label")
    return {
        "id": UUIDS[number] + (f".{label}" if label else ""),
        "uuid": UUIDS[number],
        "label": None,
        "name": name,
        "state": "connected",
        "since": time.time() - 90,
        "peer": "10.1.2.3:55555",
        "port": 50000 + number,
        "socket": f"/run/vspc/{UUIDS[number]}.sock",
        "log": None,
        "worker": {"pid": os.getpid(), "uss": None, "cpu": None},
        "bytes_in": 1234567,
        "bytes_out": 89,
        "clients": [],
        **more,
    }


def status(*consoles: Record, **more: Any) -> Record:
    """A whole status."""
    return {
        "version": "0.1.0",
        "pid": 4711,
        "uptime": 7500.5,
        "listeners": {"proxy": ["127.0.0.1:41000"], "admin": ["127.0.0.1:41001"]},
        "totals": {"connections": 12},
        "consoles": list(consoles),
        **more,
    }


def environment(**more: str) -> dict[str, str]:
    """What vspcctl finds around it: nothing of the user's own settings."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return {**kept, "TERM": "xterm", "LANG": "C.UTF-8", **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "vspcd.ctl.main", *words]


def has_socket(pid: int) -> bool:
    """Whether a process has opened a socket. Its other files may come and go meanwhile."""
    try:
        return any("socket:" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return False


class Daemon:
    """A running stand-in; ``root`` is what vspcctl is given."""

    def __init__(self, root: Path, about: Record) -> None:
        (root / "run").mkdir(parents=True, exist_ok=True)
        self.root = root
        path = root / "run" / "control.sock"
        path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ctl.fake_daemon", str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(about).encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"listening\n"

    def ctl(
        self, *words: str, stdin: Union[bytes, int] = b"", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs vspcctl to its end."""
        return run("--root", str(self.root), *words, stdin=stdin, **env)

    @property
    def typed(self) -> bytes:
        """All that reached a console."""
        path = self.root / "run" / "typed"
        return path.read_bytes() if path.exists() else b""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def run(*words: str, stdin: Union[bytes, int] = b"", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words),
        cwd=ROOT,
        input=stdin if isinstance(stdin, bytes) else None,
        stdin=None if isinstance(stdin, bytes) else stdin,
        capture_output=True,
        timeout=PATIENCE,
        env=environment(**env),
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()
    )


class Terminal:
    """A command on a real pty, as its session's leader."""

    def __init__(self, words: Sequence[str], width: int = 80, **env: str) -> None:
        self.fd, self.user_side = os.openpty()
        ioctl(self.user_side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.settings = termios.tcgetattr(self.user_side)
        self.output = b""
        self.process = subprocess.Popen(
            list(words),
            cwd=ROOT,
            stdin=self.user_side,
            stdout=self.user_side,
            stderr=self.user_side,
            env=environment(**env),
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def see(self, wanted: Union[bytes, re.Pattern[bytes]]) -> bytes:
        """Waits for some output; gives all output up to its end and takes it away."""
        pattern = re.compile(re.escape(wanted)) if isinstance(wanted, bytes) else wanted
        deadline = time.monotonic() + PATIENCE
        while True:
            match = pattern.search(self.output)
            if match:
                seen, self.output = self.output[: match.end()], self.output[match.end() :]
                return seen
            assert time.monotonic() < deadline, f"no {pattern.pattern!r} in {self.output!r}"
            self._read(0.1)

    def _read(self, seconds: float) -> None:
        if select.select([self.fd], [], [], seconds)[0]:
            self.output += os.read(self.fd, 65536)

    def wait(self) -> int:
        """The exit code; a signal's is negative. Reads what comes meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.output!r}"
            self._read(0.02)
        while select.select([self.fd], [], [], 0)[0]:
            self._read(0)
        return self.process.returncode

    def watch(self, seconds: float) -> bytes:
        """All that is shown and not taken away yet, when this time is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(left)
        return self.output

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not so in time: {self.output!r}"
            self._read(0.02)

    def until_it_reads(self) -> None:
        """Waits until it sleeps: Python loses a signal that comes just before it reads."""
        self.until(lambda: cputime.state_of(self.process.pid) == "S")

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.user_side) == self.settings

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.user_side)[3] & (termios.ICANON | termios.ECHO)

    def close(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.fd)
        os.close(self.user_side)


@pytest.fixture(autouse=True)
def ctrl_c_works() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored, and what they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts stand-ins: called with consoles and further fields of the status."""
    started: list[Daemon] = []

    def start(*consoles: Record, **more: Any) -> Daemon:
        started.append(Daemon(tmp_path / "root", status(*consoles, **more)))
        return started[-1]

    yield start
    for daemon in started:
        daemon.end()


@pytest.fixture
def web01(daemons: Callable[..., Daemon]) -> Daemon:
    """A stand-in with one console, web01."""
    return daemons(console(1, "web01"))


@pytest.fixture
def terminals() -> Iterator[Callable[..., Terminal]]:
    """Runs commands on terminals of their own."""
    opened: list[Terminal] = []

    def start(*words: str, width: int = 80, **env: str) -> Terminal:
        opened.append(Terminal(words, width, **env))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()
