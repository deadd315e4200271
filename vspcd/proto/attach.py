"""The framing between vspcctl and a worker, on a Unix stream socket.

Owns the header's layout and the frame types. Never touches a socket and keeps no unparsed bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

from vspcd.proto.errors import LocalError, PeerError

# Worker to client.
DATA = 1  # console bytes; offset is the journal offset of the first one
NOTICE = 2  # UTF-8 text, shown on a line of its own
SKIPPED = 3  # offset is the new journal position, payload the decimal count of skipped bytes
LIVE = 4  # the replay is over
BYE = 5  # the console detaches this client; payload is the reason
MODE = 6  # payload is rw or ro: whether what this client types is taken from now on
# Client to worker. The offset says how much the client has typed before, a break counting as one byte: what a worker
# has dealt with already and finds again is left out.
INPUT = 16  # bytes for the VM
BREAK = 17  # a serial break for the VM

TYPES = frozenset((DATA, NOTICE, SKIPPED, LIVE, BYE, MODE, INPUT, BREAK))
PAYLOAD_LIMIT = 65536

_HEADER = struct.Struct("!BxxxIQ")
HEADER_SIZE = _HEADER.size


class Frame(NamedTuple):
    type: int
    payload: bytes
    offset: int


def frame(type: int, payload: bytes = b"", offset: int = 0) -> bytes:
    if type not in TYPES or len(payload) > PAYLOAD_LIMIT or not 0 <= offset < 1 << 64:
        raise LocalError(f"no such frame: type {type}, {len(payload)} bytes, offset {offset}")
    return _HEADER.pack(type, len(payload), offset) + payload


def typed_up_to(frame: Frame) -> int:
    """How much its client has typed behind this frame."""
    return frame.offset + (1 if frame.type == BREAK else len(frame.payload))


def frames(data: Union[bytes, bytearray]) -> list[tuple[Frame, int]]:
    """All complete frames at the front of data, each with the offset just behind it.

    An unknown type or a payload over the limit is a PeerError, raised when that frame is the first one
    in data: the good ones ahead of it are returned before.
    """
    found: list[tuple[Frame, int]] = []
    at = 0
    while len(data) >= at + HEADER_SIZE:
        type, size, offset = _HEADER.unpack_from(data, at)
        if type not in TYPES or size > PAYLOAD_LIMIT:
            if found:
                break
            raise PeerError(f"attach frame of type {type} and {size} bytes")
        end = at + HEADER_SIZE + size
        if len(data) < end:
            break
        found.append((Frame(type, bytes(data[at + HEADER_SIZE : end]), offset), end))
        at = end
    return found
