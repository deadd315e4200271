"""The load generators' side of Python: run one with the sockets that are connected already.

Does: hands sockets over, reads the answer, says what was wrong with the bytes. Owns the generators' processes.
Never looks at a clock of its own: the generators do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from bench.build import Programs

MB = 1e6
DEADLINE = 60.0
BIG = 1 << 40


class LoadFailed(Exception):
    """A generator did not do its work; the text is what it said."""


def _generator(command: Sequence[str], socks: Sequence[socket.socket], **more: Any) -> subprocess.Popen[str]:
    for sock in socks:
        sock.setblocking(True)
        os.set_inheritable(sock.fileno(), True)
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[sock.fileno() for sock in socks],
        **more,
    )


def _answer(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    try:
        told, failed = process.communicate(timeout=seconds + DEADLINE)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode:
        raise LoadFailed(failed.strip() or f"the generator ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(told)
    return answer


class Stream:
    """A VM, or a client, that says all it can, to be heard by all ``sinks``. A context: its end kills it."""

    def __init__(
        self,
        programs: Programs,
        source: socket.socket,
        sinks: Sequence[socket.socket],
        seconds: float,
        limit: int = BIG,
    ) -> None:
        self._seconds = seconds
        numbers = [str(sock.fileno()) for sock in (source, *sinks)]
        command = [programs.load, "stream", str(seconds), str(limit), *numbers]
        self._process = _generator(command, (source, *sinks))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def result(self) -> dict[str, Any]:
        """When the last byte has come, or none comes any more: said, heard, lost, wrong_at, seconds."""
        return _answer(self._process, self._seconds)

    def stop(self) -> dict[str, Any]:
        """Say no more; the result."""
        self._process.terminate()
        return self.result()


def to_log(
    programs: Programs, source: socket.socket, log: Path, seconds: float, limit: int
) -> dict[str, Any]:
    """A VM whose words go to the log alone; the log's end is waited for and its bytes are checked."""
    command = [programs.load, "tolog", str(seconds), str(limit), str(source.fileno()), str(log)]
    return _answer(_generator(command, (source,)), seconds)


def verify(programs: Programs, log: Path, begin: int, size: int) -> dict[str, Any]:
    """Whether the log has the pattern there."""
    return _answer(_generator([programs.load, "verify", str(log), str(begin), str(size)], ()), DEADLINE)


def echo(
    programs: Programs, client: socket.socket, vm: socket.socket, seconds: float, count: int
) -> dict[str, Any]:
    """One byte after the other, there and back: count, wrong, p50_us, p99_us."""
    numbers = [str(client.fileno()), str(vm.fileno())]
    return _answer(
        _generator([programs.load, "echo", str(seconds), str(count), *numbers], (client, vm)), seconds
    )


def flaw(result: dict[str, Any], where: str = "") -> str:
    """What was wrong with the bytes; empty when nothing was."""
    if result["lost"]:
        share = 100 * result["lost"] / max(1, result["lost"] + result["heard"])
        return f"lost {share:.2g} %{where}"
    if result["wrong_at"] >= 0:
        return f"wrong bytes{where}"
    return ""


class Estate:
    """Many VMs in one process, see bench/estate.c. A context: its end hangs all of them up."""

    def __init__(self, programs: Programs, *words: str, listener: Optional[socket.socket] = None) -> None:
        self._process = _generator(
            [programs.estate, *words], () if listener is None else (listener,), stdin=subprocess.PIPE
        )

    def __enter__(self) -> Estate:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ready(self) -> float:
        """Seconds until the last one was through."""
        return float(self._told()["ready"])

    def say_lines(self, seconds: int) -> int:
        """Each of them says a line a second; how many that were."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"lines {seconds}\n")
        self._process.stdin.flush()
        return int(self._told()["lines"])

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise LoadFailed(self._process.stderr.read().strip())
        answer: dict[str, Any] = json.loads(line)
        return answer
