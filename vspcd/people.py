"""What people on the consoles can ask for: who is there, locks, modes, and to send somebody away.

Does: answers who, lock, unlock, takeover, mode and kick, each as far as the asker's rights go.
Owns: nothing.
Never: decides who has what right (``vspcd.core.rights`` does) or what a mode brings (``vspcd.core.access``).

A tool acts for a session by the client number that ``attach`` answered, over a connection of its own. So it is checked
that both are the same user's; root may act for everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from vspcd.core.access import EXCLUSIVE, LOCK, LOCKED, RO, RW
from vspcd.core.names import Ambiguous, NotFound, found, resolve, visible
from vspcd.core.rights import ADMINISTER, RIGHTS, TAKE_OVER, WATCH, WRITE, Who
from vspcd.locks import REASON_LIMIT, WORDS, typed_last
from vspcd.proto.control import QUOTED, Message
from vspcd.table import ClientRecord, Console
from vspcd.toolserver import Answer, Refusal, listed
from vspcd.unix.page import HEAD

if TYPE_CHECKING:
    from vspcd.master import Master

QUERY_LIMIT = 400  # characters; names have 256 at most
VERBS = {WATCH: "watch", WRITE: "type on", TAKE_OVER: "take over", ADMINISTER: "administer"}


class People:
    """The handlers of one daemon."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._table = master.table
        self._locks = master.locks
        self._audit = master.audit
        self.handlers = {
            "who": self.who,
            "lock": self.lock,
            "unlock": self.unlock,
            "takeover": self.takeover,
            "mode": self.mode,
            "kick": self.kick,
        }

    # Whom and what a request means.

    def find(self, query: str, who: Who) -> Console:
        """The console that is meant, among those that the asker may watch. Raises Refusal."""
        if len(query) > QUERY_LIMIT:
            raise Refusal("bad-request", f"no console has a name of {len(query)} characters")
        known = list(self._table.consoles.values())
        seen = self._locks.rights.those(who, known, WATCH)
        try:
            console = found(query, seen)
        except Ambiguous as error:
            raise Refusal("ambiguous", str(error)) from None
        if console is not None:
            return console
        if len(seen) < len(known):
            self._may_not_see(query, known, who)
        try:
            return resolve(query, seen)
        except NotFound as error:
            raise Refusal("not-found", str(error)) from None

    def _may_not_see(self, query: str, known: list[Console], who: Who) -> None:
        """Somebody who knows what there is, and may not watch it, is told so."""
        try:
            console = found(query, known)
        except Ambiguous:
            return
        if console is not None:
            self.demand(who, console, WATCH, "find")

    def demand(self, who: Who, console: Optional[Console], right: int, what: str) -> None:
        """Refuse what somebody may not do: on a console, or to the daemon. Raises Refusal."""
        rights = self._locks.rights
        if (rights.overall(who) if console is None else rights.on(who, console)) >= right:
            return
        whom = "vspcd" if console is None else visible(console.shown)
        text = f"{visible(who.name)} may not {VERBS[right]} {whom} (access)"
        self._audit.refused(what, who, console, text)
        raise Refusal("denied", text)

    def _client(self, console: Console, number: Optional[int], who: Who, what: str) -> ClientRecord:
        """The session that somebody acts for: this one, or the only one of his. Raises Refusal."""
        if number is None:
            own = [each for each in console.clients.values() if each.who.uid == who.uid]
            if len(own) != 1:
                have = "no session" if not own else f"{len(own)} sessions"
                raise Refusal(
                    "not-found", f"you have {have} on {visible(console.shown)}: name one by its number"
                )
            return own[0]
        client = console.clients.get(number)
        if client is None:
            raise Refusal("not-found", f"{visible(console.shown)} has no client {number}")
        if client.who.uid != who.uid and not self._locks.rights.is_privileged(who):
            text = f"client {number} of {visible(console.shown)} is not yours"
            self._audit.refused(what, who, console, text)
            raise Refusal("denied", text)
        return client

    # The requests.

    def who(self, message: Message, who: Who) -> Answer:
        """Everybody on a console, or on all that the asker may watch."""
        rights, query = self._locks.rights, message["console"]
        consoles = list(self._table.consoles.values()) if query is None else [self.find(query, who)]
        visible = rights.has(who, WATCH)
        yield from listed("who", "clients", _all_present(consoles, visible))
        yield {"type": "who", "clients": [], "end": True}, []

    def lock(self, message: Message, who: Who) -> Answer:
        """Nobody else may type from now on."""
        console = self.find(message["console"], who)
        self.demand(who, console, WRITE, "lock")
        client = self._client(console, message["client"], who, "lock")
        if self._locks.held(console, client.number):
            self._locked(console, who, "lock")
        kind = EXCLUSIVE if message["exclusive"] else LOCK
        yield self._give(console, client, kind, reason_of(message), who, "lock"), []

    def takeover(self, message: Message, who: Who) -> Answer:
        """The lock is somebody else's from now on: his own one, or with the right to take over."""
        console = self.find(message["console"], who)
        self.demand(who, console, WRITE, "takeover")
        client = self._client(console, message["client"], who, "takeover")
        lock = console.lock
        holder = None if lock is None else console.clients.get(lock.client)
        if holder is not None and (holder.who.uid is None or holder.who.uid != who.uid):
            self.demand(who, console, TAKE_OVER, "takeover")
        kind = LOCK if lock is None else lock.kind
        yield self._give(console, client, kind, reason_of(message), who, "takeover"), []

    def _give(
        self, console: Console, client: ClientRecord, kind: str, reason: Optional[str], who: Who, what: str
    ) -> dict[str, Any]:
        if client.right < WRITE:
            raise Refusal(
                "denied", f"client {client.number} may only watch {visible(console.shown)} (access)"
            )
        self._audit.did(what, who, console, client=client.number, kind=kind, reason=reason)
        self._locks.give(console, client, kind, reason, f"you have {WORDS[kind]}")
        return done(f"client {client.number} has {WORDS[kind]} on {visible(console.shown)}")

    def _locked(self, console: Console, who: Who, what: str) -> None:
        text = self._locks.refusal(console)
        self._audit.refused(what, who, console, text)
        raise Refusal(LOCKED, text)

    def unlock(self, message: Message, who: Who) -> Answer:
        """Nobody has the lock any more. One's own lock, or anybody's for who may administer the console."""
        console = self.find(message["console"], who)
        lock, name = console.lock, visible(console.shown)
        if lock is None or message["client"] not in (None, lock.client):
            raise Refusal(
                "bad-request", f"{name} is not locked" + ("" if lock is None else " by this client")
            )
        holder = console.clients.get(lock.client)
        if holder is None or holder.who.uid is None or holder.who.uid != who.uid:
            self.demand(who, console, ADMINISTER, "unlock")
        self._audit.did("unlock", who, console, client=lock.client)
        self._locks.end(console, f"unlocked by {visible(who.name)}", f"unlocked by {visible(who.name)}")
        yield done(f"{name} is unlocked"), []

    def mode(self, message: Message, who: Who) -> Answer:
        """A session only watches from now on, or types as well."""
        wanted = message["mode"]
        if wanted not in (RW, RO):
            raise Refusal("bad-request", f"the mode is rw or ro, not {wanted[:QUOTED]!r}")
        console = self.find(message["console"], who)
        client = self._client(console, message["client"], who, "mode")
        if wanted == RW:
            if client.right < WRITE:
                self.demand(client.who, console, WRITE, "mode")
            if self._locks.held(console, client.number):
                self._locked(console, who, "mode")
        elif console.lock is not None and console.lock.client == client.number:
            self._locks.end(console, "its holder only watches")
        client.asked = wanted
        client.mode = self._locks.effective(console, client)
        self._locks.tell_one(console, client, None)
        self._audit.did("mode", who, console, client=client.number, mode=client.mode)
        yield done(f"client {client.number} of {visible(console.shown)} is {client.mode}"), []

    def kick(self, message: Message, who: Who) -> Answer:
        """A session ends: one's own, or anybody's for who may administer the console."""
        console = self.find(message["console"], who)
        number, reason = message["client"], reason_of(message)
        client = console.clients.get(number)
        if client is None:
            raise Refusal("not-found", f"{visible(console.shown)} has no client {number}")
        if client.who.uid is None or client.who.uid != who.uid:
            self.demand(who, console, ADMINISTER, "kick")
        why = f"kicked by {visible(who.name)}" + (f": {visible(reason)}" if reason else "")
        self._audit.did("kick", who, console, client=number, whom=client.who.name, reason=reason)
        self._master.attachments.send_away(console, client, why)
        yield done(f"client {number} of {visible(console.shown)} has to leave"), []


