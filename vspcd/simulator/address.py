"""HOST:PORT as people write it, into numbers.

Does: splits and resolves, once, when the command line is read.
Never: looks a name up again while VMs are running, since that would hold all of them up.
"""

from __future__ import annotations

import socket


def host_port(text: str) -> tuple[str, int]:
    """The numeric address of HOST:PORT or [IPV6]:PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"{text!r}: {error}") from None
    address = found[0][4]
    return str(address[0]), int(address[1])
