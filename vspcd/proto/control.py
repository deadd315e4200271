"""Control messages: what master, workers and vspcctl may say to each other, in one table.

Does: encodes and checks messages. One JSON object of at most 64 KiB per packet, with the file descriptors
that the table names beside it.
Owns: nothing.
Never: touches a socket; accepts a field that the table does not name.

``TABLE`` is the law: who may send a message, in which state of the sender, with which fields and how many
descriptors. A worker that speaks out of turn is killed; a tool that does gets an error. ``LIMITS`` says how much a
worker may say in each field, so that whatever is kept of it can be passed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from vspcd.proto import jsontext
from vspcd.proto.errors import LocalError, PeerError

PACKET_LIMIT = 65536
_DECODER = json.JSONDecoder()
ROOM = 60000  # what a list may take of a packet; the rest is for the fields beside it
QUOTED = 100  # characters of somebody else's text that an error repeats

MASTER, WORKER, TOOL, KEEPER, TLS = "master", "worker", "tool", "keeper", "tls"
HOOKS, WATCHER = "hooks", "watcher"
ORPHAN = "orphan"  # a worker or TLS helper whose master is dead, until the next one knows it

# States of a worker, as the master sees it.
NEGOTIATING = "negotiating"  # it has a VM connection and does not know whose yet
CLAIMING = "claiming"  # it has asked for a console and waits
OWNER = "owner"  # it serves a console
LEAVING = "leaving"  # it was told to go, or has said that it goes
ANY = frozenset({NEGOTIATING, CLAIMING, OWNER, LEAVING})

Message = dict[str, Any]


class Rule(NamedTuple):
    """One message: its fields with their types, the sender's states in which it is allowed, its descriptors."""

    fields: Mapping[str, type | tuple[type, ...]]
    when: frozenset[str] = ANY
    fds: int = 0


_OPTIONAL_TEXT = (str, type(None))
_OPTIONAL_FACTS = (dict, type(None))
_OPTIONAL_NUMBER = (int, type(None))
_OPTIONAL_BOOL = (bool, type(None))
_OPTIONAL_LIST = (list, type(None))
_NUMBER = (int, float)
_OWNER = frozenset({OWNER, LEAVING})
_CLIENT_THAT_STAYS = Rule(  # to the heir of its worker, or to a master who does not know it yet
    {
        "client": int,
        "kind": str,
        "from": str,
        "mode": str,
        "terminal": _OPTIONAL_FACTS,
        "facts": _OPTIONAL_FACTS,
    },
    fds=1,
)

