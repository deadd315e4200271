"""What a certificate says of itself: thumbprints, end, subject and names.

Does: reads the first certificate of a PEM text (RFC 7468, RFC 5280), which is the one that a server shows.
Owns: nothing.
Never: checks a signature; looks at the clock; opens a file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple

DAMAGED = "its certificate is damaged"

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _OCTETS, _UTC_TIME = 0x30, 0x04, 0x17
_VERSION, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0xA0, 0xA3, 0x82, 0x87
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_ENCODINGS = {0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}  # all others hold ASCII or UTF-8
_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}


class NoCertificate(ValueError):
    """The text holds no certificate that can be read; says why."""


class Facts(NamedTuple):
    """Thumbprints are ``AA:BB:…``, times are seconds since 1970, ``subject`` is ``CN=…,O=…``."""

    sha1: str
    sha256: str
    not_before: int
    not_after: int
    subject: str
    names: tuple[str, ...]


def facts(pem: str) -> Facts:
    """The facts of the first certificate in a PEM text. Raises NoCertificate."""
    match = _PEM.search(pem)
    if match is None:
        raise NoCertificate("it holds no certificate in PEM form")
    try:
        der = base64.b64decode("".join(match[1].split()), validate=True)
    except binascii.Error:
        raise NoCertificate(DAMAGED) from None
    return facts_of_der(der)


def facts_of_der(der: bytes) -> Facts:
    """The facts of one certificate as it stands in a handshake. Raises NoCertificate."""
    try:
        return _facts(der)
    except (ValueError, IndexError):
        raise NoCertificate(DAMAGED) from None


def _facts(der: bytes) -> Facts:
    ((_, certificate),) = _items(der)
    fields = list(_items(_content(certificate)))
    fields = fields[fields[0][0] == _VERSION :]
    _serial, _algorithm, _issuer, validity, subject, _key, *optional = fields
    begin, end = _items(validity[1])
    return Facts(
        sha1=thumbprint("sha1", der),
        sha256=thumbprint("sha256", der),
        not_before=_time(*begin),
        not_after=_time(*end),
        subject=",".join(_subject(subject[1])),
        names=tuple(name for tag, value in optional if tag == _EXTENSIONS for name in _names(value)),
    )


def thumbprint(algorithm: str, der: bytes) -> str:
    """As vSphere and ``openssl x509 -fingerprint`` write it."""
    return hashlib.new(algorithm, der, usedforsecurity=False).digest().hex(":").upper()


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that stand side by side: tag and content. IndexError or ValueError on anything else."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("an element is cut off")
        yield tag, data[at : at + size]
        at += size


def _content(data: bytes) -> bytes:
    """The content of the first element. ValueError when there is none."""
    (_, content), *_ = _items(data)
    return content


def _time(tag: int, content: bytes) -> int:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: two digits from 50 on are 1950 to 1999
        text = ("19" if text[:2] >= "50" else "20") + text
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp())


def _subject(name: bytes) -> Iterator[str]:
    for _, group in _items(name):
        for _, attribute in _items(group):
            (_, kind), (tag, value) = _items(attribute)
            text = value.decode(_ENCODINGS.get(tag, "utf-8"), "replace")
            yield f"{_ATTRIBUTES.get(kind, kind.hex())}={text}"


def _names(extensions: bytes) -> Iterator[str]:
    """DNS names and addresses of subjectAltName."""
    for _, extension in _items(_content(extensions)):
        (_, kind), *_critical, (_, value) = _items(extension)
        if kind == _ALTERNATIVE_NAMES:
            for tag, name in _items(_content(value)):
                if tag == _DNS_NAME:
                    yield name.decode("ascii", "replace")
                elif tag == _IP_ADDRESS:
                    yield str(ipaddress.ip_address(name))
