"""vspcctl import-vspc: takes over which VM has which port from vSPC.py.

Does: reads the DBM file of its File back end, or a list as ``vSPCClient -s HOST`` prints it; tells the daemon.
Owns: nothing; the file is only read.
Never: unpickles (``vspcd.proto.pickles`` reads plain values).
"""

from __future__ import annotations

import dbm
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.failure import FAILED, OK, Failure
from vspcd.ctl.outcome import Outcome, told
from vspcd.proto import pickles
from vspcd.proto.control import packed
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware_codes import format_uuid, parse_uuid

SQLITE = b"SQLite format 3\0"
BERKELEY_HASH, BERKELEY_BTREE = b"\x61\x15\x06\x00", b"\x62\x31\x05\x00"
DAMAGE: tuple[type[Exception], ...] = (ValueError, SyntaxError, *dbm.error)
ENDINGS = ("", ".dat", ".db", ".pag", ".dir")
LAST_PORT = 65535
NAME_LIMIT = 256
DEADLINE = 120.0
"""Seconds for all: each port is tried before it is taken over."""

AS_TEXT = "vSPCClient -s HOST > FILE   # with vSPC.py still running; then vspcctl import-vspc FILE"


Facts = dict[str, Any]


class Mapping(NamedTuple):
    """One VM: its UUID as people see it; port 0 is none."""

    uuid: str
    name: str
    port: int


class Unreadable(Exception):
    """One record that is none; the text says why."""


def run(arguments: Namespace) -> int:
    return told(lambda: _taken(arguments), arguments.json)


def _taken(arguments: Namespace) -> Outcome:
    found: dict[str, Mapping] = {}
    bad: list[str] = []
    for key, record in records(arguments.file):
        try:
            mapping = mapping_of(record)
            found[mapping.uuid] = mapping
        except (Unreadable, PeerError) as reason:
            bad.append(f"{visible(key)[:80]}: {reason}")
    for line in () if arguments.json else bad:
        sys.stderr.write(f"vspcctl: not taken over: {line}\n")
    if not found:
        raise Failure(f"{visible(arguments.file)} has no VM that can be taken over", FAILED)
    lines = _tell(arguments, sorted(found.values())) if not arguments.dry_run else _shown(found.values())
    code = FAILED if bad else OK
    if not arguments.json:
        for one in lines:
            sys.stdout.write("\t".join(visible(str(fact or "-")) for fact in one.values()) + "\n")
        return code, {}
    error = f"{len(bad)} could not be taken over" if bad else None
    return code, {"error": error, "consoles": list(lines), "bad": bad}


def _shown(mappings: Iterable[Mapping]) -> Iterator[Facts]:
    """What would be taken over."""
    for each in sorted(mappings, key=lambda one: (one.name, one.uuid)):
        yield {"name": each.name, "id": each.uuid, "port": each.port or None}


def _tell(arguments: Namespace, mappings: list[Mapping]) -> Iterator[Facts]:
    path = socket_path(arguments.socket, arguments.root)
    for some in packed(each._asdict() for each in mappings):
        with Client(path, DEADLINE) as client:
            for packet in client.ask({"type": "import", "consoles": some}):
                for one in packet.get("imported", ()):
                    yield {each: one[each] for each in ("name", "id", "port", "outcome")}


# What a record says.


def mapping_of(record: object) -> Mapping:
    """The VM of a record of vSPC.py. Raises Unreadable, PeerError."""
    if not isinstance(record, dict):
        raise Unreadable("it is no record of vSPC.py")
    facts = {_text(key): value for key, value in record.items()}
    port = facts.get("port") or 0
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= LAST_PORT:
        raise Unreadable(f"{visible(str(port))[:20]} is no port")
    uuid = format_uuid(parse_uuid(_text(facts.get("uuid"))))
    return Mapping(uuid, _text(facts.get("name") or "")[:NAME_LIMIT], port)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise Unreadable("it is no record of vSPC.py: uuid, name or port is missing")
    return value


