"""What a VM's host says of the VM: its name, its UUIDs, its serial line.

Does: notes it in the journal's index and tells the master.
Owns: what was noted last.
Never: does so for each word of a flood: the last one counts.
"""

from __future__ import annotations

from typing import Any, Optional

from vspcd.proto.comport import Break, line_as_dict
from vspcd.proto.vmware import Session
from vspcd.proto.vmware_codes import BiosUuid, Event, Line, LocationUuid, Named, format_uuid
from vspcd.unix.loop import Timer
from workers.console import Console
from workers.shell import Shell

SETTLE = 0.05


class Facts:
    """The facts of one console's VM."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._due: Optional[Timer] = None
        self._line: Optional[dict[str, Any]] = None  # as the guest set it, once it has
        self._line_set = False
        self._breaks = 0

    def heard(self, event: Event, console: Console, session: Session) -> None:
        """The VM's host has said something; what it means is noted before long."""
        if isinstance(event, Break):
            self._breaks += event.on
        elif isinstance(event, Line):
            self._line_set = True
        if isinstance(event, (Named, Line, Break, BiosUuid, LocationUuid)) and self._due is None:
            self._due = self._shell.loop.call_later(SETTLE, lambda: self.note(console, session))

    def resume(self, console: Console, session: Session) -> None:
        """Whoever died may have heard something that it had not noted yet."""
        if session.line_told:
            self._line, self._line_set = line_as_dict(session.line), True
        self.note(console, session)

    def settle(self, console: Console, session: Session) -> None:
        """The connection ends: note what is still to be noted."""
        if self._due is not None:
            self.note(console, session)

    def note(self, console: Console, session: Session) -> None:
        """Note and tell how things stand."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if session.name is not None:
            console.rename(session.name)
        line = line_as_dict(session.line)
        if self._line_set and line != self._line:
            self._line = line
            console.journal.event("line", line)
        if self._breaks:
            console.journal.event("break", {"count": self._breaks})
            self._breaks = 0
        if not (console.name or session.bios_uuid or session.location_uuid or self._line):
            return  # nothing is known yet
        self._shell.tell(
            "facts",
            name=console.name,
            bios_uuid=session.bios_uuid and format_uuid(session.bios_uuid),
            location_uuid=session.location_uuid and format_uuid(session.location_uuid),
            line=self._line or {},
        )
