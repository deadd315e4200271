"""What a TLS helper does: it has up to 64 legs, and tells the master what becomes of them.

Does: takes connections over, loads certificates for those to come, answers probes.
Owns: the channel to the master, the legs, the context for new connections.
Never: serves a connection in plain text; gives up a certificate that works for one that does not; lets in who shows no
certificate when the settings demand one.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Optional

from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop
from vspcd.unix.page import LAYOUT
from workers.orphan import Orphan
from workers.tls_context import BadCertificate, Loaded, load
from workers.tls_leg import Reports, TlsLeg
from workers.tls_probe import Probe
from workers.tls_session import Secured, Session

Answer = Callable[[Message, list[int]], None]


class Helper:
    """The process's one object."""

    def __init__(
        self, loop: Loop, channel: Channel, settings: dict[str, Any], clients: bool = False, run: str = ""
    ) -> None:
        self.legs: dict[int, TlsLeg] = {}
        self._clients = clients
        self._muted = False  # without a master, or before it has been told who we are
        self._run = run
        self._orphan = Orphan(loop, run, self._lasts, self._leave, self._knocked)
        self._loop = loop
        self._channel = channel
        self._log = Log(settings["log_level"])
        self._settings = settings
        self._loaded: Optional[Loaded] = None
        self._lacking = ""  # why there is nothing loaded
        self._reports = Reports(self._secured, self._failed, self._ended)
        self._answers: dict[str, Answer] = {
            "adopt": self._adopt,
            "settings": self._set,
            "probe": self._probe,
            "adopted": lambda _message, _fds: self._orphan.settled(),
            "ping": lambda _message, _fds: self._tell("pong"),
            "quit": lambda _message, _fds: self._leave(),
        }
        channel.serve(loop, self._received, self._master_gone)
        self._load()

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        if kind not in self._answers:
            raise PeerError(f"{kind} is nothing for a TLS helper")
        self._answers[kind](message, fds)

    def _lasts(self) -> bool:
        return bool(self.legs and self._run)

    def _master_gone(self) -> None:
        """Connections that there are go on; another master may come."""
        self._channel.close()
        self._muted = True
        if self._lasts():
            self._orphan.wait()
        else:
            self._leave()

    def _knocked(self, sock: socket.socket) -> None:
        self._channel = Channel(sock)
        self._channel.serve(self._loop, self._received, self._master_gone)
        self._muted = False
        self._tell("here", kind="tls", layout=LAYOUT)
        self._tell(
            "helper",
            clients=self._clients,
            legs=list(self.legs),
            securing=[number for number, leg in self.legs.items() if leg.session.secured is None],
            certificate=self._certificate(),
        )
        self._tell("complete")

    def _tell(self, word: str, **fields: Any) -> None:
        if self._muted:
            return
        try:
            self._channel.send({"type": word, **fields})
        except ChannelClosed:
            self._log.debug("not-told", message=word)

    def _leave(self) -> None:
        for leg in list(self.legs.values()):
            leg.end()
        try:
            self._channel.flush()
        except ChannelClosed:
            pass  # the master is gone
        self._loop.stop()

    # Certificates.

    def _set(self, message: Message, _fds: list[int]) -> None:
        self._settings = message["settings"]
        self._log.level = self._settings["log_level"]
        self._load()

    def _load(self) -> None:
        try:
            self._loaded = load(self._settings["tls"])
        except BadCertificate as reason:
            self._lacking = str(reason)
            if self._loaded is not None and self._is_too_lax(self._loaded):
                self._loaded = None
            then = "nobody is let in" if self._loaded is None else "what was loaded before stays in force"
            self._tell("bad-certificate", reason=f"{reason}; {then}")
            return
        self._tell("certificate", **(self._certificate() or {}))

    def _is_too_lax(self, loaded: Loaded) -> bool:
        """Whether it lets people in whom the settings want checked."""
        return self._settings["tls"]["client_ca"] is not None and not loaded.demands

    def _certificate(self) -> Optional[dict[str, Any]]:
        if self._loaded is None:
            return None
        known = self._loaded.facts
        return {
            "sha1": known.sha1,
            "sha256": known.sha256,
            "not_after": known.not_after,
            "subject": known.subject,
            "names": list(known.names),
        }

    # Legs.

    def _adopt(self, message: Message, fds: list[int]) -> None:
        peer, worker = (socket.socket(fileno=fd) for fd in fds)
        number = message["leg"]
        if self._loaded is None:
            self._tell("tls-failed", leg=number, reason=f"there is no usable certificate: {self._lacking}")
            for sock in (peer, worker):
                _hang_up(sock)
            return
        leg = TlsLeg(number, message["peer"], Session(self._loaded), self._reports)
        self.legs[number] = leg
        leg.start(self._loop, peer, worker, self._settings["handshake_timeout"])

    def _secured(self, leg: TlsLeg, agreed: Secured) -> None:
        self._tell("secured", leg=leg.number, **agreed._asdict())

    def _failed(self, leg: TlsLeg, reason: str) -> None:
        self._tell("tls-failed", leg=leg.number, reason=reason)

    def _ended(self, leg: TlsLeg) -> None:
        del self.legs[leg.number]
        if leg.session.secured is not None:
            if leg.session.failure is not None:
                self._log.warning("tls-broken", leg=leg.number, peer=leg.address, reason=leg.session.failure)
            self._tell("tls-ended", leg=leg.number)

    def _probe(self, message: Message, _fds: list[int]) -> None:
        number = message["leg"]
        leg = self.legs.get(number)
        if leg is None:
            self._tell("probed", leg=number, alive=False)
        else:
            Probe(self._loop, leg, lambda alive: self._tell("probed", leg=number, alive=alive))


def _hang_up(sock: socket.socket) -> None:
    """End a connection of which the master has a duplicate."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the peer was faster
    sock.close()
