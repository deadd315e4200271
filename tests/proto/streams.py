"""How the protocol tests feed bytes: in any pieces, and with the state written down and restored at will."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Callable, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from vspcd.proto import comport, telnet, vmware
from vspcd.proto.telnet import Token

Piece = TypeVar("Piece")


def examples(count: int) -> settings:
    """That many examples, on a machine that may be busy."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def drained(take: Callable[[bytes], list[tuple[Piece, int]]], chunks: Iterable[bytes]) -> Iterator[Piece]:
    """What take() makes of the chunks when the tail that it does not cover is offered again."""
    tail = b""
    for chunk in chunks:
        tail += chunk
        while taken := take(tail):
            tail = tail[taken[-1][1] :]
            yield from (piece for piece, _ in taken)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with adjoining runs of data made one: where a run is cut depends on the chunks."""
    result: list[Any] = []
    for piece in pieces:
        if isinstance(piece, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """data in pieces, cut at the places modulo its length."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def through_json(saved: dict[str, object]) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(saved))
    return written


def tokens_of(data: bytes) -> list[Token]:
    return list(drained(telnet.tokens, [data]))


places = st.lists(st.integers(0, 4096), max_size=12)
data_runs = st.lists(
    st.sampled_from([b"\xff", b"\0", b"\r", b"\n", b"\x11", b"ab", b"\xf0"]), max_size=6
).map(b"".join)
small = st.integers(0, 255)
options = st.sampled_from(
    [telnet.BINARY, telnet.ECHO, telnet.SGA, telnet.NAWS, telnet.TTYPE, 37, 44, 232, 255]
)
negotiations = st.builds(
    telnet.negotiation, st.sampled_from([telnet.WILL, telnet.WONT, telnet.DO, telnet.DONT]), options
)
commands = st.sampled_from([telnet.NOP, telnet.AYT, telnet.BREAK, telnet.DM, telnet.GA, telnet.SE, 7]).map(
    telnet.command
)
short = st.binary(max_size=6) | st.sampled_from([b"\xff", b"\xff\xff", b"\xff\xf0"])
messages = st.builds(
    vmware.frame,
    st.sampled_from([0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 84, 86, 99, 255]),
    short
    | st.sampled_from(
        [
            b"SvSPC.py",
            b"SvSPC.py?port=gdb",
            b"Cx",
            vmware.uuid_payload("0123456789abcdef" * 2),
            vmware.known_codes(True),
        ]
    ),
)
line_messages = st.builds(
    lambda code, value: telnet.subnegotiation(telnet.COM_PORT, bytes((code,)) + value),
    st.sampled_from([comport.SET_PARITY, comport.SET_CONTROL, comport.SET_DATASIZE, comport.PURGE_DATA]),
    st.integers(0, 20).map(lambda value: bytes((value,))),
)
window_sizes = st.binary(min_size=4, max_size=4).map(lambda size: telnet.subnegotiation(telnet.NAWS, size))
telnet_pieces = (
    data_runs.map(telnet.escape) | negotiations | commands | messages | line_messages | window_sizes
)
telnet_streams = st.lists(telnet_pieces, max_size=14).map(b"".join)
