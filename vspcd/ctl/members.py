"""Broadcast: what is typed in a session goes to other consoles as well.

Does: attaches to each of them, types there what is typed here, says again and again that it does.
Owns: the links to them.
Never: shows what they say: that is in their logs; goes on typing to one that does not take it.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.core.patterns import matches
from vspcd.ctl.attaching import called, get_on
from vspcd.ctl.companion import Companion
from vspcd.ctl.failure import Failure
from vspcd.ctl.link import Link
from vspcd.ctl.status import Record, shown_name
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

if TYPE_CHECKING:
    from vspcd.ctl.session import Session

LIMIT = 200
"""Consoles; a descriptor of ours for each."""


class Named(NamedTuple):
    """A console, as patterns know it."""

    id: str
    uuid: str
    label: str
    name: Optional[str]


def found(pattern: str, consoles: Sequence[Record], own: str) -> list[str]:
    """The ids of the connected consoles that a pattern means, in the order of their names; this one left out."""
    meant = [
        each
        for each in consoles
        if each["id"] != own
        and each["state"] == "connected"
        and matches(
            pattern.split(), Named(each["id"], each["uuid"], each.get("label") or "", each.get("name"))
        )
    ]
    return [str(each["id"]) for each in sorted(meant, key=lambda each: (shown_name(each), each["id"]))]


class Members(Companion):
    """The other consoles. ``pattern`` is what chose them."""

    def __init__(self, session: Session, pattern: str) -> None:
        self._session = session
        self._pattern = visible(pattern)
        self._members: dict[str, Link] = {}
        self._new_line = False  # what is typed next begins one

    def join(self, console: str, path: str, deadline: float) -> Optional[str]:
        """Let one more console hear what is typed; why it does not, if it does not."""
        try:
            answer, worker = get_on(path, console, deadline)
        except Failure as failure:
            return failure.message
        self._members[self._unused(called(answer))] = Link(worker)
        return None

    def _unused(self, name: str) -> str:
        """Names of consoles may be the same."""
        return name if name not in self._members else f"{name} ({len(self._members)})"

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def status(self) -> str:
        """Who hears what is typed, in words."""
        count = len(self._members) + 1
        return f"BROADCAST: you type on {count} consoles ({self._pattern})"

    def interests(self) -> dict[int, int]:
        return {
            link.fileno(): select.POLLIN | (select.POLLOUT if link.waiting else 0)
            for link in self._members.values()
        }

    def serve(self, ready: Mapping[int, int]) -> None:
        for name, link in tuple(self._members.items()):
            events = ready.get(link.fileno(), 0)
            if events & select.POLLOUT:
                link.write()
            if events & ~select.POLLOUT:
                self._read(name, link)

    def _read(self, name: str, link: Link) -> None:
        """Of what others say, only their end and their mode matter."""
        try:
            frames = link.read()
        except PeerError as error:
            self._leave_out(name, f"the daemon was not understood: {error}")
            return
        if frames is None:
            self._leave_out(name, "its process has ended")
            return
        for frame in frames:
            if frame.type == attach.BYE:
                self._leave_out(name, visible(frame.payload.decode("utf-8", "replace")))
                return
            if frame.type == attach.MODE and frame.payload != b"rw":
                self._leave_out(name, "somebody else has a lock, or you may not type there any more")
                return

    def typed(self, data: bytes) -> bool:
        if self._session.read_only:
            return False
        if self._new_line:
            self._session.say(self.status())
        self._new_line = data[-1:] in (b"\r", b"\n")
        for name, link in tuple(self._members.items()):
            if link.has_room(len(data)):
                link.type(data)
            else:
                self._leave_out(name, "its VM does not take what you type")
        return False

    def _leave_out(self, name: str, why: str) -> None:
        self._members.pop(name).close()
        self._session.say(f"broadcast without {name}: {why}")
        if not self._members:
            self._session.say("the broadcast is over: nobody else is left")
            self._session.dismiss(self)

    def end(self) -> None:
        for link in self._members.values():
            link.hand_over()
            link.close()
        self._members.clear()
