"""What people type on a console, written down where the configuration wants it (``audit.typing``).

Does: appends a line for each batch that is with the VM: when, who, which bytes.
Owns: the file ``<uuid>.typed`` in the log directory, and the count of bytes that it could not take.
Never: writes anything unless a pattern means the console; holds up typing when the disk takes nothing.

A line is JSON, so a byte that a terminal might obey is never in it as it is: ``{"time", "client", "from", "typed"}``,
where ``typed`` has each byte as the character of its number. A serial break is the word ``break``, with a count.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from vspcd.core.names import Named
from vspcd.core.patterns import matches
from vspcd.proto import telnet

MODE = 0o600  # passwords are typed too
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
BREAK_WIRE = telnet.command(telnet.BREAK)


class TypedLog:
    """``directory`` is the log directory's descriptor, -1 for none. The disk has what is written with the next sync of
    the console logs."""

    def __init__(self, directory: int, console: Named) -> None:
        self._directory = directory
        self._console = console
        self._wanted = False
        self.lost = 0

    def apply(self, patterns: Sequence[str]) -> None:
        """The configuration, or the console's name, may be another one."""
        self._wanted = bool(patterns) and self._directory >= 0 and matches(patterns, self._console)

    def typed(self, client: int, origin: str, wire: bytes, breaks: int) -> None:
        """This is with the VM; ``wire`` as its telnet connection has it."""
        if not self._wanted:
            return
        data = plain(wire)
        facts = {
            "time": stamp(time.time()),
            "client": client,
            "from": origin,
            "typed": data.decode("latin-1"),
        }
        if breaks:
            facts["break"] = breaks
        if self.lost:
            facts["lost"] = self.lost
        if self._append(json.dumps(facts, separators=(",", ":")).encode() + b"\n"):
            self.lost = 0
        else:
            self.lost += len(data)

    def _append(self, line: bytes) -> bool:
        """A whole line, or none. The file is opened each time, so it can be rotated or removed as one likes."""
        try:
            fd = os.open(f"{self._console.id}.typed", FLAGS, MODE, dir_fd=self._directory)
        except OSError:
            return False
        try:
            before = os.fstat(fd).st_size
            written = os.write(fd, line)
            if written < len(line):
                os.ftruncate(fd, before)
            return written == len(line)
        except OSError:
            return False
        finally:
            os.close(fd)


def plain(wire: bytes) -> bytes:
    """What was typed, of the bytes that a telnet connection has for it."""
    doubled = telnet.escape(b"\xff")
    return b"\xff".join(part.replace(BREAK_WIRE, b"") for part in wire.split(doubled))


def stamp(when: float) -> str:
    """A time as logs have it, in UTC."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(when))}.{int(when * 1000) % 1000:03d}Z"
