"""The harness itself: what it takes a stream apart into must not depend on how the stream was cut."""

from __future__ import annotations

from tests.system.payload import KIB64, all_bytes
from tests.system.vm import Command, Heard, Option, Sub, doubled, option, sub, take, vmware

STREAM = (
    b"text"
    + option(251, 0, 3)
    + sub(b"\x53\xff\xf0\xff\xff", 232)
    + doubled(b"\xff\xf0\xff\xff")
    + bytes([255, 241])
    + vmware(71)
    + b"end"
)
TOKENS: list[Heard] = [
    Option(251, 0),
    Option(251, 3),
    Sub(232, b"\x53\xff\xf0\xff\xff"),
    Command(241),
    Sub(232, b"\x47"),
]
DATA = b"text\xff\xf0\xff\xffend"


def apart(pieces: list[bytes]) -> tuple[list[Heard], bytes]:
    buffer, heard, data = bytearray(), list[Heard](), b""
    for piece in pieces:
        buffer += piece
        while True:
            token = take(buffer)
            if token is None:
                break
            if isinstance(token, bytes):
                data += token
            else:
                heard.append(token)
    return heard, data


def test_stream_is_taken_apart_alike_however_it_is_cut() -> None:
    for at in range(len(STREAM)):
        assert apart([STREAM[:at], STREAM[at:]]) == (TOKENS, DATA)
    assert apart([bytes([value]) for value in STREAM]) == (TOKENS, DATA)


def test_payload_holds_every_byte_value_equally_often() -> None:
    payload = all_bytes(0)
    assert len(payload) == KIB64
    assert {payload.count(value) for value in range(256)} == {256}