# Where records come from.


def records(path: str) -> Iterator[tuple[str, object]]:
    """Each record with its key. Raises Failure when the file cannot be read as a whole."""
    head = _head(path)
    if head is not None and head.startswith(SQLITE):
        pairs = _from_sqlite(path)
    elif head is not None and _is_listing(head):
        yield from _from_listing(path)
        return
    else:
        pairs = _from_dbm(path, head)
    for key, value in pairs:
        try:
            yield key.decode("utf-8", "replace"), pickles.load(value)
        except PeerError as reason:
            yield key.decode("utf-8", "replace"), _Broken(str(reason))


class _Broken(NamedTuple):
    """A value that is no plain pickle; it is no dict, so it is told as one that cannot be taken over."""

    reason: str


def _head(path: str) -> Optional[bytes]:
    """The beginning of the file, None if there is only its prefix."""
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except FileNotFoundError:
        if any(os.path.exists(path + ending) for ending in ENDINGS):
            return None
        raise Failure(
            f"there is no {visible(path)}, nor {', '.join('FILE' + each for each in ENDINGS[1:])}",
            FAILED,
            "give what was behind vSPCServer's -f, without an ending",
        ) from None
    except OSError as error:
        raise Failure(f"{visible(path)} cannot be read: {error.strerror}") from None


def _is_listing(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0]
    return b"\0" not in head and line.count(b":") >= 1 and _parts(line.decode("utf-8", "replace")) is not None


def _parts(line: str) -> Optional[dict[str, object]]:
    """name:uuid or name:uuid:port. A name may have colons in it."""
    for count in (2, 1):
        name, *rest = line.rsplit(":", count)
        try:
            if len(rest) == count:
                parse_uuid(rest[0])
                return {"name": name, "uuid": rest[0], "port": int(rest[1]) if count == 2 else None}
        except (PeerError, ValueError):
            continue
    return None


def _from_listing(path: str) -> Iterator[tuple[str, object]]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                yield line.strip(), _parts(line.strip())


def _from_sqlite(path: str) -> Iterator[tuple[bytes, bytes]]:
    """dbm.sqlite3, from Python 3.13 on."""
    import sqlite3
    from urllib.parse import quote

    try:
        with sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM Dict").fetchall()
    except sqlite3.Error as error:
        raise Failure(f"{visible(path)} is no DBM file of Python's: {error}") from None
    yield from rows


def _from_dbm(path: str, head: Optional[bytes]) -> Iterator[tuple[bytes, bytes]]:
    if head is not None and head[12:16] in (BERKELEY_HASH, BERKELEY_BTREE):
        raise Failure(f"{visible(path)} is a Berkeley DB, which Python 3 cannot read", FAILED, AS_TEXT)
    try:
        kind = dbm.whichdb(path)
    except OSError as error:
        raise Failure(f"{visible(path)} cannot be read: {error}") from None
    if not kind:
        raise Failure(f"{visible(path)} is neither a DBM file nor a list of VMs", FAILED, AS_TEXT)
    try:
        yield from _opened(kind, path)
    except ImportError:
        package = {"dbm.gnu": "python3-gdbm", "dbm.ndbm": "python3-dbm"}.get(kind, "python3")
        raise Failure(
            f"{visible(path)} is a file of {kind}, which this Python has not got ({package})", FAILED, AS_TEXT
        ) from None
    except DAMAGE as error:
        raise Failure(f"{visible(path)} is damaged: {visible(str(error))}", FAILED, AS_TEXT) from None


def _opened(kind: str, path: str) -> Iterator[tuple[bytes, bytes]]:
    from importlib import import_module

    database: Any = import_module(kind).open(path, "r")
    try:
        for key in list(database.keys()):
            yield bytes(key), bytes(database[key])
    finally:
        database.close()
