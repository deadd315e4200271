"""The concentrator's side of one VM connection: telnet negotiation and the VMware extension (option 232).

Owns what the VM has said about itself and the replies that are queued for it. Never touches a socket or a
clock, never sees console data, and decides nothing that needs more than this one connection: who may have
a console and what a vMotion pair is worth is up to the caller.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Optional, TypeVar, Union

from vspcd.proto import comport, telnet
from vspcd.proto.comport import line_as_dict, line_from_dict
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.telnet import AUTHENTICATION, COM_PORT, VMWARE, Command, Negotiation, Options, Subnegotiation

# Whoever speaks the extension needs this one module.
from vspcd.proto.vmware_codes import *  # noqa: F403
from vspcd.proto.vmware_codes import (
    DO_PROXY,
    GET_VM_BIOS_UUID,
    GET_VM_LOCATION_UUID,
    GET_VM_NAME,
    GET_VM_VC_UUID,
    KNOWN_SUBOPTIONS_1,
    KNOWN_SUBOPTIONS_2,
    SEQUENCE_LIMIT,
    UNKNOWN_SUBOPTION_RCVD_1,
    UNKNOWN_SUBOPTION_RCVD_2,
    VM_BIOS_UUID,
    VM_LOCATION_UUID,
    VM_NAME,
    VM_VC_UUID,
    VMOTION_ABORT,
    VMOTION_BEGIN,
    VMOTION_CODES,
    VMOTION_COMPLETE,
    VMOTION_GOAHEAD,
    VMOTION_NOTNOW,
    VMOTION_PEER,
    VMOTION_PEER_OK,
    WILL_PROXY,
    WONT_PROXY,
    BadIdentity,
    BiosUuid,
    Break,
    Event,
    Extension,
    Identity,
    Ignored,
    Line,
    LineSettings,
    LocationUuid,
    Named,
    ProxyRefused,
    ProxyRequest,
    VmotionAbort,
    VmotionBegin,
    VmotionComplete,
    VmotionPeer,
    frame,
    known_codes,
    parse_name,
    parse_proxy,
    parse_uuid,
)

SERVICES = ("vSPC.py",)
LOCAL_OPTIONS = frozenset((telnet.BINARY, telnet.SGA, telnet.ECHO))
REMOTE_OPTIONS = frozenset((telnet.BINARY, telnet.SGA, VMWARE, COM_PORT))
_OFFERED = (telnet.BINARY, telnet.SGA, telnet.ECHO)
_ASKED = (telnet.BINARY, telnet.SGA, VMWARE)
# What we may ask for, and the answer that a VM lists when it knows only that one.
_DETAILS = {GET_VM_BIOS_UUID: VM_BIOS_UUID, GET_VM_LOCATION_UUID: VM_LOCATION_UUID}

Message = Union[Negotiation, Command, Subnegotiation]
Value = TypeVar("Value")


class Session:
    """One connection. services: the URIs that we answer to; dial: those that a VM may have us call."""

    def __init__(
        self, services: tuple[str, ...] = SERVICES, vmotion: bool = True, dial: tuple[str, ...] = ()
    ) -> None:
        self.services, self._vmotion, self._dial = services, vmotion, dial
        self._options = Options(LOCAL_OPTIONS, REMOTE_OPTIONS)
        self._output = bytearray()
        self._asked = False  # for the VM's options and the extension
        self._queried: set[int] = set()  # the GET-... codes that were queued
        self._welcomed = False  # WILL-PROXY or VMOTION-PEER-OK was queued
        self.extension = False
        self.uuid: Optional[str] = None
        self.name: Optional[str] = None
        self.bios_uuid: Optional[str] = None
        self.location_uuid: Optional[str] = None
        self.proxy: Optional[ProxyRequest] = None
        self.known: frozenset[int] = frozenset()
        self.line = LineSettings()
        self._line_told = False
        self.wants_breaks = False  # by COM-PORT, besides telnet's BREAK

    @property
    def line_told(self) -> bool:
        """Whether the guest has set its serial line."""
        return self._line_told

    def start(self) -> None:
        """Offer what we do. What we want of the VM is asked for once it has answered something."""
        for option in _OFFERED:
            self._options.ask_local(option)

    def ask(self) -> None:
        """Ask a VM that has answered nothing for its options and the extension; once per connection."""
        if not self._asked:
            self._asked = True
            for option in _ASKED:
                self._options.ask_remote(option)

    def receive(self, token: Message) -> list[Event]:
        """What the token means; replies are queued. PeerError when it breaks the protocol."""
        if isinstance(token, Negotiation):
            return self._negotiate(token)
        if isinstance(token, Subnegotiation):
            return self._subnegotiate(token)
        return []

    def take_output(self) -> bytes:
        self._queue(b"")
        output = bytes(self._output)
        self._output.clear()
        return output

    def ask_identity(self) -> None:
        self._query(GET_VM_VC_UUID)
        self._query(GET_VM_NAME)

    def ask_bios_uuid(self) -> None:
        """Ask for the BIOS UUID now: the VM has no other identity. Once per connection."""
        self._query(GET_VM_BIOS_UUID)

    def accept_proxy(self) -> None:
        if self.proxy is None:
            raise LocalError("no VM asked to be served")
        self._queue(frame(WILL_PROXY))
        self._welcome()

    def refuse_proxy(self) -> None:
        self.proxy = None
        self._queue(frame(WONT_PROXY))

    def notify_break(self) -> None:
        """Tell the VM of a break, if it has asked for that."""
        if self.wants_breaks:
            self._queue(telnet.subnegotiation(COM_PORT, comport.break_notice()))

    def goahead(self, sequence: bytes, secret: bytes) -> None:
        self._queue(frame(VMOTION_GOAHEAD, sequence + secret))

    def notnow(self, sequence: bytes) -> None:
        self._queue(frame(VMOTION_NOTNOW, sequence))

    def peer_ok(self, sequence: bytes) -> None:
        self._queue(frame(VMOTION_PEER_OK, sequence))
        self._welcome()

    def unknown(self, code: int) -> None:
        self._queue(frame(UNKNOWN_SUBOPTION_RCVD_2, bytes((code,))))

    def snapshot(self) -> dict[str, object]:
        """The whole state but the constructor's arguments, fit for JSON."""
        self._queue(b"")
        return {
            "options": self._options.snapshot(),
            "output": self._output.hex(),
            "asked": self._asked,
            "queried": sorted(self._queried),
            "welcomed": self._welcomed,
            "extension": self.extension,
            "uuid": self.uuid,
            "name": self.name,
            "bios_uuid": self.bios_uuid,
            "location_uuid": self.location_uuid,
            "proxy": None if self.proxy is None else [self.proxy.direction, self.proxy.uri, self.proxy.label],
            "known": sorted(self.known),
            "line": line_as_dict(self.line),
            "line_told": self._line_told,
            "wants_breaks": self.wants_breaks,
        }

    @classmethod
    def restore(
        cls,
        saved: dict[str, Any],
        services: tuple[str, ...] = SERVICES,
        vmotion: bool = True,
        dial: tuple[str, ...] = (),
    ) -> Session:
        """The session that snapshot() wrote down; LocalError when it is not one."""
        session = cls(services, vmotion, dial)
        try:
            session._restore(saved)
        except (KeyError, TypeError, ValueError) as error:
            raise LocalError(f"not a snapshot of a VM's session: {error!r}") from error
        return session

    def _restore(self, saved: dict[str, Any]) -> None:
        self._options = Options.restore(saved["options"])
        self._output = bytearray.fromhex(saved["output"])
        self._asked, self._welcomed = _checked(bool, saved["asked"]), _checked(bool, saved["welcomed"])
        self._queried = {_checked(int, code) for code in saved["queried"]}
        self.extension = _checked(bool, saved["extension"])
        self.uuid, self.name = _text(saved["uuid"]), _text(saved["name"])
        self.bios_uuid, self.location_uuid = _text(saved["bios_uuid"]), _text(saved["location_uuid"])
        if saved["proxy"] is not None:
            direction, uri, label = saved["proxy"]
            self.proxy = ProxyRequest(_checked(str, direction), _checked(str, uri), _text(label))
        self.known = frozenset(_checked(int, code) for code in saved["known"])
        self.line = line_from_dict(saved["line"])
        self._line_told = _checked(bool, saved["line_told"])
        # An older version did not know it.
        self.wants_breaks = _checked(bool, saved.get("wants_breaks", False))

    def _negotiate(self, token: Negotiation) -> list[Event]:
        events: list[Event] = []
        for change in self._options.receive(token):
            if change.side == "remote" and change.option == VMWARE:
                events += self._greet() if change.enabled else self._part()
        # An offer of AUTHENTICATION is what a VM says of itself before it has read anything.
        if token.option != AUTHENTICATION:
            self.ask()
        return events

    def _greet(self) -> list[Event]:
        if self.extension:
            return []
        self.extension = True
        self._queue(frame(KNOWN_SUBOPTIONS_2, known_codes(self._vmotion)))
        return [Extension()]

    def _part(self) -> list[Event]:
        self.extension = False
        return []

    def _subnegotiate(self, token: Subnegotiation) -> list[Event]:
        if token.option == COM_PORT:
            return self._com_port(token.payload)
        if token.option != VMWARE or not token.payload:
            return []
        # A VM that speaks the extension has it, whatever it negotiated.
        events = self._greet()
        code, payload = token.payload[0], token.payload[1:]
        handler = _HANDLERS.get(code)
        if handler is None or (code in VMOTION_CODES and not self._vmotion):
            self.unknown(code)
            return [*events, Ignored(code)]
        return events + handler(self, payload)

    def _com_port(self, payload: bytes) -> list[Event]:
        reply, events = comport.answer(payload, self.line)
        wants = comport.wants_breaks(payload)
        self.wants_breaks = self.wants_breaks if wants is None else wants
        if reply:
            self._queue(telnet.subnegotiation(COM_PORT, reply))
        return [noted for event in events for noted in self._note(event)]

    def _note(self, event: comport.Event) -> list[Event]:
        if isinstance(event, Break):
            self.line = replace(self.line, break_on=event.on)
            return [event]
        if event == self.line and self._line_told:
            return []
        self.line, self._line_told = event, True
        return [Line(event)]

    def _known_suboptions(self, payload: bytes) -> list[Event]:
        self.known = frozenset(payload)
        self._query_details()
        return []

    def _unknown_to_vm(self, payload: bytes) -> list[Event]:
        return [Ignored(UNKNOWN_SUBOPTION_RCVD_1)]

    def _unknown_to_us(self, payload: bytes) -> list[Event]:
        return [Ignored(UNKNOWN_SUBOPTION_RCVD_2)]

    def _do_proxy(self, payload: bytes) -> list[Event]:
        asked = parse_proxy(payload, self.services, self._dial)
        if isinstance(asked, ProxyRequest) and self.proxy is not None:
            return self._do_proxy_again(asked)
        if isinstance(asked, ProxyRefused):
            self._queue(frame(WONT_PROXY))
            return [asked]
        self.proxy = asked
        self.ask_identity()
        return [asked]

    def _do_proxy_again(self, asked: ProxyRequest) -> list[Event]:
        if asked != self.proxy:
            self._queue(frame(WONT_PROXY))
            return [ProxyRefused(asked.uri, "this connection asked for another port before")]
        if self._welcomed:
            self._queue(frame(WILL_PROXY))
        return []

    def _vc_uuid(self, payload: bytes) -> list[Event]:
        try:
            uuid = parse_uuid(payload)
        except PeerError as error:
            return [BadIdentity(str(error))]
        if self.uuid is None:
            self.uuid = uuid
            return [Identity(uuid)]
        return [] if uuid == self.uuid else [BadIdentity(f"the VM was {self.uuid} and now says {uuid}")]

    def _vm_name(self, payload: bytes) -> list[Event]:
        name = parse_name(payload)
        if name == self.name:
            return []
        self.name = name
        return [Named(name)]

    def _bios_uuid(self, payload: bytes) -> list[Event]:
        uuid = _uuid_or_none(payload)
        if uuid is None or uuid == self.bios_uuid:
            return []
        self.bios_uuid = uuid
        return [BiosUuid(uuid)]

    def _location_uuid(self, payload: bytes) -> list[Event]:
        uuid = _uuid_or_none(payload)
        if uuid is None or uuid == self.location_uuid:
            return []
        self.location_uuid = uuid
        return [LocationUuid(uuid)]

    def _vmotion_begin(self, payload: bytes) -> list[Event]:
        return [VmotionBegin(_bounded(payload, SEQUENCE_LIMIT))]

    def _vmotion_peer(self, payload: bytes) -> list[Event]:
        pair = _bounded(payload, 2 * SEQUENCE_LIMIT)
        self.ask_identity()
        return [VmotionPeer(pair)]

    def _vmotion_complete(self, payload: bytes) -> list[Event]:
        return [VmotionComplete(_bounded(payload, SEQUENCE_LIMIT))]

    def _vmotion_abort(self, payload: bytes) -> list[Event]:
        return [VmotionAbort()]

    def _welcome(self) -> None:
        self._welcomed = True
        self._query_details()

    def _query_details(self) -> None:
        for query, reply in _DETAILS.items():
            if self._welcomed and not self.known.isdisjoint((query, reply)):
                self._query(query)

    def _query(self, code: int) -> None:
        if code not in self._queried:
            self._queried.add(code)
            self._queue(frame(code))

    def _queue(self, data: bytes) -> None:
        # What the options queued came first.
        self._output += self._options.take_output()
        self._output += data


