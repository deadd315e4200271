"""The state that a daemon hands to the version that takes its place: what it holds, and how it is checked.

Does: writes the state into a memory file, reads it back, checks each field and each descriptor.
Owns: the format. ``State`` is the law: what is not as it says is not trusted, and nothing of it is used.
Never: acts on a state (``vspcd.inheritance`` does); closes a descriptor.

The memory file holds one line of JSON about the state (format, version, length, SHA-256) and then the state as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Optional, Union, get_args, get_origin, get_type_hints

from vspcd.core.names import visible
from vspcd.unix import process

FORMAT = 1
VARIABLE = "VSPCD_HANDOVER"
HEAD_LIMIT = 1000
STATE_LIMIT = 1 << 30
QUOTED = 100
RESTART = "restart vspcd: VMs then have to dial again"


class Unfit(Exception):
    """This state cannot be used; the text says why."""


class Descriptor(int):
    """The number of a descriptor that is inherited, of the kind that its class says."""

    def fits(self) -> bool:
        """Whether it is open and of this kind."""
        raise NotImplementedError


class Socket(Descriptor):
    families: frozenset[int] = frozenset()
    type = socket.SOCK_STREAM
    listening = 0

    def fits(self) -> bool:
        if not stat.S_ISSOCK(os.fstat(self).st_mode):
            return False
        sock = socket.socket(fileno=self)
        try:
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return (sock.family in self.families, sock.type, listening) == (True, self.type, self.listening)
        finally:
            sock.detach()


class TcpListener(Socket):
    families = frozenset({socket.AF_INET, socket.AF_INET6})
    listening = 1


class UnixListener(Socket):
    families = frozenset({socket.AF_UNIX})
    listening = 1


class PacketListener(UnixListener):
    type = socket.SOCK_SEQPACKET


class Packets(Socket):
    families = frozenset({socket.AF_UNIX})
    type = socket.SOCK_SEQPACKET


class Parked(Socket):
    """A leg or a client: TCP, a console's Unix socket, or vspcctl's packets."""

    families = TcpListener.families | UnixListener.families

    def fits(self) -> bool:
        return super().fits() or Packets(self).fits()


class Directory(Descriptor):
    def fits(self) -> bool:
        return stat.S_ISDIR(os.fstat(self).st_mode)


class File(Descriptor):
    def fits(self) -> bool:
        return stat.S_ISREG(os.fstat(self).st_mode)


class Pipe(Descriptor):
    def fits(self) -> bool:
        return stat.S_ISFIFO(os.fstat(self).st_mode)


class Process(Descriptor):
    def fits(self) -> bool:
        with open(f"/proc/self/fdinfo/{int(self)}", encoding="ascii") as info:
            return "\nPid:" in info.read()


@dataclass
class DoorState:
    name: str
    host: str
    port: int
    fd: TcpListener


@dataclass
class RecordState:
    """A leg's or client's record in the table, and its parked descriptor; None when a move has left the leg behind."""

    facts: dict[str, Any]
    fd: Optional[Parked]


@dataclass
class WorkerState:
    pid: int
    channel: Packets
    page: int
    state: str
    legs: list[int]
    console: Optional[str]
    quitting: bool
    retiring: bool
    hung: bool
    pidfd: Optional[Process]


@dataclass
class ConsoleState:
    facts: dict[str, Any]
    worker: Optional[int]
    leg: Optional[int]
    clients: list[RecordState]
    tcp: Optional[TcpListener]
    unix: Optional[UnixListener]


@dataclass
class ClaimState:
    facts: dict[str, Any]
    leg: int
    console: str
    claimant: Optional[int]


@dataclass
class MoveState:
    place: str
    console: str
    due: float


@dataclass
class HelperState:
    pid: int
    channel: Packets
    clients: bool
    legs: list[int]
    retiring: bool
    pidfd: Optional[Process]


@dataclass
class ConversationState:
    """A tool's connection; ``request`` is what it waits for the end of."""

    fd: Packets
    request: Optional[dict[str, Any]]


@dataclass
class State:
    """All that the daemon is. Legs, consoles and workers are named by number, id and pid. Times are monotonic."""

    version: str
    began: float
    frozen: float
    next_number: int
    settings: dict[str, str]
    run: str
    directory: Directory
    lock: File
    arena: File
    layout: int
    sync: list[Pipe]
    doors: list[DoorState]
    control: PacketListener
    adoption: PacketListener
    legs: list[RecordState]
    workers: list[WorkerState]
    consoles: list[ConsoleState]
    claims: list[ClaimState]
    unexplained: dict[str, str]
    move_key: str
    moves: list[MoveState]
    refused: list[dict[str, Any]]
    helpers: list[HelperState]
    securing: list[int]
    certificate: Optional[dict[str, Any]]
    conversations: list[ConversationState]


class Head(NamedTuple):
    """What the memory file says of the state before the state itself."""

    format: int
    version: str
    size: int
    sha256: str


