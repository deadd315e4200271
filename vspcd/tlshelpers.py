"""The TLS helpers: which process encrypts which connection.

Does: gives encrypted connections to helpers, at most 64 each; knows the certificate that is in force and
warns before it expires.
Owns: the helpers' lives.
Never: sees a plain or an encrypted byte, opens a certificate.

What comes out of a helper is a plaintext TCP connection on the loopback interface, which a worker can peek
into, count and hand over like a VM's own.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from vspcd.config_schema import Config
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.spawn import Nursery, tls_settings
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import READ, Loop
from vspcd.unix.pair import loopback_pair

LEGS_PER_HELPER = 64
DAY = 86400
WARN_DAYS = (30, 7, 1)


@dataclass
class TlsHelper:
    """A helper process and the connections that it has."""

    pid: int
    channel: Channel
    clients: bool  # of console ports, who are not asked for certificates as VMs may be
    legs: set[int] = field(default_factory=set)
    retiring: bool = False  # it takes no new connection, and ends with its last one
    pidfd: Optional[int] = None  # of one that is not our child
    pinged: float = 0.0  # when it was asked for a sign of life; 0 when it owes none


class TlsHelpers:
    """``failed(leg, reason)``: a handshake came to nothing; ``secured(leg, name, verified)``: it succeeded; ``name`` is
    that in the peer's certificate, if it has one, ``verified`` whether it has shown one that was verified.

    ``probed(leg, alive)``: what became of a probe.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        nursery: Nursery,
        config: Config,
        failed: Callable[[int, str], None],
        secured: Callable[[int, Optional[str], bool], None],
        probed: Callable[[int, bool], None],
    ) -> None:
        self.certificate: Optional[dict[str, Any]] = None
        self.securing: set[int] = set()
        self._loop = loop
        self._log = log
        self._nursery = nursery
        self._config = config
        self._failed = failed
        self._on_secured = secured
        self._probed = probed
        self.helpers: dict[int, TlsHelper] = {}
        self._warned: Optional[int] = None
        self._stopping = False
        self._answers: dict[str, Callable[[TlsHelper, Message], None]] = {
            "secured": self._secured,
            "tls-failed": self._handshake_failed,
            "tls-ended": self._leg_ended,
            "probed": lambda _helper, message: self._probed(message["leg"], message["alive"]),
            "certificate": self._certificate,
            "bad-certificate": self._bad_certificate,
            "pong": self._pong,
        }

    def start(self) -> None:
        """Load the certificate at the start, so that a bad one is known before a VM needs it.

        Helpers of a master that has died know only what was demanded of peers in its time.
        """
        self._tell_settings()
        self._spawn_first()
        self._loop.call_later(DAY, self._look_at_the_date)

    def _spawn_first(self) -> None:
        """A helper that loads the certificate, if none has. Without room for it the first connection has to try."""
        if self._config.tls.certificate is None or self._config.tls.mode == "off":
            return
        if all(helper.retiring for helper in self.helpers.values()):
            try:
                self._spawn()
            except OSError as error:
                self._log.error(
                    "no-tls-helper",
                    reason=f"{os.strerror(error.errno or 0)}; the next connection with TLS tries again",
                )

    def _spawn(self, clients: bool = False) -> TlsHelper:
        pid, sock = self._nursery.tls_helper(self._config, clients)
        helper = TlsHelper(pid, Channel(sock), clients)
        self.inherit(helper)
        return helper

    def inherit(self, helper: TlsHelper) -> None:
        """This helper is ours from now on."""
        self.helpers[helper.pid] = helper
        helper.channel.serve(
            self._loop,
            lambda message, fds: self._received(helper, message, fds),
            lambda: self._unreachable(helper),
        )
        if helper.pidfd is not None:
            self._loop.watch(helper.pidfd, READ, lambda _events: self._ended(helper))

    def _ended(self, helper: TlsHelper) -> None:
        """A helper that is not our child has died."""
        if helper.pidfd is not None:
            self._loop.forget(helper.pidfd)
            os.close(helper.pidfd)
            helper.pidfd = None
        self.reaped(helper.pid, "has ended")

    def secure(self, leg: int, peer: str, sock: socket.socket, clients: bool = False) -> socket.socket:
        """Encrypt this connection, which is the helper's from now on; the plaintext comes out of what is
        returned.

        Raises OSError when there is no room for it.
        """
        ours, theirs = loopback_pair()
        try:
            helper = self._with_room(clients)
            helper.channel.send({"type": "adopt", "leg": leg, "peer": peer}, [sock.fileno(), theirs.fileno()])
        except (OSError, ChannelClosed) as error:
            ours.close()
            raise OSError(f"no TLS helper: {error}") from None
        finally:
            theirs.close()
        helper.legs.add(leg)
        self.securing.add(leg)
        sock.close()
        return ours

    def _with_room(self, clients: bool) -> TlsHelper:
        for helper in self.helpers.values():
            if (
                helper.clients == clients
                and not helper.retiring
                and len(helper.legs) < LEGS_PER_HELPER
                and helper.channel.sock.fileno() >= 0
            ):
                return helper
        return self._spawn(clients)

    def probe(self, leg: int) -> None:
        """Find out whether the far end of an encrypted connection still answers."""
        for helper in self.helpers.values():
            if leg in helper.legs:
                try:
                    helper.channel.send({"type": "probe", "leg": leg})
                    return
                except (OSError, ChannelClosed):
                    break
        self._probed(leg, False)

    # What helpers say.

    def _received(self, helper: TlsHelper, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        kind = control.check(message, control.TLS, control.OWNER, len(fds))
        self._answers[kind](helper, message)

    def _secured(self, _helper: TlsHelper, message: Message) -> None:
        self.securing.discard(message["leg"])
        self._on_secured(message["leg"], message["name"], message["subject"] is not None)
        self._log.debug(
            "tls-secured",
            leg=message["leg"],
            version=message["version"],
            cipher=message["cipher"],
            subject=message["subject"],
        )

    def _pong(self, helper: TlsHelper, _message: Message) -> None:
        helper.pinged = 0.0

    def _leg_ended(self, helper: TlsHelper, message: Message) -> None:
        helper.legs.discard(message["leg"])
        if not helper.legs and (helper.retiring or self._is_spare(helper)):
            helper.retiring = True
            self._quit(helper)

    def _is_spare(self, helper: TlsHelper) -> bool:
        """Whether another one can take what comes: after a storm there are many that have nothing to do."""
        return any(
            other.clients == helper.clients and not other.retiring and len(other.legs) <= LEGS_PER_HELPER // 2
            for other in self.helpers.values()
            if other is not helper
        )

    def renew(self) -> None:
        """New connections go to new helpers; those that there are end with their last connection."""
        for helper in self.helpers.values():
            helper.retiring = True
            if not helper.legs:
                self._quit(helper)
        self._spawn_first()

    def _quit(self, helper: TlsHelper) -> None:
        try:
            helper.channel.send({"type": "quit", "reason": "nobody needs this helper any more"})
        except (OSError, ChannelClosed):
            process.kill(helper.pid, pidfd=helper.pidfd)

    def _handshake_failed(self, helper: TlsHelper, message: Message) -> None:
        self._leg_ended(helper, message)
        self.securing.discard(message["leg"])
        self._failed(message["leg"], f"TLS: {message['reason']}")

    def _certificate(self, _helper: TlsHelper, message: Message) -> None:
        facts = {key: value for key, value in message.items() if key != "type"}
        if facts == self.certificate:
            return  # another helper has loaded the same one
        self.certificate = facts
        self._warned = None
        self._log.info(
            "certificate",
            subject=facts["subject"],
            names=",".join(facts["names"]),
            sha1=facts["sha1"],
            sha256=facts["sha256"],
            not_after=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts["not_after"])),
        )
        self._warn()

    def _bad_certificate(self, _helper: TlsHelper, message: Message) -> None:
        self._log.error("bad-certificate", reason=message["reason"])

    def _look_at_the_date(self) -> None:
        self._warn()
        self._loop.call_later(DAY, self._look_at_the_date)

    def _warn(self) -> None:
        """Once 30, 7 and 1 days before the certificate expires, and when it has."""
        if self.certificate is None:
            return
        left = (self.certificate["not_after"] - time.time()) / DAY
        step = min((days for days in (*WARN_DAYS, 0) if left <= days), default=None)
        if step is not None and step != self._warned:
            self._warned = step
            self._log.warning("certificate-expires", days=round(left, 1))

    # Life.

    def reload(self, config: Config) -> None:
        """The certificate may be another one, even if its file has the same name."""
        self._config = config
        self._tell_settings()
        self._spawn_first()

    def _tell_settings(self) -> None:
        for helper in self.helpers.values():
            try:
                helper.channel.send(
                    {"type": "settings", "settings": tls_settings(self._config, helper.clients)}
                )
            except (OSError, ChannelClosed) as error:
                self._log.error("tls-helper-not-told", pid=helper.pid, reason=str(error))
                helper.retiring = True  # it would let newcomers in whom these settings want checked
                if not helper.legs:
                    self._quit(helper)

    def _unreachable(self, helper: TlsHelper) -> None:
        """It has died, or broke the rules; either way its connections are over."""
        helper.channel.close()
        if helper.pid in self.helpers and not self._stopping:
            process.kill(helper.pid, pidfd=helper.pidfd)

    def reaped(self, pid: int, how: str) -> bool:
        """A child has died; False when it was no helper."""
        helper = self.helpers.pop(pid, None)
        if helper is None:
            return False
        unfinished = self.securing & helper.legs
        self.securing -= helper.legs
        helper.channel.close()
        if not (self._stopping or (helper.retiring and not helper.legs)):
            self._log.error("tls-helper-died", pid=pid, how=how, connections=len(helper.legs))
        for leg in unfinished:
            self._failed(leg, f"TLS: its helper {how} during the handshake")
        return True

    def stop(self) -> None:
        """Let the helpers end."""
        self._stopping = True
        for helper in self.helpers.values():
            self._quit(helper)
