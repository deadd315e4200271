"""The VM's side of one connection of its serial port, in the order that was recorded. Pure.

Does: takes bytes in, gives events and bytes out; offers and answers telnet options, speaks the VMware
extension and the RFC 2217 client, takes either part in a vMotion.
Owns: the telnet options, the unparsed tail of what came in, the bytes that wait to go out.
Never: touches a socket, a clock or the guest.

A connection is ``open`` when console data may go out: at WILL-PROXY, or on a vMotion target at
``complete()``. Data that comes in while a real host would lose it (before that, or on a source that was
told GOAHEAD) is a ``Misplaced`` event instead of a ``Data`` event: the concentrator is at fault.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Union

from vspcd.proto import telnet, vmware
from vspcd.proto.telnet import AUTHENTICATION, BINARY, COM_PORT, ECHO, SGA, VMWARE
from vspcd.simulator.line import PC_LINE, SerialLine, announcement, break_signal

ASK_EXTENSION = telnet.Negotiation(telnet.DO, VMWARE)


class Identity(NamedTuple):
    """Who a VM says it is. UUIDs are 32 hex digits."""

    uuid: str
    name: str
    bios_uuid: Optional[str] = None
    location_uuid: Optional[str] = None


class Ticket(NamedTuple):
    """What a vMotion target shows: the sequence of its source, and the whole pair of sequence and secret."""

    sequence: bytes
    pair: bytes


class Data(NamedTuple):
    """Console data for the guest."""

    data: bytes


class Misplaced(NamedTuple):
    """Data that came when it must not: a real host loses it."""

    data: bytes


class Accepted(NamedTuple):
    """WILL-PROXY: the console is connected."""


class Refused(NamedTuple):
    """WONT-PROXY."""


class GoAhead(NamedTuple):
    """The vMotion of this sequence may go on, with this ticket for the target."""

    ticket: Ticket


class NotNow(NamedTuple):
    """The vMotion of this sequence cannot be now."""

    sequence: bytes


class PeerOk(NamedTuple):
    """The target was recognised."""


class PeerUnknown(NamedTuple):
    """The target was not recognised: its VMOTION-PEER was answered as an unknown suboption."""


class Unknown(NamedTuple):
    """The concentrator does not know a command."""

    code: int


class Break(NamedTuple):
    """The concentrator sent a break."""


Event = Union[Data, Misplaced, Accepted, Refused, GoAhead, NotNow, PeerOk, PeerUnknown, Unknown, Break]

# What a VM's connection is doing.
NEGOTIATING, ASKING, OPEN, REFUSED, ADMITTED = "negotiating", "asking", "open", "refused", "admitted"


class Vm:
    """One connection of a VM's serial port."""

    def __init__(
        self,
        identity: Identity,
        uri: str = "vSPC.py",
        *,
        direction: str = "S",
        line: Optional[SerialLine] = PC_LINE,
        ticket: Optional[Ticket] = None,
        identity_first: bool = False,
    ) -> None:
        """``line`` None: no COM-PORT. With a ``ticket`` this is a vMotion target, which tells its UUID and
        name unasked when ``identity_first``."""
        self.identity = identity
        self.uri = uri
        self.direction = direction
        self.state = NEGOTIATING
        self.known_there: frozenset[int] = frozenset()
        self.unknown_there: frozenset[int] = frozenset()
        self._line = line
        self._ticket = ticket
        self._identity_first = identity_first
        self.sequence: Optional[bytes] = None
        self.grant: Optional[Ticket] = None
        self._options = telnet.Options(
            local=frozenset({BINARY, SGA, VMWARE, COM_PORT}), remote=frozenset({BINARY, SGA, ECHO})
        )
        self._extension_asked = False
        self._asked = False
        self._tail = bytearray()
        self._output = bytearray()
        self._events: list[Event] = []

    # -- what the host does

    def start(self) -> None:
        """The connection is made: offer AUTHENTICATION, and nothing else until it was answered."""
        self._options.ask_local(AUTHENTICATION)
        self._flush_options()

    def receive(self, data: bytes) -> list[Event]:
        """Take in what came, cut anywhere. Raises PeerError."""
        self._tail += data
        tokens = telnet.tokens(self._tail)
        if tokens:
            del self._tail[: tokens[-1][1]]
        for token, _ in tokens:
            self._token(token)
        events, self._events = self._events, []
        return events

    def take_output(self) -> bytes:
        """What must be sent now, before any more console data."""
        output = bytes(self._output)
        self._output.clear()
        return output

    @property
    def output_size(self) -> int:
        return len(self._output)

    @property
    def open(self) -> bool:
        """Console data may be sent."""
        return self.state == OPEN

    def rename(self, name: str) -> None:
        """The VM has a new name, and says so when it was accepted."""
        self.identity = self.identity._replace(name=name)
        if self.state in (OPEN, ADMITTED):
            self._send(vmware.VM_NAME, name.encode())

    def send_break(self, on: bool) -> None:
        """The guest begins or ends a break; nothing without COM-PORT."""
        if self._options.local(COM_PORT):
            self._output += telnet.subnegotiation(COM_PORT, break_signal(on))

    # -- vMotion

    def begin(self, sequence: bytes) -> None:
        """Source: ask to be moved. GOAHEAD sets ``grant``, NOTNOW unsets ``sequence``."""
        self.sequence, self.grant = sequence, None
        self._send(vmware.VMOTION_BEGIN, sequence)

    def abort(self) -> None:
        """Source: the machine stays here after all."""
        self.forget()
        self._send(vmware.VMOTION_ABORT)

    def forget(self) -> None:
        """Source: the vMotion is over without a word; the concentrator finds out by itself."""
        self.sequence = self.grant = None

    def complete(self) -> None:
        """Target: the machine runs here from now on."""
        assert self._ticket is not None
        self._send(vmware.VMOTION_COMPLETE, self._ticket.sequence)
        self.state = OPEN

    # -- tokens

    def _token(self, token: telnet.Token) -> None:
        if isinstance(token, bytes):
            expected = self.open and self.grant is None
            self._events.append(Data(token) if expected else Misplaced(token))
        elif isinstance(token, telnet.Negotiation):
            self._negotiation(token)
        elif isinstance(token, telnet.Subnegotiation):
            self._subnegotiation(token)
        elif token.code == telnet.BREAK:
            self._events.append(Break())

    def _negotiation(self, heard: telnet.Negotiation) -> None:
        if heard == ASK_EXTENSION and not self._options.answered(AUTHENTICATION):
            self._extension_asked = True
            return
        changes = self._options.receive(heard)
        if heard.option == AUTHENTICATION:
            self._offer_extension()
        self._flush_options()
        if telnet.Change("local", COM_PORT, True) in changes and self._line is not None:
            for payload in announcement(self._line):
                self._output += telnet.subnegotiation(COM_PORT, payload)

    def _subnegotiation(self, heard: telnet.Subnegotiation) -> None:
        if heard.option == VMWARE and heard.payload:
            code, payload = heard.payload[0], heard.payload[1:]
            _COMMANDS.get(code, Vm._unknown)(self, code, payload)

    # -- commands

    def _known(self, code: int, payload: bytes) -> None:
        self.known_there = frozenset(payload)
        if self._asked:
            return
        self._asked = True
        self._send(vmware.KNOWN_SUBOPTIONS_1, vmware.known_codes(vmotion=True))
        if self._identity_first:
            self._tell_uuid(code, b"")
            self._tell_name(code, b"")
        self.state = ASKING
        if self._ticket is not None:
            self._send(vmware.VMOTION_PEER, self._ticket.pair)
        else:
            self._send(vmware.DO_PROXY, self.direction.encode() + self.uri.encode())

    def _accepted(self, code: int, payload: bytes) -> None:
        if self.state != ASKING or self._ticket is not None:
            return
        self.state = OPEN
        self._offer_line()
        self._events.append(Accepted())

    def _refused(self, code: int, payload: bytes) -> None:
        if self.state == ASKING:
            self.state = REFUSED
            self._events.append(Refused())

    def _goahead(self, code: int, payload: bytes) -> None:
        """Only the newest BEGIN counts: GOAHEAD for one that it replaced, or that was aborted, goes by."""
        if self.sequence is not None and payload.startswith(self.sequence):
            self.grant = Ticket(self.sequence, payload)
            self._events.append(GoAhead(self.grant))

    def _notnow(self, code: int, payload: bytes) -> None:
        if payload == self.sequence:
            self.forget()
            self._events.append(NotNow(payload))

    def _peer_ok(self, code: int, payload: bytes) -> None:
        if self.state == ASKING and self._ticket is not None and payload == self._ticket.sequence:
            self.state = ADMITTED
            self._offer_line()
            self._events.append(PeerOk())

    def _not_known_there(self, code: int, payload: bytes) -> None:
        if payload[:1] == bytes([vmware.VMOTION_PEER]) and self.state == ASKING:
            self.state = REFUSED
            self._events.append(PeerUnknown())
        elif payload:
            self.unknown_there |= {payload[0]}
            self._events.append(Unknown(payload[0]))

    def _tell_uuid(self, code: int, payload: bytes) -> None:
        self._send(vmware.VM_VC_UUID, vmware.uuid_payload(self.identity.uuid))

    def _tell_name(self, code: int, payload: bytes) -> None:
        self._send(vmware.VM_NAME, self.identity.name.encode())

    def _tell_bios(self, code: int, payload: bytes) -> None:
        self._send(vmware.VM_BIOS_UUID, vmware.uuid_payload(self.identity.bios_uuid or self.identity.uuid))

    def _tell_location(self, code: int, payload: bytes) -> None:
        self._send(
            vmware.VM_LOCATION_UUID, vmware.uuid_payload(self.identity.location_uuid or self.identity.uuid)
        )

    def _unknown(self, code: int, payload: bytes) -> None:
        if code != vmware.UNKNOWN_SUBOPTION_RCVD_1:
            self._send(vmware.UNKNOWN_SUBOPTION_RCVD_1, bytes([code]))

    def _offer_extension(self) -> None:
        if self._extension_asked:
            self._extension_asked = False
            self._options.receive(ASK_EXTENSION)
        else:
            self._options.ask_local(VMWARE)

    def _offer_line(self) -> None:
        if self._line is not None:
            self._options.ask_local(COM_PORT)
            self._flush_options()

    def _send(self, code: int, payload: bytes = b"") -> None:
        self._output += vmware.frame(code, payload)

    def _flush_options(self) -> None:
        self._output += self._options.take_output()


_COMMANDS: dict[int, Callable[[Vm, int, bytes], None]] = {
    vmware.KNOWN_SUBOPTIONS_2: Vm._known,
    vmware.UNKNOWN_SUBOPTION_RCVD_2: Vm._not_known_there,
    vmware.WILL_PROXY: Vm._accepted,
    vmware.WONT_PROXY: Vm._refused,
    vmware.VMOTION_GOAHEAD: Vm._goahead,
    vmware.VMOTION_NOTNOW: Vm._notnow,
    vmware.VMOTION_PEER_OK: Vm._peer_ok,
    vmware.GET_VM_VC_UUID: Vm._tell_uuid,
    vmware.GET_VM_NAME: Vm._tell_name,
    vmware.GET_VM_BIOS_UUID: Vm._tell_bios,
    vmware.GET_VM_LOCATION_UUID: Vm._tell_location,
}