TABLE: Mapping[str, Mapping[str, Rule]] = {
    WORKER: {
        "claim": Rule(
            {"uuid": str, "label": str, "name": _OPTIONAL_TEXT, "session": dict}, frozenset({NEGOTIATING})
        ),
        "source": Rule({"peer": str}, frozenset({NEGOTIATING})),
        "tls": Rule({}, frozenset({NEGOTIATING})),
        "probe": Rule({"leg": int}, _OWNER),
        "peer": Rule({"pair": str, "session": dict}, frozenset({NEGOTIATING})),
        "failed": Rule({"reason": str}, frozenset({NEGOTIATING, CLAIMING, LEAVING})),
        "took": Rule({"leg": int, "session": _OPTIONAL_FACTS, "move": _OPTIONAL_FACTS}, _OWNER),
        "rejected": Rule({"leg": int, "reason": str}, _OWNER),
        "connected": Rule({"leg": int, "session": dict, "move": (dict, type(None))}, _OWNER),
        "disconnected": Rule({"leg": int, "reason": str}, _OWNER),
        "closed": Rule({"leg": int}, _OWNER),
        "moving": Rule({"pair": str, "seconds": _NUMBER}, _OWNER),
        "revoke": Rule({"pair": str}, _OWNER),
        "moved": Rule({"record": dict, "slow": bool}, _OWNER),
        "facts": Rule(
            {
                "name": _OPTIONAL_TEXT,
                "bios_uuid": _OPTIONAL_TEXT,
                "location_uuid": _OPTIONAL_TEXT,
                "line": dict,
            },
            _OWNER,
        ),
        "session": Rule(
            {"leg": int, "session": dict, "move": _OPTIONAL_FACTS}, frozenset({NEGOTIATING, OWNER, LEAVING})
        ),
        "quarantined": Rule({"leg": int, "file": str, "bytes": int}, _OWNER),
        "terminal": Rule({"client": int, "state": dict}, _OWNER),
        "client-kind": Rule({"client": int, "kind": str}, _OWNER),
        "detached": Rule({"client": int, "reason": str}, _OWNER),
        "break": Rule({"client": int, "count": int}, _OWNER),
        "idle": Rule({}, _OWNER),
        "pong": Rule({}),
    },
    MASTER: {
        "own": Rule({"console": dict, "resume": bool}),  # uuid, label, name
        "refuse": Rule({"reason": str}),
        "handed": Rule({}),
        "resume-leg": Rule({"leg": int, "peer": str, "session": dict, "secured": bool, "role": str}, fds=1),
        "resume-client": Rule(
            {
                **_CLIENT_THAT_STAYS.fields,
                "replay": int,  # this and what follows as in "client", for one that the dead worker had not met
                "seed": _OPTIONAL_TEXT,
                "notice": _OPTIONAL_TEXT,
            },
            fds=1,
        ),
        "resumed": Rule({"move": _OPTIONAL_FACTS, "known": _OPTIONAL_FACTS}),
        "retire": Rule({}),
        "welcome": Rule({"page": int, "settings": dict}, fds=2),  # the arena; the pipe to the keeper
        "adopted": Rule({}),
        "ping": Rule({}),
        "leg": Rule({"leg": int, "peer": str, "session": dict, "secured": bool}, fds=1),
        "target": Rule({"leg": int, "peer": str, "session": dict, "secured": bool, "pair": str}, fds=1),
        "plaintext": Rule({}, fds=1),
        "probed": Rule({"leg": int, "alive": bool}),
        "stranger": Rule({}),
        "client": Rule(
            {
                "client": int,
                "kind": str,
                "from": str,
                "mode": str,
                "replay": int,
                "seed": _OPTIONAL_TEXT,  # "text" or "bytes": the replay is a pickled string of that kind
                "notice": _OPTIONAL_TEXT,
                "facts": _OPTIONAL_FACTS,  # the master's own; it wants them back from a worker that outlives it
            },
            fds=1,
        ),
        "mode": Rule({"client": int, "mode": str, "notice": _OPTIONAL_TEXT, "facts": _OPTIONAL_FACTS}),
        "detach": Rule({"client": int, "reason": str}),
        "settings": Rule({"settings": dict}),
        "reopen": Rule({}),
        "in-doubt": Rule({}),  # the page says what of the log the disk may not have
        "quit": Rule({"reason": str}),
        "changes": Rule({"number": int, "changes": list}),
        "load": Rule({}),
        "audit": Rule({"number": int, "file": str, "lines": list}),
        "job": Rule(
            {
                "number": int,
                "facts": dict,
                "run": list,
                "post": str,
                "timeout": _NUMBER,
                "began": _OPTIONAL_FACTS,  # how far a dead helper was with it
            }
        ),
        "names": Rule({"names": list}),  # [console, name or null]
        "adopt": Rule({"leg": int, "peer": str}, fds=2),  # its connection; our end of the plaintext
        "probe": Rule({"leg": int}),
    },
    ORPHAN: {
        "here": Rule({"kind": str, "layout": int}),  # of its page
        "worker": Rule(
            {"state": str, "console": _OPTIONAL_FACTS, "move": _OPTIONAL_FACTS, "known": _OPTIONAL_FACTS}
        ),
        "leg": Rule(
            {"leg": int, "peer": str, "session": _OPTIONAL_FACTS, "secured": bool, "feeds": bool}, fds=1
        ),
        "client": _CLIENT_THAT_STAYS,
        "helper": Rule({"clients": bool, "legs": list, "securing": list, "certificate": _OPTIONAL_FACTS}),
        "complete": Rule({}),
    },
    KEEPER: {
        "entries": Rule({"entries": list}),
        "loaded": Rule({"notes": list}),
        "kept": Rule({"number": int}),
        "failed": Rule({"number": int, "reason": str}),
        "audited": Rule({"number": int, "reason": _OPTIONAL_TEXT}),
        "not-synced": Rule({"console": str, "bytes": int, "reason": str}),
        "in-doubt": Rule({"page": int}),
        "pong": Rule({}),
    },
    HOOKS: {
        "began": Rule({"number": int, "began": dict}),
        "ended": Rule({"number": int}),
        "pong": Rule({}),
    },
    WATCHER: {
        "triggered": Rule({"trigger": str, "matches": list, "consoles": int}),
        "pong": Rule({}),
    },
    TLS: {
        "secured": Rule(
            {"leg": int, "version": str, "cipher": str, "subject": _OPTIONAL_TEXT, "name": _OPTIONAL_TEXT}
        ),
        "tls-failed": Rule({"leg": int, "reason": str}),
        "tls-ended": Rule({"leg": int}),
        "probed": Rule({"leg": int, "alive": bool}),
        "certificate": Rule({"sha1": str, "sha256": str, "not_after": int, "subject": str, "names": list}),
        "bad-certificate": Rule({"reason": str}),
        "pong": Rule({}),
    },
    TOOL: {
        "status": Rule(
            {"console": _OPTIONAL_TEXT, "fields": _OPTIONAL_LIST}
        ),  # of a console; null: all there are
        "attach": Rule(
            {
                "console": str,
                "replay": _OPTIONAL_NUMBER,
                "mode": _OPTIONAL_TEXT,
                "fallback": _OPTIONAL_BOOL,
                "reason": _OPTIONAL_TEXT,
            }
        ),
        "who": Rule({"console": _OPTIONAL_TEXT}),
        "lock": Rule(
            {
                "console": str,
                "client": _OPTIONAL_NUMBER,
                "reason": _OPTIONAL_TEXT,
                "exclusive": _OPTIONAL_BOOL,
            }
        ),
        "unlock": Rule({"console": str, "client": _OPTIONAL_NUMBER}),
        "takeover": Rule({"console": str, "client": _OPTIONAL_NUMBER, "reason": _OPTIONAL_TEXT}),
        "mode": Rule({"console": str, "client": int, "mode": str}),
        "kick": Rule({"console": str, "client": int, "reason": _OPTIONAL_TEXT}),
        "forget": Rule({"console": str}),
        "unpark": Rule({"console": str}),
        "import": Rule({"consoles": list}),  # each with uuid, name, port
        "reload": Rule({}),
        "upgrade": Rule({"workers": bool}),
        "stop": Rule({}),
    },
}

