"""vspcd itself, as this source tree has it. VMs dial in as an ESXi host does; clients are raw ones on a TCP port."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any, Optional

from bench import wire
from bench.servers.base import Server, until_exists

SETTINGS = (
    "proxy.listen=[127.0.0.1:0]",
    "admin.listen=[]",
    "ports.first=0",
    # The log that is compared is one file, as the others write it.
    "log.max_size=1T",
)
PACKET = 65536


class Vspcd(Server):
    """A process for each console. All settings but SETTINGS are the defaults."""

    name = "vspcd"
    logs = True
    dials = False
    far_end = "the VM dials in and negotiates telnet and VMware's extension, as an ESXi host does"
    order = wire.DIALS_VSPCD

    @classmethod
    def installed(cls) -> Optional[str]:
        """It is here."""
        return "vspcd"

    def start(self) -> None:
        """See Server."""
        settings = [*SETTINGS, *([] if self.setup.logged else ["log.dir=off"])]
        options = [word for setting in settings for word in ("-o", setting)]
        process = self.run(sys.executable, "-m", "vspcd.daemon", "--root", str(self.folder), *options)
        end = time.monotonic() + wire.PATIENCE
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise wire.Unheard(f"vspcd does not begin:\n{self.said()}")
            try:
                self._vm_port = int(self._status()["listeners"]["proxy"][0].rpartition(":")[2])
                return
            except (FileNotFoundError, ConnectionError):
                time.sleep(0.02)

    def _status(self) -> dict[str, Any]:
        """All packets of the answer, put together."""
        answer: dict[str, Any] = {"consoles": []}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(wire.PATIENCE)
            control.connect(str(self.folder / "run" / "control.sock"))
            control.send(b'{"type": "status"}')
            while not answer.get("end"):
                packet = json.loads(control.recv(PACKET))
                answer["consoles"] += packet.pop("consoles", [])
                answer.update(packet)
        return answer

    def until_open(self) -> None:
        """A new console takes clients when its port is on the disk."""
        end = time.monotonic() + wire.PATIENCE
        while not all(console["port"] and console["socket"] for console in self._status()["consoles"]):
            if time.monotonic() > end:
                raise wire.Unheard("not every console of vspcd takes clients")
            time.sleep(0.05)

    def vm_port(self) -> int:
        """See Server."""
        return self._vm_port

    def client(self, number: int) -> socket.socket:
        """A raw one: it speaks first, and so is never offered telnet."""
        uuid = wire.uuid_of(number)
        port = next(console["port"] for console in self._status()["consoles"] if console["uuid"] == uuid)
        sock = wire.connected(port)
        sock.sendall(b"\n")
        return sock

    def log(self, number: int) -> Path:
        """See Server."""
        return until_exists(self.folder / "log" / f"{wire.uuid_of(number)}.log")
