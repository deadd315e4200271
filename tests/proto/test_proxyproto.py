"""PROXY protocol headers: which are read, which are refused, and which are not complete yet."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.proto.errors import PeerError
from vspcd.proto.proxyproto import V2_LIMIT, V2_START, Header, header

BEHIND = b"\x16\x03\x01 what the VM sends"


def version_2(command: int = 0x21, family: int = 0x11, addresses: bytes = b"", length: int = -1) -> bytes:
    return (
        V2_START + struct.pack("!BBH", command, family, len(addresses) if length < 0 else length) + addresses
    )


def inet(source: str, port: int) -> bytes:
    return socket.inet_pton(socket.AF_INET, source) + bytes(4) + struct.pack("!HH", port, 13370)


def inet6(source: str, port: int) -> bytes:
    return socket.inet_pton(socket.AF_INET6, source) + bytes(16) + struct.pack("!HH", port, 13370)


LONGEST_1 = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"
TLV = b"\x04\x00\x05hello"

GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 13370\r\n", "192.0.2.7:56324"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    (b"PROXY TCP6 2001:DB8::7 fd00::1 1 0\r\n", "[2001:db8::7]:1"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 5 6\r\n", "192.0.2.7:5"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (LONGEST_1, None),
    (version_2(addresses=inet("192.0.2.7", 56324)), "192.0.2.7:56324"),
    (version_2(addresses=inet("192.0.2.7", 56324) + TLV), "192.0.2.7:56324"),
    (version_2(family=0x21, addresses=inet6("2001:db8::7", 443)), "[2001:db8::7]:443"),
    (version_2(family=0x21, addresses=inet6("::ffff:192.0.2.7", 443)), "192.0.2.7:443"),
    (version_2(family=0x31, addresses=bytes(216)), None),
    (version_2(family=0x12, addresses=inet("192.0.2.7", 53)), None),
    (version_2(family=0x00), None),
    (version_2(command=0x20), None),
    (version_2(command=0x20, addresses=inet("192.0.2.7", 56324)), None),
    (version_2(command=0x20, family=0xFF), None),
    (version_2(addresses=inet("192.0.2.7", 56324) + bytes(V2_LIMIT - 12)), "192.0.2.7:56324"),
]


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_a_header_tells_the_source_and_its_own_size(data: bytes, source: str) -> None:
    assert header(data + BEHIND) == Header(source, len(data))


@pytest.mark.parametrize(("data", "_source"), GOOD)
def test_a_header_cut_anywhere_is_not_complete(data: bytes, _source: str) -> None:
    assert {header(data[:end]) for end in range(len(data))} == {None}


BAD = [
    (b"\xff\xfb\x25", "without a PROXY protocol header"),
    (b"\x16\x03\x01", "without a PROXY protocol header"),
    (b"PROXy TCP4", "without a PROXY protocol header"),
    (b"\r\n\r\n\x00\r\nQUIT\r", "without a PROXY protocol header"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n", "malformed"),
    (b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n", "malformed"),
    (b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n", "malformed"),
    (b"PROXY UNKNOWNs\r\n", "malformed"),
    (b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n", "the address '192.0.2.256'"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.x 1 2\r\n", "the address '10.0.0.x'"),
    (b"PROXY TCP4 fd00::1 fd00::2 1 2\r\n", "the address 'fd00::2' for TCP4"),
    (b"PROXY TCP6 fe80::1%eth0 fd00::2 1 2\r\n", "the address"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n", "the port '65536'"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 99999999999\r\n", "the port '99999999999'"),
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n", "the port '01'"),
    (LONGEST_1[:-2] + b"f\r\n", "more than 107 bytes"),
    (b"PROXY TCP4 " + b"1" * 200, "more than 107 bytes"),
    (version_2(command=0x11), "the version and command 0x11"),
    (version_2(command=0x22), "the version and command 0x22"),
    (version_2(family=0x41), "transport 0x41"),
    (version_2(family=0x13), "transport 0x13"),
    (version_2(addresses=bytes(11)), "cut off after 11 bytes"),
    (version_2(family=0x21, addresses=bytes(35)), "cut off after 35 bytes"),
    (version_2(length=V2_LIMIT + 1), "more than 4096"),
]


@pytest.mark.parametrize(("data", "words"), BAD)
def test_anything_else_is_the_peers_fault(data: bytes, words: str) -> None:
    with pytest.raises(PeerError, match="PROXY") as caught:
        header(data)
    assert words in str(caught.value)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2_START, V2_START + b"\x21"])
)
def test_garbage_gives_a_header_or_the_peers_fault(data: bytes, start: bytes) -> None:
    try:
        found = header(start + data)
    except PeerError:
        return
    assert found is None or 0 < found.size <= len(start + data)
