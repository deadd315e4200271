"""`make demo`: a daemon, a simulated VM with a login shell behind its serial port, and ways on its console.

Owns: the two processes and the folder .demo below the current one. Both run in sessions of their own, so that
Ctrl-C reaches this process alone, which then ends them in order.
Never: needs root rights or a fixed port; leaves a process behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Optional

ROOT = Path(".demo")
VM = "demo"
BIN = Path(sys.executable).parent
DAEMON_OPTIONS = ("proxy.listen=[127.0.0.1:0]", "admin.listen=[127.0.0.1:0]", "ports.first=0")

READY_DEADLINE = 30.0
"""Seconds until the VM must be on its console."""

STOP_DEADLINE = 10.0
"""Seconds that a process has to end by itself."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h

GUIDE = """
The console of the simulated VM "{vm}" is open. Its serial port is a shell on this machine.
In another terminal, in {here}:

  {console}
      leave with ^] and then q
  telnet {host} {port}
      leave with ^] and then quit
  socat -,rawer,escape=0x1d UNIX-CONNECT:{socket}
      press Enter to see the prompt; leave with ^]

Several at once see and type the same. Also try:

  {ctl} status
  {ctl} log {vm}

Ctrl-C here ends it all. What the daemon has to say follows.
"""


class Interrupted(Exception):
    """The user, or the system, wants this to end."""


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Ear:
    """Hears the signals that end the demo, but only in a pause: a process that is just starting is never lost."""

    def __init__(self) -> None:
        self._heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(told)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stay)

    def pause(self, seconds: float) -> None:
        """Sleeps. Raises Interrupted when a signal has come, now or before."""
        if select.select([self._heard], [], [], seconds)[0]:
            raise Interrupted


def stay(_number: int, _frame: Optional[FrameType]) -> None:
    """A handler, unlike SIG_IGN, is not passed on to the shell behind the console."""


def shown(path: Path) -> str:
    """A path as it can be pasted: short when it is below the current folder."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_absolute() and here in path.parents else path))


def ctl_command(*words: str) -> list[str]:
    return [str(BIN / "vspcctl"), "--root", str(ROOT), *words]


def end_with_the_demo() -> None:
    """A demo that is killed leaves nothing behind: its children are told when it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command: list[str], quiet: bool = False) -> subprocess.Popen[bytes]:
    """A group of its own: the terminal's Ctrl-C is for us, and we end the children."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else None,
        start_new_session=True,
        preexec_fn=end_with_the_demo,  # noqa: PLW1509  there are no threads
    )


def start_daemon() -> subprocess.Popen[bytes]:
    options = [word for option in DAEMON_OPTIONS for word in ("-o", option)]
    return start([str(BIN / "vspcd"), "--root", str(ROOT), *options])


def status(daemon: subprocess.Popen[bytes]) -> Optional[dict[str, Any]]:
    """The daemon's status once it answers. Failed when it has ended."""
    if daemon.poll() is not None:
        raise Failed(f"vspcd ended with status {daemon.returncode}; is another demo running here?")
    answer = subprocess.run(
        ctl_command("status", "--json"), capture_output=True, check=False, timeout=READY_DEADLINE
    )
    found: Optional[dict[str, Any]] = json.loads(answer.stdout) if answer.returncode == 0 else None
    return found if found and found["pid"] == daemon.pid else None


def wait_status(ear: Ear, daemon: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + READY_DEADLINE
    while time.monotonic() < deadline:
        # First, since Ctrl-C also ends a child that has not yet left our session: no failure to report.
        ear.pause(0.1)
        found = status(daemon)
        if found:
            return found
    raise Failed("vspcd has not come up")


def wait_console(ear: Ear, daemon: subprocess.Popen[bytes], host: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + READY_DEADLINE
    while time.monotonic() < deadline:
        ear.pause(0.1)
        if host.poll() is not None:
            raise Failed(f"vspcctl simulate ended with status {host.returncode}")
        for console in wait_status(ear, daemon)["consoles"]:
            if console["name"] == VM and console["state"] == "connected" and console["socket"]:
                return dict(console)
    raise Failed("the simulated VM has not come up")


def guide(console: dict[str, Any]) -> str:
    ctl = shlex.join([shown(BIN / "vspcctl"), "--root", str(ROOT)])
    return GUIDE.format(
        vm=VM,
        here=Path.cwd(),
        ctl=ctl,
        console=f"{ctl} console {VM}",
        host="127.0.0.1",
        port=console["port"],
        socket=shown(Path(console["socket"])),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(ear: Ear) -> None:
    """The whole demo; returns only by an exception, with every child ended."""
    daemon = start_daemon()
    try:
        proxy = wait_status(ear, daemon)["listeners"]["proxy"][0]
        host = start(ctl_command("simulate", "--proxy", proxy, "--name", VM, "--shell"), quiet=True)
        try:
            print(guide(wait_console(ear, daemon, host)), flush=True)
            while daemon.poll() is None:
                ear.pause(0.5)
            raise Failed(f"vspcd ended with status {daemon.returncode}")
        finally:
            end(host)
    finally:
        end(daemon)


class Foreground:
    """Takes the terminal's foreground for this process alone and gives it back.

    make runs us and would die of the same Ctrl-C with an error, although all went well.
    """

    def __init__(self) -> None:
        self._before: Optional[int] = None

    def __enter__(self) -> None:
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp() and os.getpgrp() != os.getpid():
            self._before = os.getpgrp()
            os.setpgid(0, 0)
            give_terminal(os.getpid())
            # Nobody would notice a stop, and so nobody would let us go on.
            signal.signal(signal.SIGTSTP, stay)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            give_terminal(self._before)


def give_terminal(group: int) -> None:
    """Makes a process group the terminal's foreground; blocked, SIGTTOU does not stop us for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(0, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> int:
    ear = Ear()
    try:
        with Foreground():
            run(ear)
    except Interrupted:
        print("\nThe demo is over.")
    except Failed as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