def _all_present(
    consoles: Iterable[Console], visible: Callable[[Console], bool]
) -> Iterator[Optional[dict[str, Any]]]:
    """Everybody on those of these consoles, when it is their turn; None: a console of which nobody is told."""
    for console in consoles:
        if console.clients and visible(console):
            yield from list(present(console))
        else:
            yield None


def present(console: Console) -> Iterator[dict[str, Any]]:
    """Everybody on a console, as tools see them. Seconds since the epoch, or idle; bytes behind."""
    figures = {} if console.worker is None else console.worker.page.clients()
    head = 0 if console.worker is None else console.worker.page.words[HEAD]
    now = time.monotonic()
    for client in console.clients.values():
        cursor = figures[client.number].cursor if client.number in figures else None
        typed = typed_last(console, client.number)
        yield {
            "console": console.id,
            "name": console.name,
            "label": console.label or None,
            "id": client.number,
            "kind": client.kind,
            "from": client.origin,
            "user": client.who.certificate or client.who.user or None,
            "mode": client.mode,
            "asked": client.asked,
            "right": RIGHTS[client.right],
            "since": client.since,
            "lag": None if cursor is None else max(0, head - cursor),
            "idle": None if typed is None else max(0.0, round(now - typed, 1)),
            "lock": console.lock is not None and console.lock.client == client.number,
        }


def reason_of(message: Message) -> Optional[str]:
    """What somebody says why. Raises Refusal."""
    reason: Optional[str] = message["reason"]
    if reason is not None and len(reason) > REASON_LIMIT:
        raise Refusal("bad-request", f"a reason of more than {REASON_LIMIT} characters")
    return (reason or "").strip() or None


def done(text: str) -> dict[str, Any]:
    """The answer to a request that was granted."""
    return {"type": "ok", "message": text, "end": True}
