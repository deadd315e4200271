"""The PROXY protocol, version 1 and 2: where a connection that a load balancer passes on really comes from.

Does: reads the header at the front of a connection.
Owns: nothing.
Never: decides whether whoever sent it is to be believed; reads beyond the header.

Shapes are those of HAProxy's "The PROXY protocol, versions 1 & 2" (sections 2.1 and 2.2). What stands behind
the addresses of version 2 (the TLVs) is skipped.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import NamedTuple, Optional

from vspcd.proto.errors import PeerError

V1_START = b"PROXY "
V1_LIMIT = 107
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2_LIMIT = 4096
"""Bytes that may follow the fixed part of a version 2 header; what a balancer sends is far less."""

_V2_FIXED = struct.Struct("!12sBBH")
_V1_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) (\S+) (\S+) ([0-9]+) ([0-9]+))\r\n")
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES = {1: 12, 2: 36, 3: 216}  # AF_INET, AF_INET6, AF_UNIX: both addresses, and the ports
_HOST_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4, over IPv6


class Header(NamedTuple):
    """``source`` is the client's ``host:port``, None when the balancer itself speaks or does not know; ``size`` counts
    the header's bytes.
    """

    source: Optional[str]
    size: int


def header(data: bytes) -> Optional[Header]:
    """The header at the front of ``data``; None while it is not complete. PeerError when it is none."""
    for start, parse in ((V1_START, _version_1), (V2_START, _version_2)):
        if data.startswith(start):
            return parse(data)
        if start.startswith(data):
            return None
    raise PeerError("a load balancer's connection without a PROXY protocol header")


def _version_1(data: bytes) -> Optional[Header]:
    end = data.find(b"\n", 0, V1_LIMIT) + 1
    if not end:
        if len(data) >= V1_LIMIT:
            raise PeerError(f"a PROXY header of more than {V1_LIMIT} bytes")
        return None
    match = _V1_LINE.fullmatch(data[:end])
    if match is None:
        raise PeerError(f"a malformed PROXY header: {data[:end]!r}")
    if match[1] is None:
        return Header(None, end)
    version, source, target, *ports = (field.decode("ascii", "replace") for field in match.groups())
    _v1_endpoint(int(version), target, ports[1])
    return Header(_v1_endpoint(int(version), source, ports[0]), end)


def _v1_endpoint(version: int, host: str, port: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise PeerError(f"a PROXY header with the address {host!r}") from None
    if address.version != version or "%" in host:
        raise PeerError(f"a PROXY header with the address {host!r} for TCP{version}")
    if len(port) > 5 or int(port) > 65535 or port != str(int(port)):
        raise PeerError(f"a PROXY header with the port {port!r}")
    return _endpoint(address.packed, int(port))


def _version_2(data: bytes) -> Optional[Header]:
    if len(data) < _V2_FIXED.size:
        return None
    _, command, family, length = _V2_FIXED.unpack_from(data)
    _check_version_2(command, family, length)
    size = _V2_FIXED.size + length
    if len(data) < size:
        return None
    known = command & 15 == _PROXY and family in _HOST_BYTES
    return Header(_v2_source(data, _HOST_BYTES[family]) if known else None, size)


def _check_version_2(command: int, family: int, length: int) -> None:
    if command >> 4 != 2 or command & 15 not in (_LOCAL, _PROXY):
        raise PeerError(f"a PROXY header with the version and command 0x{command:02x}")
    if length > V2_LIMIT:
        raise PeerError(f"a PROXY header of {length} bytes, more than {V2_LIMIT}")
    if command & 15 == _PROXY and (family >> 4 > 3 or family & 15 > 2):
        raise PeerError(f"a PROXY header with the address family and transport 0x{family:02x}")
    if command & 15 == _PROXY and length < _ADDRESS_BYTES.get(family >> 4, 0):
        raise PeerError(f"a PROXY header whose addresses are cut off after {length} bytes")


def _v2_source(data: bytes, host_bytes: int) -> str:
    host = data[_V2_FIXED.size :][:host_bytes]
    (port,) = struct.unpack_from("!H", data, _V2_FIXED.size + 2 * host_bytes)
    return _endpoint(host, port)


def _endpoint(packed: bytes, port: int) -> str:
    """``192.0.2.1:1234`` or ``[2001:db8::1]:1234``; IPv4 in IPv6 is written as IPv4."""
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv4Address):
        return f"{address}:{port}"
    return f"{address.ipv4_mapped}:{port}" if address.ipv4_mapped else f"[{address}]:{port}"
