"""The TLS helper process: it takes encrypted connections and hands plaintext on.

Does: says what a helper is born with, and is its life.
Owns: nothing.
Never: loads OpenSSL in the master, which imports this file: what needs it is imported in the helper.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from vspcd.unix import process
from vspcd.unix.channel import Channel
from vspcd.unix.loop import Loop


class TlsStart(NamedTuple):
    """``settings`` is plain data: ``tls`` with certificate, key, client_ca and min_version; ``log_level``;
    ``handshake_timeout`` in seconds.
    """

    channel: socket.socket
    settings: dict[str, Any]


def main(start: TlsStart) -> None:
    """The life of a helper process; it ends with the master's channel."""
    process.name("vspcd: tls")
    from workers.tls_helper import Helper

    loop = Loop()
    Helper(loop, Channel(start.channel), start.settings)
    loop.run()
