"""What vspcctl can ask of the daemon.

Does: answers status, attach, forget, unpark, reload, upgrade and stop; ``vspcd.people`` answers the rest.
Owns: nothing.
Never: knows what is told of a console (``vspcd.descriptions`` does), or stays long with a list.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import vspcd
from vspcd.attachments import Objection, Wish
from vspcd.config import ConfigError
from vspcd.core.access import MODES, RW
from vspcd.core.rights import ADMINISTER, WATCH, Who
from vspcd.descriptions import Description
from vspcd.people import People, done, reason_of
from vspcd.portmap.base import Entry
from vspcd.portmap.ports import LAST_PORT
from vspcd.proto.control import QUOTED, Message, packed
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware_codes import NAME_LIMIT, format_uuid, parse_uuid
from vspcd.renewal import renewal
from vspcd.table import Console
from vspcd.toolserver import Answer, Refusal, listed
from vspcd.upgrade import version_on_disk

if TYPE_CHECKING:
    from vspcd.master import Master

CONSOLES_AT_ONCE = 20
IMPORTED = MappingProxyType({"uuid": str, "name": str, "port": int})
Each = TypeVar("Each")


class Requests:
    """The handlers of one daemon."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._supervisor = master.supervisor
        self._consoles = master.consoles
        self._claims = master.claims
        self._attachments = master.attachments
        self._people = People(master)
        self._audit = master.audit
        self._pid = os.getpid()
        self.handlers = {
            **self._people.handlers,
            "status": self.status,
            "attach": self.attach,
            "forget": self.forget,
            "unpark": self.unpark,
            "import": self.take_over,
            "reload": self.reload,
            "upgrade": self.upgrade,
            "stop": self.stop,
        }

    def status(self, message: Message, who: Who) -> Answer:
        """The daemon's state, then the consoles that the asker may watch, then the VMs that were refused."""
        wanted, rights = message["console"], self._master.locks.rights
        description = self._description(message["fields"])
        known = self._supervisor.table.consoles.values()
        chosen = [self._people.find(wanted, who)] if wanted is not None else list(known)
        visible = rights.has(who, WATCH)
        yield self._daemon(), []
        consoles = (description.of(console) if visible(console) else None for console in chosen)
        yield from listed("consoles", "consoles", consoles)
        refusals = self._claims.admission.refusals() if rights.overall(who) >= WATCH else []
        yield from listed("refused", "refused", refusals)
        yield {"type": "refused", "refused": [], "end": True}, []

    def _description(self, fields: Optional[list[Any]]) -> Description:
        """How consoles are described to whoever wants these fields. Raises Refusal."""
        if fields is not None and not all(isinstance(field, str) for field in fields):
            raise Refusal("bad-request", "the fields of a console are texts")
        return Description(self._supervisor.config, fields)

    def _daemon(self) -> dict[str, Any]:
        table = self._supervisor.table
        consoles = table.consoles.values()
        return {
            "type": "status",
            "version": vspcd.__version__,
            "pid": self._pid,
            "uptime": round(time.monotonic() - self._master.began, 3),
            "listeners": self._master.doors.addresses(),
            "certificate": self._master.tls.certificate,
            "totals": {
                "consoles": len(consoles),
                "connected": sum(console.leg is not None for console in consoles),
                "clients": sum(len(console.clients) for console in consoles),
                "workers": len(table.workers),
                "pending": self._claims.admission.pending,
            },
        }

    def attach(self, message: Message, who: Who) -> Answer:
        """One end of a fresh socket pair goes to the console's worker, the other to the tool."""
        mode = message["mode"] or RW
        if mode not in MODES:
            raise Refusal("bad-request", f"the mode is one of {', '.join(MODES)}, not {mode[:QUOTED]!r}")
        console = self._people.find(message["console"], who)
        config = self._supervisor.config
        replay = config.clients.replay if message["replay"] is None else message["replay"]
        if replay < 0:
            raise Refusal("bad-request", f"replay is a number of bytes, not {replay}")
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Refusal("busy", f"no socket for another client: {error.strerror}") from None
        wish = Wish("vspcctl", who, mode, replay, bool(message["fallback"]), reason_of(message))
        found = self._attachments.attach(console, wish, ours, next(self._supervisor.table.numbers))
        if isinstance(found, Objection):
            theirs.close()
            raise Refusal(found.code, found.text)
        facts = Description(config, ("id", "uuid", "label", "name", "state", "lock")).of(console)
        facts.update(client=found.number, mode=found.mode)
        yield {"type": "attached", **facts, "end": True}, [theirs]

    def forget(self, message: Message, who: Who) -> Answer:
        """Only what nobody uses can be forgotten."""
        console = self._people.find(message["console"], who)
        self._people.demand(who, console, ADMINISTER, "forget")
        if console.leg is not None:
            raise Refusal("busy", f"{console.name or console.id} is connected")
        if console.clients:
            raise Refusal("busy", f"{console.name or console.id} has {len(console.clients)} clients")
        if console.in_use:
            raise Refusal("busy", f"{console.name or console.id} is just being connected")
        self._audit.did("forget", who, console)
        self._consoles.forget(console)
        yield done(f"{console.name or console.id} is forgotten; its log stays"), []

    def unpark(self, message: Message, who: Who) -> Answer:
        """A VM that was parked may dial in again, and what has happened before counts no more."""
        console = self._people.find(message["console"], who)
        self._people.demand(who, console, ADMINISTER, "unpark")
        name = console.name or console.id
        if not console.parked_for:
            yield done(f"{name} is not parked"), []
            return
        console.parked, console.quarantines = 0.0, []
        self._audit.did("unpark", who, console)
        self._master.log.info("vm-unparked", console=console.id, name=console.name, by=who.origin)
        yield done(f"{name} is let in when it dials again"), []

    def take_over(self, message: Message, who: Who) -> Answer:
        """Consoles of another concentrator, with their ports as far as they are free."""
        self._people.demand(who, None, ADMINISTER, "import")
        entries = [imported(facts) for facts in message["consoles"]]
        self._audit.did("import", who, consoles=len(entries))
        for some in _batches(entries):
            for found in packed([self._taken_over(entry) for entry in some]):
                yield {"type": "imported", "imported": found}, []
        yield {"type": "imported", "imported": [], "end": True}, []

    def _taken_over(self, entry: Entry) -> dict[str, Any]:
        console = self._consoles.remember(entry)
        known = console or self._supervisor.table.consoles[entry.console]
        about = {"id": known.id, "name": known.name or "", "port": known.port}
        return {**about, "outcome": outcome_of(entry, console, known.port)}

    def reload(self, _message: Message, who: Who) -> Answer:
        """Read the configuration again; a mistake in it leaves the old one in force. Another version takes over."""
        self._people.demand(who, None, ADMINISTER, "reload")
        if version_on_disk() not in (None, vspcd.__version__):
            yield from self._upgrade(who)
        try:
            changes = self._master.reload()
        except ConfigError as error:
            raise Refusal("config", f"the old configuration stays in force:\n{error}") from None
        self._audit.did("reload", who, changes=len(changes))
        yield done("\n".join(changes) or "nothing has changed"), []

    def upgrade(self, _message: Message, who: Who) -> Answer:
        """Let the version on the disk take our place. It gives the answer; we do when it cannot."""
        self._people.demand(who, None, ADMINISTER, "upgrade")
        yield from self._upgrade(who)

    def _upgrade(self, who: Who) -> Answer:
        self._audit.did("upgrade", who, version=version_on_disk())
        attempt = self._master.upgrades.begin(f"vspcctl by {who.origin}")
        while not attempt.over:
            yield None
        raise Refusal("upgrade", f"version {vspcd.__version__} goes on: {attempt.reason}")

    def upgraded(self, request: Message, text: str) -> Answer:
        """The rest of the answer to whoever asked the version before."""
        if request.get("workers"):
            yield from renewal(self._master, text)
        else:
            yield done(text), []

    def stop(self, _message: Message, who: Who) -> Answer:
        """End the daemon."""
        self._people.demand(who, None, ADMINISTER, "stop")
        self._audit.did("stop", who)
        yield done("vspcd is stopping"), []
        self._master.stop(f"vspcctl stop by {who.origin}")


