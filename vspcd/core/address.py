"""Network addresses as people write them.

Does: turns socket addresses into ``host:port`` text and back into hosts; matches hosts against networks.
Owns: nothing.
Never: looks a name up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def endpoint(address: tuple[object, ...]) -> str:
    """``192.0.2.1:1234`` or ``[2001:db8::1]:1234`` of a socket address; IPv4 in IPv6 is written as IPv4."""
    host, port = plain_host(str(address[0])), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(peer: str) -> str:
    """The host of an ``endpoint``."""
    return peer.rpartition(":")[0].strip("[]")


def plain_host(host: str) -> str:
    """The host without a scope, and without the IPv4-in-IPv6 prefix."""
    host = host.partition("%")[0]
    if host.lower().startswith("::ffff:") and "." in host:
        return host[7:]
    return host


def allowed(host: str, networks: Sequence[Network]) -> bool:
    """Whether the host is in one of the networks; an empty list allows everyone."""
    if not networks:
        return True
    address = ipaddress.ip_address(host)
    return any(address.version == network.version and address in network for network in networks)
