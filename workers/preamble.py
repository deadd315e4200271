"""What may come before telnet: a load balancer's PROXY header, and TLS.

Does: reads the header of a connection from a listed balancer, tells TLS from plain text by the first byte,
has the connection encrypted.
Owns: nothing; the leg is the worker's.
Never: consumes a byte that belongs to telnet or TLS; waits for ever.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from vspcd.proto import proxyproto
from vspcd.proto.errors import PeerError
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import HANGUP, PEER_CLOSED, Timer
from workers.leg import NO_DATA, Leg, LegGone
from workers.shell import Shell

PEEK = 4352  # a little more than the longest header that is accepted
HANDSHAKE = 0x16  # TLS: the content type of the first record
SPEAK_FIRST_AFTER = 1.0


def needed(settings: dict[str, Any], balancer: bool) -> bool:
    """Whether anything but telnet can come first."""
    tls = settings["tls"]
    return balancer or tls["mode"] == "required" or tls["usable"]


class Preamble:
    """``plain()`` is called when telnet can begin on this leg, ``failed(reason)`` when it cannot.

    An empty reason is a balancer's own health check: nothing to tell anybody about.
    """

    def __init__(
        self, shell: Shell, leg: Leg, balancer: bool, plain: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        self._shell = shell
        self._leg = leg
        self._balancer = self._from_balancer = balancer
        self._plain = plain
        self._failed = failed
        self._view = memoryview(bytearray(PEEK))
        self._tls = shell.settings["tls"]
        self._timers: list[Timer] = []
        self.over = False

    def begin(self) -> None:
        """Wait for the first bytes."""
        timeout = self._shell.settings["handshake_timeout"]
        self._timers = [self._shell.loop.call_later(timeout, self._too_late)]
        if not self._balancer:
            self._speak_first_before_long()
        self._leg.serve(self._shell.loop, self._ready)

    def _speak_first_before_long(self) -> None:
        """A VM speaks first, over TLS too. One that does not may wait for us."""
        if self._tls["mode"] != "required":
            self._timers.append(self._shell.loop.call_later(SPEAK_FIRST_AFTER, self._begin_plain))

    def _ready(self, events: int) -> None:
        try:
            seen = self._leg.peek(self._view)
            if seen == 0 or (seen == NO_DATA and events & HANGUP):
                self.fail("" if self._balancer else "it closed before it said anything")
            elif seen > 0:
                self._look(bytes(self._view[:seen]), bool(events & PEER_CLOSED))
        except LegGone as gone:
            # A balancer's health check may end with a reset, which takes the header along.
            self.fail("" if self._from_balancer else str(gone))
        except PeerError as fault:
            self.fail(str(fault))

    def _look(self, data: bytes, last: bool) -> None:
        if self._balancer:
            found = proxyproto.header(data)
            if found is None:
                self._wait(len(data), last)
                return
            # Told before it is consumed: a worker that goes on from here needs the one or the other.
            self._came_from(found.source)
            self._leg.consume(found.size, self._view)
            self._leg.sleep_until(1)
            self._balancer = False
            data = data[found.size :]
            if found.source is None:
                self.fail("")  # a health check
            else:
                self._speak_first_before_long()
        if data and not self.over:
            self._by_first_byte(data[0])

    def _wait(self, seen: int, last: bool) -> None:
        if last or seen == PEEK:
            raise PeerError("a load balancer's connection with half a PROXY protocol header")
        self._leg.sleep_until(seen + 1)

    def _came_from(self, source: Optional[str]) -> None:
        """Where the connection really comes from; None for a health check."""
        if source is not None:
            self._leg.peer = source
            self._shell.tell("source", peer=source)
            reached("negotiate.source")

    def _by_first_byte(self, first: int) -> None:
        if first == HANDSHAKE and self._tls["mode"] != "off":
            if not self._tls["usable"]:
                self.fail("it speaks TLS, and there is no tls.certificate")
                return
            self._stop()
            self._leg.detach()
            self._shell.tell("tls")
            reached("negotiate.tls")
        elif self._tls["mode"] == "required":
            self.fail("it speaks plain telnet, and tls.mode is required")
        else:
            self._begin_plain()

    def _begin_plain(self) -> None:
        self._stop()
        self._leg.detach()
        self._plain()

    def _too_late(self) -> None:
        self.fail(f"it said nothing within {self._shell.settings['handshake_timeout']:g} s")

    def fail(self, reason: str) -> None:
        """There will be no telnet on this connection."""
        if not self.over:
            self._stop()
            self._leg.detach()
            self._failed(reason)

    def _stop(self) -> None:
        self.over = True
        for timer in self._timers:
            timer.cancel()
