"""A login shell on a pseudo-terminal, as the machine behind a serial port.

Does: starts the shell with the terminal as its controlling terminal, and starts it again when it ends,
as a machine that reboots; carries bytes both ways.
Owns: the terminal's master side, the child process and its session.
Never: leaves a process behind; writes into the stream what the shell did not say.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import pwd
import signal
import struct
import termios
from collections.abc import Coroutine
from pathlib import Path
from typing import NoReturn, Optional

from vspcd.simulator.deadline import within
from vspcd.simulator.guests import Guest, Report
from vspcd.simulator.pipe import drain, fill, readable

ROWS, COLUMNS = 24, 80

GRACE = 2.0
"""Seconds that a shell has to leave after SIGHUP."""

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
IGNORED_BY_JOBS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # in the background, or by nohup

RESPAWN_DELAYS = (0.2, 5.0)
"""Seconds before the shell is started again, doubling from the first to the last while it ends at once."""

LONG_ENOUGH = 2.0
"""A shell that lived so many seconds did not end at once."""


class Shell(Guest):
    """The user's login shell, or a command run by /bin/sh."""

    def __init__(self, report: Report, command: Optional[str] = None) -> None:
        super().__init__(report)
        self._command = command

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        delay = RESPAWN_DELAYS[0]
        while True:
            started = clock()
            status = await self._live()
            delay = (
                RESPAWN_DELAYS[0] if clock() - started >= LONG_ENOUGH else min(delay * 2, RESPAWN_DELAYS[1])
            )
            self.report(f"the shell ended ({_ending(status)}); starting it again")
            await asyncio.sleep(delay)

    async def _live(self) -> int:
        """One life of the shell; its wait status."""
        pid, master = _start(self._command)
        session = _Session(pid)
        typing = asyncio.ensure_future(_until_gone(drain(self.input, master)))
        output = asyncio.ensure_future(_until_gone(fill(self.output, master)))
        try:
            await session.ended()
            await self._last_words(output)
        finally:
            typing.cancel()
            output.cancel()
            await asyncio.gather(typing, output, return_exceptions=True)
            os.close(master)
            status = await session.end()
        return status

    async def _last_words(self, output: asyncio.Future[None]) -> None:
        """Wait until all that the shell said was taken; a silent process on the terminal ends the wait."""
        while not output.done():
            await self.output.room()
            await asyncio.wait({output}, timeout=GRACE)
            if not self.output.full:
                return


class _Session:
    """The shell's process and whatever else lives in its session."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._watch = os.pidfd_open(pid)
        self._status: Optional[int] = None

    async def ended(self) -> None:
        """Wait until the shell has ended, and reap it."""
        if self._status is None:
            await readable(self._watch)
            self._status = os.waitpid(self.pid, 0)[1]

    async def end(self) -> int:
        """End what is left: SIGHUP, a moment of grace, SIGKILL; the shell's wait status."""
        try:
            self._signal(signal.SIGHUP)
            await within(GRACE, self.ended())
        except asyncio.TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended()
        finally:
            if self._status is None:
                self._signal(signal.SIGKILL)
                self._status = os.waitpid(self.pid, 0)[1]
            self._signal(signal.SIGKILL)
            os.close(self._watch)
        return self._status

    def _signal(self, number: signal.Signals) -> None:
        for pid in _members(self.pid) | ({self.pid} if self._status is None else set()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _members(session: int) -> set[int]:
    """The processes of a session. Its number cannot be used again while one of them lives."""
    return {
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _session_of(pid) == session
    }


def _session_of(pid: int) -> Optional[int]:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return None


async def _until_gone(pump: Coroutine[object, object, None]) -> None:
    """Run a pump until the far side of the terminal is gone, which reads and writes report as an error."""
    with contextlib.suppress(OSError):
        await pump


def _start(command: Optional[str]) -> tuple[int, int]:
    """The pid and the terminal's master side."""
    program, arguments = _program(command)
    pid, master = pty.fork()
    if pid == 0:
        _become(program, arguments)
    os.set_blocking(master, False)
    os.set_inheritable(master, False)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    return pid, master


def _program(command: Optional[str]) -> tuple[str, list[str]]:
    if command is not None:
        return "/bin/sh", ["sh", "-c", command]
    shell = os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    return shell, ["-" + os.path.basename(shell)]


def _become(program: str, arguments: list[str]) -> NoReturn:
    """In the child: undo what Python changed about signals, and be the shell."""
    try:
        for ignored in (*IGNORED_BY_PYTHON, *IGNORED_BY_JOBS):
            signal.signal(ignored, signal.SIG_DFL)
        os.execvpe(program, arguments, {**os.environ, "TERM": "vt102"})
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}\r\n".encode())
    finally:
        os._exit(127)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"status {os.WEXITSTATUS(status)}"