_HANDLERS: dict[int, Callable[[Session, bytes], list[Event]]] = {
    KNOWN_SUBOPTIONS_1: Session._known_suboptions,
    UNKNOWN_SUBOPTION_RCVD_1: Session._unknown_to_vm,
    UNKNOWN_SUBOPTION_RCVD_2: Session._unknown_to_us,
    VMOTION_BEGIN: Session._vmotion_begin,
    VMOTION_PEER: Session._vmotion_peer,
    VMOTION_COMPLETE: Session._vmotion_complete,
    VMOTION_ABORT: Session._vmotion_abort,
    DO_PROXY: Session._do_proxy,
    VM_VC_UUID: Session._vc_uuid,
    VM_NAME: Session._vm_name,
    VM_BIOS_UUID: Session._bios_uuid,
    VM_LOCATION_UUID: Session._location_uuid,
}


def _uuid_or_none(payload: bytes) -> Optional[str]:
    try:
        return parse_uuid(payload)
    except PeerError:
        # Nothing depends on these two: a VM without them is served all the same.
        return None


def _bounded(payload: bytes, limit: int) -> bytes:
    if len(payload) > limit:
        raise PeerError(f"vMotion message of {len(payload)} bytes, more than {limit}")
    return payload


def _checked(kind: type[Value], value: object) -> Value:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _text(value: object) -> Optional[str]:
    return None if value is None else _checked(str, value)