def imported(facts: Any) -> Entry:
    """A console of another concentrator. Raises Refusal."""
    if not isinstance(facts, dict) or [type(facts.get(key)) for key in IMPORTED] != list(IMPORTED.values()):
        raise Refusal(
            "bad-request", "a console to take over has a uuid and a name, both text, and a port, or 0"
        )
    try:
        uuid, name, port = parse_uuid(facts["uuid"]), facts["name"][:NAME_LIMIT], facts["port"]
    except PeerError as error:
        raise Refusal("bad-request", f"no console to take over: {str(error)[:QUOTED]}") from None
    if not 0 <= port <= LAST_PORT:
        raise Refusal("bad-request", f"{port} is no port")
    # The port map takes no half of a surrogate pair.
    name = name.encode("utf-8", "replace").decode()
    return Entry(format_uuid(uuid), uuid, "", name, port, time.time())


def outcome_of(entry: Entry, console: Optional[Console], port: int) -> str:
    """What has become of a console that was to be taken over, in words."""
    if console is None:
        return "known already" if port == entry.port or not entry.port else "known already, keeps its port"
    if port == entry.port or not entry.port:
        return "taken over"
    return f"taken over, but something else has port {entry.port}"


def _batches(consoles: list[Each]) -> Iterator[list[Each]]:
    """A few at a time, so that others have their turn in between."""
    for at in range(0, len(consoles), CONSOLES_AT_ONCE):
        yield consoles[at : at + CONSOLES_AT_ONCE]
