"""One run of a hook: a command, or a post to a URL, in a process group of its own, with a limit of time.

Does: starts it with the facts in its environment and as JSON on its standard input, reads what it prints, ends it.
Owns: its process group, the pipe that it prints to.
Never: waits; passes a fact through a shell; keeps more of what is printed than OUTPUT_KEPT bytes.

When the command ends, or its time is over, whatever is left of its process group is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from vspcd.core.names import visible
from vspcd.unix import process
from vspcd.unix.loop import READ, Loop, Timer
from workers.post import post

OUTPUT_KEPT = 2048
OUTPUT_SHOWN = 300
READ_SIZE = 65536
TURN = 1 << 20  # bytes of output that are read before others have their turn
VALUE_LIMIT = 4096
PREFIX = "VSPC_"
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TO_DEFAULT = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT)


class Job:
    """``ended(job, reason)`` is called once, with None when it went well."""

    def __init__(
        self, loop: Loop, message: Mapping[str, Any], ended: Callable[[Job, Optional[str]], None]
    ) -> None:
        self.number: int = message["number"]
        self.facts: dict[str, Any] = message["facts"]
        self.pid = 0
        self._loop = loop
        self._run: list[str] = message["run"]
        self._post: str = message["post"]
        self._timeout: float = message["timeout"]
        self._ended = ended
        self._pipe = -1
        self._printed = b""
        self._cut = 0  # bytes that were printed and not kept
        self._timer: Optional[Timer] = None
        self._pidfd = -1
        self._over = False

    @property
    def key(self) -> tuple[object, ...]:
        """Jobs of the same key run one after the other: the same hook about the same console."""
        return (*self._run, self._post, self.facts.get("console"))

    @property
    def label(self) -> str:
        """What runs, without secrets that a URL may have."""
        return self._run[0] if self._run else f"post to {urlsplit(self._post).hostname}"

    def start(self) -> None:
        """Begin. Raises OSError when there is no room or no such command."""
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        facts = _in_memory(json.dumps(self.facts, ensure_ascii=True).encode() + b"\n")
        try:
            os.set_blocking(theirs, True)
            self.pid = self._spawn(facts, theirs)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
            os.close(facts)
        self._pipe = ours
        self._loop.watch(ours, READ, lambda _events: self._read())
        self._timer = self._loop.call_later(self._timeout, self._too_long)

    def _spawn(self, facts: int, output: int) -> int:
        if self._post:
            url, body, timeout = self._post, json.dumps(self.facts).encode(), self._timeout
            return process.fork(lambda: _posting(url, body, timeout, output), {output})
        actions = [(os.POSIX_SPAWN_DUP2, facts, 0), (os.POSIX_SPAWN_DUP2, output, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, output, 2))
        return os.posix_spawn(
            self._run[0],
            self._run,
            environment(self.facts, os.environ),
            file_actions=actions,
            setsid=True,
            setsigdef=TO_DEFAULT,
            setsigmask=(),
        )

    def began(self) -> dict[str, Any]:
        """What another process needs to end this in time."""
        return {"pid": self.pid, "ticks": ticks_of(self.pid)}

    def go_on(self, began: Mapping[str, Any]) -> bool:
        """Watch what a dead process had begun; False when that has ended."""
        pid = began.get("pid")
        if not isinstance(pid, int) or pid <= 1 or ticks_of(pid) != began.get("ticks"):
            return False
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        self.pid = pid
        self._loop.watch(self._pidfd, READ, lambda _events: self._end(None))
        self._timer = self._loop.call_later(self._timeout, self._too_long)
        return True

    def _read(self) -> None:
        """All that it prints is read, so that it never waits for us; little is kept."""
        for _ in range(TURN // READ_SIZE):
            try:
                data = os.read(self._pipe, READ_SIZE)
            except BlockingIOError:
                return
            if not data:
                self._loop.forget(self._pipe)
                return
            self._cut += max(0, len(self._printed) + len(data) - OUTPUT_KEPT)
            self._printed = (self._printed + data)[:OUTPUT_KEPT]

    def _too_long(self) -> None:
        self.kill()
        self._end(f"it took more than {self._timeout:g} s and was killed")

    def kill(self) -> None:
        """End the whole group. Its leader is not buried yet, so the number is nobody else's."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left, or only what has become another user's

    def died(self, status: int) -> None:
        """Its first process is dead and buried, and the rest of its group killed."""
        if self._pipe >= 0:
            self._read()
        self._end(None if status == 0 else process.describe(status))

    def _end(self, reason: Optional[str]) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        for fd in (self._pipe, self._pidfd):
            if fd >= 0:
                self._loop.forget(fd)
                os.close(fd)
        self._pipe = self._pidfd = -1
        self._ended(self, reason)

    def printed(self) -> Optional[str]:
        """The beginning of what it has printed, for the log."""
        text = visible(self._printed.decode("utf-8", "replace").strip())[:OUTPUT_SHOWN]
        more = self._cut + max(0, len(self._printed) - OUTPUT_SHOWN)
        return (text + (f" … {more} bytes more" if more else "")) or None


def environment(facts: Mapping[str, Any], inherited: Mapping[str, str]) -> dict[bytes, bytes]:
    """VSPC_NAME=value for each fact that is no list or object, beside a few variables of our own."""
    made = {key: inherited[key] for key in PASSED_ON if key in inherited}
    made.setdefault("PATH", USUAL_PATH)
    for key, value in facts.items():
        if value is None or isinstance(value, (dict, list)):
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        made[PREFIX + key.upper().replace("-", "_")] = visible(text)[:VALUE_LIMIT]
    return {os.fsencode(key): value.encode("utf-8", "surrogateescape") for key, value in made.items()}


def ticks_of(pid: int) -> int:
    """When a process began, in the kernel's ticks: with its number it names it for ever. 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _in_memory(data: bytes) -> int:
    """A file without a name, so that no command can keep us waiting by not reading."""
    fd = os.memfd_create("facts", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _posting(url: str, body: bytes, timeout: float, output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    problem = post(url, body, timeout)
    if problem is not None:
        os.write(1, problem.encode("utf-8", "replace"))
        sys.exit(1)
