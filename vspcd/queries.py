"""The admin port: what vSPC.py's own client asks, in vSPC.py's query protocol.

Does: reads the version, the VM's name and the lock mode; lists the consoles, or lets the client onto one.
Owns: the conversations until they are over; then the console's worker has the connection.
Never: unpickles (``vspcd.proto.pickles`` reads plain values), waits for anybody for long, keeps a list in memory that
nobody reads.

The client speaks first: its version. The answer is the older one of both. Versions 3 and 2 go on with the name, or
None for a list, and the lock mode; version 1 only has the list.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Optional

from vspcd import peers
from vspcd.attachments import Objection, Wish
from vspcd.core.access import EXCLUSIVE, LOCK, RO, RW, Grant
from vspcd.core.names import Ambiguous, found, visible
from vspcd.core.rights import WATCH, Who
from vspcd.proto import pickles
from vspcd.proto.errors import PeerError
from vspcd.table import Console
from vspcd.unix import listen
from vspcd.unix.loop import READ, WRITE

if TYPE_CHECKING:
    from vspcd.master import Master

VERSION = 3
CONVERSATIONS = 64
ASK_WITHIN = 5.0  # seconds for the questions
READ_WITHIN = 30.0  # seconds for the answer
PIECE = 16384  # bytes of an answer that wait for a client
PEEKED = 4096
TELL_EVERY = 1.0
NAME_LIMIT = 400  # characters

FOUND, NOT_FOUND, BAD_LOCK, LOCKED = "vm_found", "vm_not_found", "lock_invalid", "lock_failed"
EXCLUSIVELY, WRITING, FREE, FREE_OR_READ_ONLY = (
    "exclusive",
    "write",
    "free_for_all",
    "free_for_all_or_readonly",
)
NOT_FOR_YOU = b"vspcd: this port speaks vSPC.py's query protocol, for its vSPCClient; people use vspcctl\r\n"


class LockMode(NamedTuple):
    """What a lock mode of vSPC.py is with us."""

    mode: str
    fallback: bool = False


MODES: Mapping[str, LockMode] = MappingProxyType(
    {
        EXCLUSIVELY: LockMode(EXCLUSIVE),
        WRITING: LockMode(LOCK),
        FREE: LockMode(RW),
        FREE_OR_READ_ONLY: LockMode(RW, fallback=True),
    }
)
GRANTED: Mapping[Optional[str], str] = MappingProxyType({EXCLUSIVE: EXCLUSIVELY, LOCK: WRITING, None: FREE})


class Queries:
    """The conversations of one daemon."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self._conversations: dict[Conversation, None] = {}  # the oldest first
        self._untold = 0  # refusals since the last line in the log
        self._told = 0.0

    def came(self, sock: socket.socket, peer: str) -> None:
        """Somebody has come to the admin port. If there are many, whoever has asked nothing for longest has to go."""
        if len(self._conversations) >= CONVERSATIONS:
            idle = next((each for each in self._conversations if not each.answering), None)
            if idle is None:
                sock.close()
                return
            idle.end("others wait, and it has asked nothing")
        listen.keep_alive(sock)
        self._conversations[Conversation(self, sock, peer)] = None

    def over(self, conversation: Conversation) -> None:
        """One less."""
        self._conversations.pop(conversation, None)

    def refused(self, peer: str, reason: str) -> None:
        """Log it, with those that came too soon after the one before: a storm must not fill the log."""
        self._untold += 1
        if time.monotonic() - self._told >= TELL_EVERY:
            self.master.log.warning("query-refused", peer=peer, reason=visible(reason), count=self._untold)
            self._told, self._untold = time.monotonic(), 0

    # What is answered.

    def known(self, who: Who) -> list[Console]:
        """The consoles that somebody may watch."""
        return self.master.locks.rights.those(who, self.master.table.consoles.values(), WATCH)

    def find(self, name: object, who: Who) -> Optional[Console]:
        """The console with just this name or identity; a beginning is not enough, since scripts ask."""
        query = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        if not isinstance(query, str) or len(query) > NAME_LIMIT:
            return None
        try:
            return found(query, self.known(who), whole=True)
        except Ambiguous:
            return None


