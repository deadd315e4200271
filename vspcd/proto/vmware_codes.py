"""The VMware telnet extension's codes, encodings and events. Owns no state; see vmware.py for the session."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional, Union
from urllib.parse import parse_qsl

from vspcd.proto import comport, telnet
from vspcd.proto.errors import LocalError, PeerError

Break = comport.Break
LineSettings = comport.LineSettings

KNOWN_SUBOPTIONS_1, KNOWN_SUBOPTIONS_2 = 0, 1
UNKNOWN_SUBOPTION_RCVD_1, UNKNOWN_SUBOPTION_RCVD_2 = 2, 3
VMOTION_BEGIN, VMOTION_GOAHEAD, VMOTION_NOTNOW = 40, 41, 43
VMOTION_PEER, VMOTION_PEER_OK, VMOTION_COMPLETE, VMOTION_ABORT = 44, 45, 46, 48
DO_PROXY, WILL_PROXY, WONT_PROXY = 70, 71, 73
VM_VC_UUID, GET_VM_VC_UUID, VM_NAME, GET_VM_NAME = 80, 81, 82, 83
VM_BIOS_UUID, GET_VM_BIOS_UUID, VM_LOCATION_UUID, GET_VM_LOCATION_UUID = 84, 85, 86, 87

VMOTION_CODES = frozenset(
    (
        VMOTION_BEGIN,
        VMOTION_GOAHEAD,
        VMOTION_NOTNOW,
        VMOTION_PEER,
        VMOTION_PEER_OK,
        VMOTION_COMPLETE,
        VMOTION_ABORT,
    )
)
_PLAIN_CODES = frozenset(
    (*range(4), DO_PROXY, WILL_PROXY, WONT_PROXY, *range(VM_VC_UUID, GET_VM_LOCATION_UUID + 1))
)

DIRECTION_SERVER, DIRECTION_CLIENT = "S", "C"
NAME_LIMIT = 256  # characters
URI_LIMIT = 1024  # bytes
SEQUENCE_LIMIT = 256  # bytes; a pair of sequence and secret may have as many again

_HEX32 = re.compile(r"[0-9a-f]{32}")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SPACING = str.maketrans("", "", " \t\r\n-")


@dataclass(frozen=True)
class Extension:
    """The VM speaks the extension, and our list of codes is queued."""


@dataclass(frozen=True)
class Identity:
    """The VM's VC UUID, 32 hex digits in lower case."""

    uuid: str


@dataclass(frozen=True)
class BadIdentity:
    """The VM gave a VC UUID that is blank, malformed, or another one than before."""

    reason: str


@dataclass(frozen=True)
class Named:
    """The VM's name, for the first time or another one than before. It can be empty."""

    name: str


@dataclass(frozen=True)
class BiosUuid:
    uuid: str


@dataclass(frozen=True)
class LocationUuid:
    uuid: str


@dataclass(frozen=True)
class ProxyRequest:
    """The VM wants to be served, and may be: accept_proxy() or refuse_proxy() is due."""

    direction: str
    uri: str
    label: Optional[str]


@dataclass(frozen=True)
class ProxyRefused:
    """What the VM wants we do not offer. WONT-PROXY is queued."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Line:
    settings: LineSettings


@dataclass(frozen=True)
class VmotionBegin:
    sequence: bytes


@dataclass(frozen=True)
class VmotionPeer:
    """pair: sequence and secret as one, since only whoever gave them out knows where they join."""

    pair: bytes


@dataclass(frozen=True)
class VmotionComplete:
    sequence: bytes


@dataclass(frozen=True)
class VmotionAbort:
    pass


@dataclass(frozen=True)
class Ignored:
    """A message without effect: its code is unknown to us, or it reports one that the VM did not know."""

    code: int


Event = Union[
    Extension,
    Identity,
    BadIdentity,
    Named,
    BiosUuid,
    LocationUuid,
    ProxyRequest,
    ProxyRefused,
    Line,
    Break,
    VmotionBegin,
    VmotionPeer,
    VmotionComplete,
    VmotionAbort,
    Ignored,
]


def known_codes(vmotion: bool) -> bytes:
    """The payload of KNOWN-SUBOPTIONS: the same list every time."""
    return bytes(sorted(_PLAIN_CODES | VMOTION_CODES if vmotion else _PLAIN_CODES))


def frame(code: int, payload: bytes = b"") -> bytes:
    """One message of the extension, ready for the wire."""
    return telnet.subnegotiation(telnet.VMWARE, bytes((code,)) + payload)


def parse_uuid(text: Union[bytes, str]) -> str:
    """The 32 hex digits of a UUID in any spacing, dashes and case; PeerError on anything else."""
    spelled = text.decode("latin-1") if isinstance(text, bytes) else text
    digits = spelled.translate(_SPACING).lower()
    if not _HEX32.fullmatch(digits):
        raise PeerError(f"not a UUID: {spelled[:64]!a:.80}" if digits else "blank UUID")
    return digits


def format_uuid(hex32: str) -> str:
    """32 hex digits as people see them: 8-4-4-4-12."""
    if not _HEX32.fullmatch(hex32):
        raise LocalError(f"not 32 hex digits: {hex32!r}")
    return "-".join((hex32[:8], hex32[8:12], hex32[12:16], hex32[16:20], hex32[20:]))


def uuid_payload(hex32: str) -> bytes:
    """32 hex digits as a VM sends them: `01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00`."""
    pairs = [hex32[at : at + 2] for at in range(0, 32, 2)]
    return f"{' '.join(pairs[:8])}-{' '.join(pairs[8:])}".encode()


def parse_name(payload: bytes) -> str:
    # The cut before decoding bounds the work: no character takes more than four bytes.
    return payload[: 4 * NAME_LIMIT].decode("utf-8", "replace")[:NAME_LIMIT]


def parse_proxy(
    payload: bytes, services: tuple[str, ...], dial: tuple[str, ...]
) -> Union[ProxyRequest, ProxyRefused]:
    """What DO-PROXY asks for, judged: services are the URIs that we serve, dial those that we may call."""
    direction = payload[:1].decode("latin-1")
    uri = payload[1 : 1 + URI_LIMIT].decode("utf-8", "replace")
    if len(payload) > 1 + URI_LIMIT:
        return ProxyRefused(uri, f"the service URI is longer than {URI_LIMIT} bytes")
    if direction == DIRECTION_CLIENT:
        if uri in dial:
            return ProxyRequest(direction, uri, None)
        return ProxyRefused(uri, "the VM asks us to dial this URI, and it is not among those allowed")
    if direction != DIRECTION_SERVER:
        return ProxyRefused(uri, f"the direction is {direction!a}, neither 'S' nor 'C'")
    return _parse_service(uri, services)


def _parse_service(uri: str, services: tuple[str, ...]) -> Union[ProxyRequest, ProxyRefused]:
    service, _, query = uri.partition("?")
    if service not in services:
        return ProxyRefused(uri, "no such service; we are " + " or ".join(services))
    if not query:
        return ProxyRequest(DIRECTION_SERVER, uri, None)
    labels = [value for key, value in parse_qsl(query, keep_blank_values=True) if key == "port"]
    if not labels:
        return ProxyRequest(DIRECTION_SERVER, uri, None)
    if len(labels) > 1:
        return ProxyRefused(uri, "more than one port label")
    if not _LABEL.fullmatch(labels[0]):
        return ProxyRefused(uri, "a port label is 1 to 32 of letters, digits, _ and -")
    return ProxyRequest(DIRECTION_SERVER, uri, labels[0])
