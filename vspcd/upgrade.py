"""An upgrade in place: another version of the daemon goes on in this process, with all that it has.

Does: lets the version on the disk check itself, the configuration and our state in a process of its own; brings what is
on its way to an end; executes it.
Owns: the attempt that is under way.
Never: gives anything up before the other version has said that it can go on. If that is not to be, this one goes on.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import vspcd
from vspcd import bequest, handover
from vspcd.unix import process
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import READ, Timer

if TYPE_CHECKING:
    from vspcd.master import Master

CHECKED_WITHIN = 20.0
SETTLED_WITHIN = 2.0
DRAINED_WITHIN = 1.0
LOOK_EVERY = 0.01
OUTPUT_LIMIT = 65536
REASON_LIMIT = 2000
GRANTED = "vspcd can go on: version "
BLOCKED = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
"""A signal between two versions must wait for the second one: its default would be the end."""

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


def command_line() -> list[str]:
    """The command line of this process, as long as nobody has renamed it."""
    return [os.fsdecode(word) for word in Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]]


def version_on_disk() -> Optional[str]:
    """The version that would start now; None when that cannot be told."""
    try:
        found = _VERSION.search(Path(str(vspcd.__file__)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if found is None else found[1]


class Attempt:
    """One upgrade; ``reason`` says why it came to nothing, once ``over``."""

    def __init__(self) -> None:
        self.over = False
        self.reason = ""


class Upgrades:
    """``command`` is how this process was started, None where that is not known."""

    def __init__(self, master: Master, command: Optional[list[str]]) -> None:
        self._master = master
        self._loop = master.loop
        self._log = master.log
        self._command = command
        self._attempt: Optional[Attempt] = None
        self._child = 0
        self._output = -1
        self._heard = b""
        self._timer: Optional[Timer] = None

    def begin(self, by: str) -> Attempt:
        """Try. When it works, this process is another version before the attempt is over."""
        attempt = Attempt()
        if self._attempt is not None:
            return _failed(attempt, "an upgrade is under way already")
        objection = "its command line is not known" if self._command is None else self._objection()
        if self._command is None or objection:
            return _failed(attempt, objection)
        self._attempt = attempt
        self._log.info("upgrade-begins", by=by, version=vspcd.__version__, on_disk=version_on_disk())
        try:
            self._check(self._command)
        except OSError as error:
            self._give_up(f"the other version could not be started: {error.strerror}")
        return attempt

    def _objection(self) -> str:
        """Why this is no time for it; nothing when it is."""
        table = self._master.table
        if self._master.stopping:
            return "vspcd is stopping"
        homeless = [
            each for each in table.consoles.values() if each.worker and each.worker.pid not in table.workers
        ]
        if self._master.claims.renegotiation.homeless:
            return "a VM waits until there is room for a worker"
        return f"{homeless[0].id} waits until there is room for a worker" if homeless else ""

    # The other version checks itself.

    def _check(self, command: list[str]) -> None:
        state = handover.pack(bequest.of(self._master))
        try:
            self._output, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(state)
            raise

        def child() -> None:
            os.set_blocking(theirs, True)
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.set_inheritable(state, True)
            os.execvp(command[0], [*command, "--check-handover", str(state)])

        try:
            self._child = process.fork(child, {state, theirs})
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(state)
            os.close(theirs)
        self._heard = b""
        self._loop.watch(self._output, READ, lambda _events: self._listen_on())
        self._timer = self._loop.call_later(CHECKED_WITHIN, lambda: process.kill(self._child))

    def _listen_on(self) -> None:
        self._listen()

    def _listen(self) -> bool:
        """Whether there is more to hear."""
        try:
            heard = os.read(self._output, OUTPUT_LIMIT)
        except BlockingIOError:
            return False
        self._heard = (self._heard + heard)[-OUTPUT_LIMIT:]
        if not heard:
            self._loop.forget(self._output)
        return bool(heard)

    def reaped(self, pid: int, how: str) -> bool:
        """A child has died; False when it was not the other version."""
        if pid != self._child:
            return False
        while self._listen():
            pass
        self._loop.forget(self._output)
        os.close(self._output)
        self._child = 0
        if self._timer is not None:
            self._timer.cancel()
        said = self._heard.decode("utf-8", "replace").strip()
        if how == "ended" and said.rpartition("\n")[2].startswith(GRANTED):
            reached("upgrade.checked")
            self._settle(time.monotonic())
        elif how == "killed by SIGKILL":
            self._give_up(f"the other version did not answer within {CHECKED_WITHIN:g} s")
        else:
            self._give_up(said[-REASON_LIMIT:] or f"the other version {how}")
        return True

    def _give_up(self, reason: str) -> None:
        attempt, self._attempt = self._attempt, None
        self._log.error("upgrade-refused", reason=reason, version=vspcd.__version__)
        if attempt is not None:
            _failed(attempt, reason)

    # What is on its way comes to an end.

    def _settle(self, since: float) -> None:
        master, passed = self._master, time.monotonic() - since
        objection = self._objection()
        if objection:
            self._give_up(objection)
            return
        drained = not self._backlogs()
        kept = master.consoles.keeper.settled and master.audit.settled and master.events.aide.settled
        quiet = kept and master.tools is not None and master.tools.quiet
        if (drained and quiet) or passed >= SETTLED_WITHIN or (quiet and passed >= DRAINED_WITHIN):
            self._execute()
        else:
            self._loop.call_later(LOOK_EVERY, lambda: self._settle(since))

    def _backlogs(self) -> list[Callable[[], None]]:
        """What ends each child that does not take what it is told."""
        master = self._master
        found: list[Callable[[], None]] = [
            lambda worker=worker: master.supervisor.kill(worker, "it does not take what it is told")  # type: ignore[misc]
            for worker in master.table.workers.values()
            if worker.channel.backlog
        ]
        found += [
            lambda helper=helper: process.kill(helper.pid, pidfd=helper.pidfd)  # type: ignore[misc]
            for helper in master.tls.helpers.values()
            if helper.channel.backlog
        ]
        return found

    # The other version.

    def _execute(self) -> None:
        assert self._command is not None
        for end in self._backlogs():
            end()  # whoever is master next replaces it
        state = bequest.of(self._master)
        try:
            memory = handover.pack(state)
        except OSError as error:
            self._give_up(f"there is no room for what it has to know: {error.strerror}; try again later")
            return
        reached("upgrade.packed")
        self._log.info("upgrade", version=vspcd.__version__, state_bytes=os.fstat(memory).st_size)
        inherited = [memory, *handover.descriptors(state)]
        for fd in inherited:
            os.set_inheritable(fd, True)
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        reached("upgrade.exec")
        try:
            os.execvpe(self._command[0], self._command, {**os.environ, handover.VARIABLE: str(memory)})
        except OSError as error:
            for fd in inherited:
                os.set_inheritable(fd, False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
            os.close(memory)
            self._give_up(f"{self._command[0]} cannot be executed: {error.strerror}")


def _failed(attempt: Attempt, reason: str) -> Attempt:
    attempt.over, attempt.reason = True, reason
    return attempt