LIMITED = frozenset({WORKER, ORPHAN})
LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "uuid": 40,
        "label": 40,
        "name": 1600,  # 256 characters, however they are escaped
        "bios_uuid": 40,
        "location_uuid": 40,
        "line": 1000,
        "peer": 256,
        "pair": 1100,  # in hexadecimal
        "session": 60000,  # replies that wait, early console bytes, and what telnet has come to
        "move": 4000,
        "record": 600,
        "reason": 16000,  # may name a path
        "file": 5000,
        "kind": 20,
        "state": 40000,  # of a client's telnet; of a worker, one word
        "terminal": 40000,
        "from": 100,
        "mode": 20,
        "facts": 8000,
        "console": 2000,
        "known": 16000,
        "legs": ROOM,
        "securing": ROOM,
        "certificate": ROOM,
    }
)
"""Bytes of JSON for each field of those who are ``LIMITED``. What goes from one worker to another, such as a session,
leaves room for the rest of its packet."""

UNICODE = frozenset({"uuid", "label", "name", "bios_uuid", "location_uuid", "console"})
"""Fields that go into the port map, which takes no half of a surrogate pair."""

DEEPEST = 20  # values in one another
NUMBER_LIMIT = 1 << 53


def encode(message: Mapping[str, Any]) -> bytes:
    """The packet for a message. Raises LocalError when it does not fit into one."""
    data = _json(message)
    if len(data) > PACKET_LIMIT:
        raise LocalError(f"a {message.get('type')} message of {len(data)} bytes does not fit into a packet")
    return data


