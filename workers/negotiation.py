"""The first seconds of a VM connection: until it is known whose it is.

Does: negotiates under deadlines, asks the master for the console, tells a peer that is no VM what this port
is for.
Owns: the connection, until the console is ours or another worker takes it over.
Never: logs or shows a console byte; waits for ever.

The kernel keeps what the VM says until it is known whose it is, so that another worker can negotiate from the first
byte again. The master is told how things stand only before the kernel forgets something, and before anything is said
that no byte of the VM's has called for.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from vspcd.core.identity import BLANK
from vspcd.core.journal import Buffer
from vspcd.core.names import visible
from vspcd.proto.errors import PeerError
from vspcd.proto.vmware_codes import (
    VMOTION_PEER,
    BadIdentity,
    BiosUuid,
    Event,
    Identity,
    ProxyRefused,
    ProxyRequest,
    VmotionPeer,
)
from vspcd.unix.failpoint import reached
from vspcd.unix.loop import Timer
from workers.connection import Connection
from workers.leg import OUT_LIMIT, LegGone
from workers.resumption import NOWHERE, described
from workers.shell import Shell

ASK_AFTER = 1.0
PLAIN_WORDS_AFTER = 4.0
LAST_WORDS = 1.0
EARLY_LIMIT = 8192
HELD = 2048  # bytes that the kernel keeps; a VM says a few hundred until it is known
UNSENT_LIMIT = OUT_LIMIT - 256  # whoever has the console says a little more
TLS_HANDSHAKE = 0x16
SHOWN = 100  # characters of what a VM asked for
NOT_FOR_YOU = (
    b"\r\nvspcd: this port is for the virtual serial ports of VMware VMs (telnet with VMware's extension).\r\n"
    b"vspcd: to get on a console use 'vspcctl console NAME', or its own port or socket (see 'vspcctl status').\r\n"
)


class Negotiation:
    """``done`` is called when nothing is left to do here and the process can leave."""

    tells_all = True

    def __init__(
        self, shell: Shell, connection: Connection, done: Callable[[], None], early: bytes = b""
    ) -> None:
        self.shell = shell
        self.connection = connection
        self.early = bytearray(early)
        self._done = done
        self._timers: list[Timer] = []
        self.over = False
        self._heard_text = False
        self._by_bios = False
        self._was_stranger = False
        self._pair: Optional[bytes] = None  # what a vMotion's target has shown
        self._claimed = False  # from here on, another process may be sending
        self._news = False  # something is held that changes what another worker would go on from

    def begin(self) -> None:
        """Offer our options and wait for theirs."""
        self._watch_the_clock()
        self.connection.session.start()
        self._attempt(self.connection.send_replies)

    def resume(self, told: dict[str, Any]) -> None:
        """Go on from what a dead worker has told of itself."""
        self._by_bios, self._was_stranger = told["by_bios"], told["was_stranger"]
        self._heard_text, self.connection.declined = told["heard_text"], told["declined"]
        self._pair = None if told["pair"] is None else bytes.fromhex(told["pair"])
        self._watch_the_clock()
        self._attempt(self._go_on)

    def _go_on(self) -> None:
        self.connection.send_replies()
        self.turn_over(self.connection)

    def _watch_the_clock(self) -> None:
        leg = self.connection.leg
        leg.hold = HELD
        leg.note_sending(self.shell.page, 0)
        timeout = self.shell.settings["handshake_timeout"]
        later = self.shell.loop.call_later
        self._timers = [
            later(min(ASK_AFTER, timeout), self._ask),
            later(min(PLAIN_WORDS_AFTER, timeout), self._still_no_telnet),
            later(timeout, self._too_late),
        ]

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (LegGone, PeerError) as error:
            self.fail(str(error))

    def _ask(self) -> None:
        self.connection.session.ask()
        self._attempt(self._speak)

    def _speak(self) -> None:
        """Say something that the VM has not called for: nobody could know of it who was not told before."""
        waiting = len(self.connection.leg.out)
        self.connection.queue_replies()
        if len(self.connection.leg.out) > waiting:
            self._tell()
            reached("negotiate.asked")
            self.connection.release()
            self.connection.send_replies()

    def _still_no_telnet(self) -> None:
        connection = self.connection
        talked_otherwise = self._heard_text or connection.declined
        if not connection.session.extension and talked_otherwise:
            self.fail("it does not speak VMware's telnet extension", NOT_FOR_YOU)

    def _too_late(self) -> None:
        session = self.connection.session
        seconds = f"within {self.shell.settings['handshake_timeout']:g} s"
        if not session.extension:
            self.fail(f"it did not offer VMware's telnet extension {seconds}", NOT_FOR_YOU)
        elif session.proxy is None:
            self.fail(f"it did not ask for a service (DO-PROXY) {seconds}")
        else:
            self.fail(f"it did not tell its UUID {seconds}")

    # What the connection brings.

    def data(self, connection: Connection, data: Buffer) -> None:
        """Console bytes before the console is known: kept, a bounded number, when it is a VM that sends them."""
        if not self._heard_text and not connection.session.extension and data[0] == TLS_HANDSHAKE:
            self.fail("it speaks TLS, and there is no tls.certificate (or tls.mode is off)")
            return
        self._heard_text = True
        if connection.session.extension:
            if len(self.early) + len(data) > EARLY_LIMIT:
                raise PeerError(f"more than {EARLY_LIMIT} console bytes before it said whose they are")
            self.early += data

    def event(self, connection: Connection, event: Event) -> None:
        """A step of the negotiation."""
        if isinstance(event, ProxyRefused):
            self.fail(f"{event.reason}; it asked for {visible(event.uri)[:SHOWN]}")
        elif isinstance(event, BadIdentity):
            self._no_identity(event.reason)
        elif isinstance(event, Identity) and event.uuid == BLANK:
            self._no_identity("its VC UUID is blank")
        elif isinstance(event, VmotionPeer):
            self._pair = event.pair
            connection.pause()
        elif isinstance(event, (Identity, BiosUuid, ProxyRequest)) and self._identified and not self.over:
            connection.pause()

    @property
    def _uuid(self) -> Optional[str]:
        """Who the VM is: its VC UUID or, when that is of no use and the configuration allows it, its BIOS UUID."""
        session = self.connection.session
        return session.bios_uuid if self._by_bios else session.uuid

    @property
    def _identified(self) -> bool:
        return self._uuid not in (None, BLANK) and self.connection.session.proxy is not None

    def _no_identity(self, reason: str) -> None:
        session = self.connection.session
        if self.shell.settings["identity"]["fallback"] == "bios":
            self._by_bios = True
            session.ask_bios_uuid()
            if self._identified:
                self.connection.pause()
            return
        session.refuse_proxy()
        self.fail(reason)

    def turn_over(self, connection: Connection) -> None:
        """Claim the console once the turn is over: from then on another process may read and write."""
        if not (self._identified or self._pair is not None) or self.over or self._claimed:
            return
        if len(connection.leg.out) > UNSENT_LIMIT:
            raise PeerError("it does not read the answers to its requests")
        self._claimed = True
        self._stop_timers()
        # Not even its end is our business now: another process may have it.
        connection.leg.detach()
        self._claim()

    def claim_again(self) -> None:
        """Whoever was asked for the console is dead, and another one is there to ask."""
        if self._claimed and not self.over:
            self._claim()

    def _claim(self) -> None:
        session = self.connection.session
        if self._pair is not None:
            self.shell.tell("peer", pair=self._pair.hex(), session=self.snapshot())
            reached("claim.told")
            return
        label = session.proxy.label if session.proxy is not None else None
        self.shell.tell(
            "claim", uuid=self._uuid, label=label or "", name=session.name, session=self.snapshot()
        )
        reached("claim.told")

    def stranger(self) -> None:
        """Nobody waits for this pair. There is no way to say so but that; the VM may still ask for a port."""
        self.shell.log.warning("vmotion-unknown-pair", peer=self.connection.peer)
        self._pair = None
        self._was_stranger = True
        self._watch_again()
        timeout = self.shell.settings["handshake_timeout"]
        self._timers = [self.shell.loop.call_later(timeout, self._too_late)]
        self.connection.session.unknown(VMOTION_PEER)
        reached("negotiate.stranger")
        self._attempt(self._speak)
        if not self.over:
            self.connection.resume()

    def snapshot(self, size: int = 0) -> dict[str, Any]:
        """All that another worker needs to go on with this connection, ``size`` bytes from here."""
        itself = {
            "by_bios": self._by_bios,
            "was_stranger": self._was_stranger,
            "heard_text": self._heard_text,
            "declined": self.connection.declined,
            "pair": None if self._pair is None else self._pair.hex(),
        }
        return {**described(self.connection, NOWHERE, size, bytes(self.early)), "negotiation": itself}

    def changed(self, connection: Connection, size: int = 0) -> None:
        """Tell how things stand when the kernel is about to forget what has led there.

        Text of somebody who is no VM leads nowhere: he may say as much of it as he likes.
        """
        leg = connection.leg
        self._news = self._news or connection.talked or connection.session.extension
        if leg.held + size > leg.hold:
            if self._news:
                self._tell(size)
            leg.hold = 0  # what stays there keeps the window small

    def _tell(self, size: int = 0) -> None:
        self.shell.tell("session", leg=self.connection.leg.number, session=self.snapshot(size), move=None)
        self._news = False
        reached("negotiate.told")

    def room(self, connection: Connection) -> None:
        """Send the replies that wait."""
        connection.leg.want_room(not (self._claimed or connection.leg.flush()))

    def ended(self, connection: Connection, reason: str) -> None:
        """The peer has gone, or broke the protocol."""
        self.fail(
            f"it showed a vMotion pair that nobody waits for; {reason}" if self._was_stranger else reason
        )

    # The end.

    def fail(self, reason: str, words: bytes = b"") -> None:
        """Report why this VM is not served, and close: politely, so that last words arrive."""
        if self.over:
            return
        self.over = True
        self._stop_timers()
        self._watch_again()
        self.shell.tell("failed", reason=reason)
        connection = self.connection
        self._let_go_of_held()
        connection.leg.last_word(bytes(connection.leg.out) + connection.session.take_output() + words)
        connection.leg.out.clear()
        connection.handlers = Discard(self._leave)
        connection.resume()
        self.shell.loop.call_later(LAST_WORDS, self._leave)

    def stop(self) -> None:
        """The negotiation is over: the console is ours, or the connection somebody else's."""
        self.over = True
        self._stop_timers()

    def _let_go_of_held(self) -> None:
        self.connection.leg.hold = 0
        try:
            self.connection.release()
        except LegGone:
            pass  # the loop reports its end

    def _watch_again(self) -> None:
        """The claim came to nothing: the connection is still ours."""
        if self._claimed:
            self._claimed = False
            self.connection.serve(self.shell.loop)

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _leave(self) -> None:
        if not self.connection.closed:
            self.connection.end()
            self._done()


class Discard:
    """Handlers of a connection that has been told its last words: unread bytes would make TCP take them back."""

    tells_all = False

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def data(self, connection: Connection, data: Buffer) -> None:
        """Nobody's any more."""

    def event(self, connection: Connection, event: Event) -> None:
        """Too late."""

    def changed(self, connection: Connection, size: int = 0) -> None:
        """Nobody else goes on from here."""

    def turn_over(self, connection: Connection) -> None:
        """Nothing to do."""

    def room(self, connection: Connection) -> None:
        """Nothing is sent any more."""
        connection.leg.out.clear()
        connection.leg.want_room(False)

    def ended(self, connection: Connection, reason: str) -> None:
        """It has read all there was."""
        self._leave()
