"""The entrance: who comes by a console's own Unix socket or TCP port.

Does: has TLS ports encrypted, waits for the certificate where clients must show one, hands everybody to
``vspcd.attachments``.
Owns: the connections whose handshake decides who they are.
Never: lets anybody hear a byte before it is known who he is.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Optional

from vspcd import peers
from vspcd.attachments import Wish
from vspcd.core.rights import Who
from vspcd.table import Console

if TYPE_CHECKING:
    from vspcd.master import Master

RAW, TELNET = "raw", "telnet"
UNVERIFIED = "it showed no certificate, which ports.client_ca demands"


class Visitor(NamedTuple):
    """Somebody whose certificate is still to come, and the plaintext's end that is ours."""

    console: Console
    sock: socket.socket
    who: Who


class Entrance:
    """What the listeners of the consoles lead to."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._visitors: dict[int, Visitor] = {}

    def came(self, console: Console, kind: str, sock: socket.socket, peer: str) -> None:
        """Somebody wants to be on a console. ``peer`` is empty on a Unix socket."""
        master = self._master
        number = next(master.table.numbers)
        who = peers.at_address(peer) if peer else peers.behind(sock)
        if kind == TELNET and master.config.ports.tls:
            try:
                sock = master.tls.secure(number, peer, sock, clients=True)
            except OSError as error:
                master.log.error("client-refused", console=console.id, client=peer, reason=str(error))
                sock.close()
                return
            if master.config.ports.client_ca is not None:
                self._wait(Visitor(console, sock, who), number)
                return
        self._attach(console, kind, sock, who, number)

    def _wait(self, visitor: Visitor, number: int) -> None:
        """Wait for the end of the handshake, unless as many do as the console may have clients."""
        console = visitor.console
        waiting = sum(each.console is console for each in self._visitors.values())
        if waiting + len(console.clients) < self._master.config.clients.max:
            self._visitors[number] = visitor
        else:
            visitor.sock.close()
            self._master.log.warning(
                "client-refused", console=console.id, client=visitor.who.origin, reason="clients.max"
            )

    def _attach(self, console: Console, kind: str, sock: socket.socket, who: Who, number: int) -> None:
        wish = Wish(kind, who, replay=self._master.config.clients.replay, fallback=True)
        self._master.attachments.attach(console, wish, sock, number)

    def secured(self, number: int, name: Optional[str], verified: bool) -> bool:
        """A handshake has succeeded; False when it was nobody's whom we wait for.

        Who has shown no certificate is refused here too: a helper may have missed that one is demanded.
        """
        if not verified:
            return self.failed(number, UNVERIFIED)
        visitor = self._visitors.pop(number, None)
        if visitor is None:
            return False
        if self._master.table.consoles.get(visitor.console.id) is visitor.console:
            who = replace(visitor.who, certificate=name)
            self._attach(visitor.console, TELNET, visitor.sock, who, number)
        else:
            visitor.sock.close()
        return True

    def failed(self, number: int, reason: str) -> bool:
        """A handshake has come to nothing; False when it was nobody's whom we wait for."""
        visitor = self._visitors.pop(number, None)
        if visitor is None:
            return False
        master, console = self._master, visitor.console
        master.log.warning("tls-client-refused", console=console.id, client=visitor.who.origin, reason=reason)
        master.audit.refused("attach", visitor.who, console, reason)
        visitor.sock.close()
        return True
