"""The real vspcd as a subprocess with a private root and ports that the system chooses.

Owns the process, its session and its root. Speaks to it through the control socket, as the documentation
of the control protocol says. Never reaches into the daemon.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from tests.system import processes
from tests.system.vm import FakeVm
from tests.system.wait import Late, until

Json = dict[str, Any]
Address = tuple[str, int]

BIN = Path(sys.executable).parent
VSPCD = str(BIN / "vspcd")
VSPCCTL = str(BIN / "vspcctl")

PRIVATE = ("proxy.listen=[127.0.0.1:0]", "admin.listen=[127.0.0.1:0]", "ports.first=0")
PACKET_LIMIT = 65536


def as_options(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def queued(sock: socket.socket, path: Path) -> bool:
    """Connect, unless the queue of those who wait is full."""
    try:
        sock.connect(str(path))
    except BlockingIOError:
        return False
    return True


class Daemon:
    """One vspcd below one root; it can be stopped, killed and started again there."""

    def __init__(self, root: Path, *settings: str, config: Optional[Path] = None) -> None:
        self.root = root
        self.settings = PRIVATE + settings
        self.config = config
        self.environment: dict[str, str] = {}
        self.sessions: list[int] = []
        self._log_begins = 0
        self.process: Optional[subprocess.Popen[bytes]] = None

    # The process

    @property
    def pid(self) -> int:
        assert self.process is not None, "the daemon was not started"
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def output(self) -> Path:
        return self.root / "vspcd.out"

    def log(self) -> str:
        written = self.output.read_bytes() if self.output.exists() else b""
        return written[self._log_begins :].decode(errors="replace")

    def begin_log(self) -> None:
        """What was logged so far is nobody's business any more."""
        self._log_begins = self.output.stat().st_size

    def command(self) -> list[str]:
        config = ["--config", str(self.config)] if self.config else []
        return [VSPCD, *config, "--root", str(self.root), *as_options(self.settings)]

    def start(self) -> Daemon:
        self.process = self.spawn()
        until(self._answers, "the daemon answers on its control socket")
        return self

    def spawn(self) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.sessions.append(process.pid)
        return process

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"vspcd ended with {self.process.returncode}:\n{self.log()}"
        try:
            return bool(self.status()["pid"] == self.pid)
        except (FileNotFoundError, ConnectionError):
            return False

    def stop(self) -> None:
        """Ends the daemon as systemd does; it must leave nothing behind."""
        self.signal(signal.SIGTERM)
        assert self.wait_end() == 0, (
            f"vspcd ended with {self.process and self.process.returncode}:\n{self.log()}"
        )
        until(lambda: not self.members(), f"no process of the daemon is left, but {self.titles()} are", 10)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_end(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=20)

    def members(self) -> list[int]:
        """Its processes, and those that have outlived the daemons before it."""
        return [pid for session in self.sessions for pid in processes.session_members(session)]

    def titles(self) -> dict[int, str]:
        return {pid: processes.title(pid) for pid in self.members()}

    def clean_up(self) -> None:
        """Ends whatever a test has left of it, however the test went."""
        if self.process is None:
            return
        for session in self.sessions:
            processes.kill_session(session)
        self.process.wait(timeout=20)

    # The control socket

    @property
    def control_socket(self) -> Path:
        return self.root / "run" / "control.sock"

    def request(self, message: Json) -> list[Json]:
        """All packets of the answer to one request."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(20)
            until(lambda: queued(control, self.control_socket), "the control socket has room")
            control.send(json.dumps(message).encode())
            packets: list[Json] = []
            while not (packets and packets[-1].get("end")):
                packet = control.recv(PACKET_LIMIT)
                assert packet, f"the daemon hung up in the middle of its answer: {packets}"
                packets.append(json.loads(packet))
            return packets

    def status(self) -> Json:
        """The whole status, its packets put together."""
        answer: Json = {"consoles": [], "refused": []}
        for packet in self.request({"type": "status"}):
            answer["consoles"] += packet.pop("consoles", [])
            answer["refused"] += packet.pop("refused", [])
            answer.update(packet)
        return answer

    def consoles(self) -> list[Json]:
        return list(self.status()["consoles"])

    def refused(self) -> list[Json]:
        return list(self.status()["refused"])

    def arm(self, point: str, failure: str = "") -> Path:
        """Let the next process that reaches this point fail; the file is gone once it has."""
        path = Path(self.environment["VSPCD_FAILPOINTS"]) / point
        path.write_text(failure)
        return path

    # What tests ask of it

    def dial(self, **what: str) -> FakeVm:
        """A VM that has gone through the recorded order, and whose console is named and takes clients."""
        vm = FakeVm(self.proxy, **what).handshake()
        self.wait_console(
            vm.console, lambda c: bool(c["socket"] and (c["name"] or not vm.name)), "is named and open"
        )
        return vm

    @property
    def proxy(self) -> Address:
        return self.listener("proxy")

    def listener(self, name: str) -> Address:
        host, _, port = self.status()["listeners"][name][0].rpartition(":")
        return host.strip("[]"), int(port)

    def console(self, name: str) -> Json:
        """The console that has this name or id."""
        found = self.find(name)
        assert found is not None, f"no console {name} among {[c['name'] for c in self.consoles()]}"
        return found

    def find(self, name: str) -> Optional[Json]:
        return next((c for c in self.consoles() if name in (c["name"], c["id"])), None)

    def wait_console(self, name: str, test: Callable[[Json], bool], what: str) -> Json:
        def probe() -> Optional[Json]:
            found = self.find(name)
            return found if found is not None and test(found) else None

        try:
            return until(probe, f"{name} {what}")
        except Late as late:
            raise Late(f"{late}; it is {self.find(name)}") from None

    def wait_state(self, name: str, state: str) -> Json:
        return self.wait_console(name, lambda c: bool(c["state"] == state), f"is {state}")

    def wait_clients(self, name: str, count: int) -> Json:
        return self.wait_console(name, lambda c: len(c["clients"]) == count, f"has {count} clients")

    def wait_refusal(self, words: str) -> Json:
        """The refusal whose reason has these words."""

        def probe() -> Optional[Json]:
            return next((r for r in self.refused() if words in r["reason"]), None)

        return until(probe, f"a refusal says {words!r}; there are {self.refused()}")

    def wait_log(self, *words: str) -> str:
        """The line of the daemon's own log that has all these words."""

        def probe() -> Optional[str]:
            lines = self.log().splitlines()
            return next((line for line in lines if all(word in line for word in words)), None)

        return until(probe, f"the daemon logs {words!r}")

    def wait_open(self, name: str) -> Json:
        """A new console takes clients a moment after its VM is there: its port is made durable first."""
        return self.wait_console(name, lambda c: c["socket"] is not None, "takes clients")

    def socket_path(self, name: str) -> str:
        return str(self.wait_open(name)["socket"])

    def port(self, name: str) -> Address:
        return "127.0.0.1", int(self.wait_open(name)["port"])

    def log_file(self, name: str) -> Path:
        return Path(self.console(name)["log"])

    def worker(self, name: str) -> int:
        return int(self.console(name)["worker"]["pid"])

    def ctl(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs vspcctl to its end."""
        return subprocess.run(
            [VSPCCTL, "--root", str(self.root), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