def pack(state: State) -> int:
    """A memory file with the state. Raises OSError when there is no room for it."""
    data = json.dumps(asdict(state), separators=(",", ":")).encode("utf-8", "surrogatepass")
    head = Head(FORMAT, state.version, len(data), _checksum(FORMAT, state.version, data))
    fd = os.memfd_create("vspcd-handover")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(json.dumps(head._asdict()).encode() + b"\n")
            file.write(data)
    except OSError:
        os.close(fd)
        raise
    return fd


def _checksum(format_: int, version: str, data: bytes) -> str:
    return hashlib.sha256(f"{format_} {version} ".encode() + data).hexdigest()


def unpack(fd: int) -> State:
    """The state in a memory file. Raises Unfit. Its descriptors are not looked at."""
    try:
        size = os.fstat(fd).st_size
        content = os.pread(fd, min(size, STATE_LIMIT), 0)
        while len(content) < min(size, STATE_LIMIT):
            content += os.pread(fd, STATE_LIMIT, len(content)) or b"\0"
    except OSError as error:
        raise Unfit(f"it cannot be read: {error.strerror}") from None
    line, _, data = content.partition(b"\n")
    try:
        told = json.loads(line[:HEAD_LIMIT])
        if isinstance(told, dict) and told.get("format", FORMAT) != FORMAT:
            raise Unfit(
                f"its format is {visible(repr(told['format']))[:QUOTED]}, and this version knows {FORMAT};"
                f" to change to this version, {RESTART}"
            )
        head = Head(**told)
        if (len(data), _checksum(head.format, head.version, data)) != (head.size, head.sha256):
            raise Unfit("it is damaged: its checksum is wrong")
        state: State = read(State, json.loads(data), "the state")
    except (ValueError, TypeError, RecursionError) as error:
        raise Unfit(f"it cannot be understood: {error}") from None
    return state


def read(kind: Any, value: Any, name: str) -> Any:
    """A value of this type from what JSON has made of it. Raises Unfit, which names the place."""
    if is_dataclass(kind):
        return _record(kind, value, name)
    origin, of = get_origin(kind), get_args(kind)
    if origin is Union:  # Optional: there is no other
        return None if value is None else read(of[0], value, name)
    if origin in (tuple, list) and isinstance(value, list):
        kinds = of if origin is tuple else of * len(value)
        if len(kinds) == len(value):
            return origin(
                read(each, item, f"{name}[{at}]") for at, (each, item) in enumerate(zip(kinds, value))
            )
    if origin is dict and isinstance(value, dict):
        return {key: read(of[1], each, f"{name}.{key[:QUOTED]}") for key, each in value.items()}
    if kind is Any or _is_plain(kind, value):
        return value if kind is Any else kind(value)
    raise Unfit(f"{name} is {str(value)[:QUOTED]!r}")


def _is_plain(kind: Any, value: Any) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(kind, type):
        return False
    if issubclass(kind, Descriptor):
        return type(value) is int and value > max(process.KEPT)
    return type(value) is kind


def _record(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise Unfit(f"{name} is no record")
    return kind(**checked(kind, value, name))


def plain(record: Any, but: frozenset[str]) -> dict[str, Any]:
    """The fields of a record, those left out that JSON has no word for."""
    return {each.name: getattr(record, each.name) for each in fields(record) if each.name not in but}


def checked(
    kind: Any, facts: Mapping[str, Any], name: str, but: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The same fields again; one that this version has added may be missing. Raises Unfit."""
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind) if each.name not in but}
    unknown = facts.keys() - known.keys()
    if unknown:
        raise Unfit(f"{name} has the unknown field {min(unknown)[:QUOTED]!r}")
    found: dict[str, Any] = {}
    for label, each in known.items():
        if label in facts:
            found[label] = read(hints[label], facts[label], f"{name}.{label}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise Unfit(f"{name} has no field {label!r}")
    return found


def descriptors(value: Any) -> Iterator[Descriptor]:
    """All descriptors in a state."""
    if isinstance(value, Descriptor):
        yield value
    elif is_dataclass(value):
        for each in fields(value):
            yield from descriptors(getattr(value, each.name))
    elif isinstance(value, list):
        for each in value:
            yield from descriptors(each)


def check(state: State) -> None:
    """Whether the state fits together and its descriptors are what it says. Raises Unfit."""
    seen: set[int] = set()
    for fd in descriptors(state):
        try:
            fits = fd.fits()
        except OSError as error:
            raise Unfit(f"its descriptor {int(fd)} is not there: {error.strerror}") from None
        if not fits or fd in seen:
            raise Unfit(f"its descriptor {int(fd)} is no {type(fd).__name__} of its own")
        seen.add(fd)
    pids = [each.pid for each in state.workers]
    if len(set(pids)) < len(pids) or len(state.sync) != 2:
        raise Unfit("it does not fit together")
