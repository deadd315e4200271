"""The TLS helper process: it takes encrypted connections and hands plaintext on.

Does: says what a helper is born with, and is its life.
Owns: nothing.
Never: loads OpenSSL in the master, which imports this file: what needs it is imported in the helper.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from vspcd.unix import process, roster
from vspcd.unix.channel import Channel
from vspcd.unix.loop import Loop


class TlsStart(NamedTuple):
    """``settings`` is plain data: ``tls`` with certificate, key, client_ca and min_version; ``log_level``;
    ``handshake_timeout`` in seconds. ``clients``: it serves console ports, not VMs. ``roster`` is a descriptor, ``run``
    the run directory's path.
    """

    channel: socket.socket
    settings: dict[str, Any]
    clients: bool = False
    roster: int = -1
    run: str = ""


def main(start: TlsStart) -> None:
    """The life of a helper process; it outlives the master while it has connections."""
    process.name("vspcd: tls")
    from workers.tls_helper import Helper

    if start.roster >= 0:
        roster.enter(start.roster)
    loop = Loop()
    Helper(loop, Channel(start.channel), start.settings, start.clients, start.run)
    loop.run()
