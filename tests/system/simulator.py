"""The product's own simulated ESXi host as a subprocess, for tests of what sits on either end of it."""

from __future__ import annotations

import subprocess

from tests.system import processes
from tests.system.daemon import VSPCCTL, Daemon

# A shell that reads no start-up files and asks in the same way on every machine.
PROMPT = b"ready> "
PLAIN_SHELL = "PS1='ready> ' PS2='' ENV= exec sh -i"


class Simulator:
    """Owns the process and its session: the shells behind the ports go with it."""

    def __init__(self, daemon: Daemon, name: str, *words: str) -> None:
        host, port = daemon.proxy
        self.output = daemon.root / f"simulate-{name}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [VSPCCTL, "simulate", "--proxy", f"{host}:{port}", "--name", name, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.daemon = daemon
        self.name = name

    def __enter__(self) -> Simulator:
        self.daemon.wait_state(self.name, "connected")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            processes.kill_session(self.process.pid)