class Conversation:
    """One client: its questions, then the answer."""

    def __init__(self, queries: Queries, sock: socket.socket, peer: str) -> None:
        self.answering = False
        self._queries = queries
        self._master = queries.master
        self._loop = queries.master.loop
        self._sock = sock
        self._who = peers.at_address(peer)
        self._questions = pickles.Reader(3)
        self._strings: type = str
        self._version = 0
        self._out = bytearray()
        self._rest: Iterator[bytes] = iter(())
        self._loop.watch(sock.fileno(), READ, self._ready)
        self._deadline = self._loop.call_later(ASK_WITHIN, lambda: self.end("it has not asked in time"))

    def _ready(self, _events: int) -> None:
        if self.answering:
            self._send()
            return
        try:
            self._hear()
        except PeerError as fault:
            if not self._version:
                self._say(NOT_FOR_YOU)
            self.end(str(fault))

    # The questions.

    def _hear(self) -> None:
        """Take what belongs to the questions; what is behind them is typed already."""
        try:
            data = self._sock.recv(PEEKED, socket.MSG_PEEK)
            if not data:
                self.end(None)
                return
            used = self._questions.receive(data)
            self._sock.recv(used)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(error.strerror)
            return
        values = self._questions.values
        if values and not self._version:
            self._agree(values[0])
        if self._version == 1:
            self._list([])
        elif self._questions.complete and self._version:
            self._decide(values[1], values[2])

    def _agree(self, version: object) -> None:
        """The older version of both. Raises PeerError."""
        if not isinstance(version, int) or isinstance(version, bool):
            raise PeerError("it does not begin with the version of its protocol")
        if version < 1:
            raise PeerError(f"version {version} of the protocol")
        self._version = min(VERSION, version)
        self._say(pickles.dump(self._version))

    def _decide(self, name: object, asked: object) -> None:
        if isinstance(asked, bytes):
            self._strings = bytes  # Python 2: it wants its own strings back
        mode = asked.decode("ascii", "replace") if isinstance(asked, bytes) else asked
        console = self._queries.find(name, self._who)
        if console is None:
            self._list([NOT_FOUND])
        elif not isinstance(mode, str) or mode not in MODES:
            self._finish(iter([self._dumped(BAD_LOCK)]))
        else:
            self._attach(console, MODES[mode])

    def _dumped(self, value: object) -> bytes:
        return pickles.dump(value, self._strings)

    # A list.

    def _list(self, before: Sequence[str]) -> None:
        consoles = self._queries.known(self._who)
        lists = {1: self._in_one, 2: self._in_one, 3: self._one_by_one}
        status = [self._dumped(each) for each in before]
        self._finish(iter([*status, *self._heading(len(consoles))]), lists[self._version](consoles))

    def _heading(self, count: int) -> list[bytes]:
        return [self._dumped(count)] if self._version == VERSION else []

    def _one_by_one(self, consoles: Sequence[Console]) -> Iterator[bytes]:
        return (self._dumped(shown(each)) for each in consoles)

    def _in_one(self, consoles: Sequence[Console]) -> Iterator[bytes]:
        """One pickled list; version 1 has the version beside it."""
        both = self._version == 1
        # The marks of the tuple and of the list.
        yield pickles.START + (b"(" + pickles.item(self._version) if both else b"") + b"("
        for each in consoles:
            yield pickles.item(shown(each), self._strings)
        yield b"l" + (b"t" if both else b"") + pickles.END

    # A console.

    def _attach(self, console: Console, how: LockMode) -> None:
        """The connection is the console's worker's from now on, or over."""
        self._leave()
        master = self._master
        if master.stopping:
            self._sock.close()
            return
        replay = master.config.clients.replay
        seed = "bytes" if self._strings is bytes else "text"
        wish = Wish(
            "telnet", self._who, how.mode, replay, how.fallback, seed=seed, answer=self._granted_or_not
        )
        master.attachments.attach(console, wish, self._sock, next(master.table.numbers))

    def _granted_or_not(self, outcome: Grant | Objection) -> None:
        """Say it before anybody else says anything."""
        if isinstance(outcome, Objection):
            self._say(self._dumped(LOCKED))
            return
        read_only = outcome.mode == RO
        granted = FREE_OR_READ_ONLY if read_only else GRANTED[outcome.lock]
        self._say(self._dumped(FOUND) + self._dumped(granted))

    # Answers.

    def _say(self, data: bytes) -> None:
        """A few bytes, for which every connection has room at this point."""
        try:
            self._sock.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has left, which is noticed when it is read

    def _finish(self, *parts: Iterator[bytes]) -> None:
        """Answer with all of this, as fast as it is read, and hang up."""
        self.answering = True
        self._deadline.cancel()
        self._deadline = self._loop.call_later(READ_WITHIN, lambda: self.end("it does not read the answer"))
        self._rest = (piece for part in parts for piece in part)
        self._loop.change(self._sock.fileno(), WRITE)

    def _send(self) -> None:
        for piece in self._rest:
            self._out += piece
            if len(self._out) >= PIECE:
                break
        try:
            del self._out[: self._sock.send(self._out, socket.MSG_NOSIGNAL)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(error.strerror)
            return
        if not self._out:
            self._out += next(self._rest, b"")
            if not self._out:
                self._hang_up()

    def _leave(self) -> None:
        self._deadline.cancel()
        self._loop.forget(self._sock.fileno())
        self._queries.over(self)

    def _hang_up(self) -> None:
        self._leave()
        self._sock.close()

    def end(self, reason: Optional[str]) -> None:
        """It is over; with a reason, before it has what it wanted."""
        if reason is not None:
            self._queries.refused(self._who.address, reason)
        self._hang_up()


def shown(console: Console) -> dict[str, object]:
    """A console in a list."""
    return {"name": console.shown, "uuid": console.id, "port": console.port if console.port_open else None}