def packed(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items in lists that fit into a packet each. LocalError when one alone does not."""
    packet: list[Any] = []
    room = ROOM
    for item in items:
        size = size_of(item) + 1
        if size > ROOM:
            raise LocalError(f"an item of {size} bytes does not fit into a packet")
        if size > room:
            yield packet
            packet, room = [], ROOM
        packet.append(item)
        room -= size
    if packet:
        yield packet


class Listing:
    """A message of one list, filled item by item: each is encoded once. ``kind`` is the message's type, ``key`` the
    list's name."""

    def __init__(self, kind: str, key: str) -> None:
        self._before = f'{{"type":"{kind}","{key}":['.encode()
        self._items: list[bytes] = []
        self._size = 0

    def take(self, item: bytes) -> bool:
        """Put in an item that is ``encoded``, if the packet has room. LocalError when no packet has."""
        if len(item) >= ROOM:
            raise LocalError(f"an item of {len(item)} bytes does not fit into a packet")
        if self._size + len(item) + 1 > ROOM:
            return False
        self._items.append(item)
        self._size += len(item) + 1
        return True

    def packet(self) -> bytes:
        """The message with what it has taken, which is empty again."""
        items, self._items, self._size = self._items, [], 0
        return self._before + b",".join(items) + b"]}"


def encoded(value: Any) -> bytes:
    """A value as it stands in a packet."""
    return _json(value)


def size_of(value: Any) -> int:
    """How many bytes it takes in a packet."""
    return len(_json(value))


def _json(value: Any) -> bytes:
    return jsontext.text(value).encode("utf-8", "surrogatepass")


def decode(data: bytes) -> Message:
    """The JSON object of a packet. Raises PeerError on anything else."""
    try:
        message = _DECODER.decode(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"a control packet that is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PeerError("a control packet without a type")
    return message


def check(message: Message, sender: str, state: str, fds: int) -> str:
    """The type of a message that ``sender`` may send in ``state``; PeerError says what was wrong otherwise."""
    kind: str = message["type"]
    rule = TABLE[sender].get(kind)
    if rule is None:
        raise PeerError(f"unknown request {kind[:QUOTED]!r}")
    if state not in rule.when:
        raise PeerError(f"{kind} is not allowed while {state}")
    if fds != rule.fds:
        raise PeerError(f"{kind} came with {fds} descriptors instead of {rule.fds}")
    for name, wanted in rule.fields.items():
        value = message.setdefault(name, None) if isinstance(None, wanted) else message.get(name)
        if not isinstance(value, wanted) or (
            isinstance(value, bool) and wanted not in (bool, _OPTIONAL_BOOL)
        ):
            raise PeerError(f"{kind} without a proper {name}")
        if isinstance(value, (int, float)) and not abs(value) < NUMBER_LIMIT:  # nor NaN
            raise PeerError(f"{kind} with an impossible {name}")
        if sender in LIMITED and isinstance(value, (str, dict, list)):
            _check_size(f"{kind} with a {name}", value, LIMITS[name], name in UNICODE)
    unknown = set(message) - set(rule.fields) - {"type"}
    if unknown:
        raise PeerError(f"{kind} with the unknown field {min(unknown)[:QUOTED]!r}")
    return kind


def _check_size(what: str, value: Any, limit: int, unicode: bool) -> None:
    """PeerError when it takes more than ``limit`` bytes, or cannot be said again."""
    if isinstance(value, str) and 6 * len(value) + 2 <= limit and not unicode:
        return  # however it is escaped
    try:
        text = jsontext.text(value).encode("utf-8", "strict" if unicode else "surrogatepass")
    except UnicodeEncodeError:
        raise PeerError(f"{what} that is no text") from None
    except (ValueError, RecursionError):
        raise PeerError(f"{what} that is too deep") from None
    if len(text) > limit:
        raise PeerError(f"{what} of {len(text)} bytes, more than {limit}")
    if text.count(b"{") + text.count(b"[") > DEEPEST and not _is_flat(value, DEEPEST):
        raise PeerError(f"{what} that is too deep")


def _is_flat(value: Any, deepest: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return deepest > 0 and all(_is_flat(each, deepest - 1) for each in inner)
