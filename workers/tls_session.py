"""One TLS session, the server's side: ciphertext in, plaintext out, and the other way round.

Does: the handshake, decryption, encryption, the end of each direction; says in words why a session failed.
Owns: OpenSSL's state of the session, and nothing that waits: callers take all output at once.
Never: touches a socket; renegotiates.

What is put in is decrypted in the same call, so OpenSSL never holds more than one record that is incomplete.
Closing relies on that: OpenSSL fails when it finds data behind our own close_notify.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple, Optional

from vspcd.proto.certificate import NoCertificate, facts_of_der
from workers.tls_context import Loaded

RECORD = 16384
"""Plaintext in a record, at most (RFC 8446, section 5.1)."""

_REASONS = {
    "HTTP_REQUEST": "it speaks HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "what it sent is not TLS",
    "NO_SHARED_CIPHER": "it has no cipher that we accept",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "it has no signature algorithm that we accept",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it has no signature algorithm that fits our certificate",
    "NO_SUITABLE_KEY_SHARE": "it has no key exchange that we accept",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, which client_ca demands",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "what it sent cannot be decrypted",
}
_OLD_VERSIONS = frozenset({"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "UNKNOWN_PROTOCOL"})
_ALERTS = {
    "UNKNOWN_CA": "it does not know who signed our certificate",
    "BAD_CERTIFICATE": "it does not accept our certificate",
    "CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "UNSUPPORTED_CERTIFICATE": "it does not support our kind of certificate",
    "PROTOCOL_VERSION": "it does not speak the TLS version that we chose",
    "HANDSHAKE_FAILURE": "it found no cipher or version in common with us",
}


class Secured(NamedTuple):
    """What a handshake agreed on; ``subject`` is that of the peer's certificate, ``name`` the common name in it."""

    version: str
    cipher: str
    subject: Optional[str]
    name: Optional[str]


class Session:
    """One session. ``failure`` says in words why it cannot go on; there may still be an alert to take and send."""

    def __init__(self, loaded: Loaded) -> None:
        self._min_version = loaded.min_version
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = loaded.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.secured: Optional[Secured] = None
        self.peer_ended = False
        self.failure: Optional[str] = None

    def receive(self, data: bytes) -> bytes:
        """The plaintext of what has come. Changes ``secured``, ``peer_ended`` and ``failure``."""
        self._incoming.write(data)
        plain = bytearray()
        try:
            if self.secured is None:
                self._tls.do_handshake()
                self.secured = self._agreed()
            while not self.peer_ended:
                self._decrypt(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
        return bytes(plain)

    def _decrypt(self, plain: bytearray) -> None:
        try:
            data = self._tls.read(RECORD)
        except ssl.SSLZeroReturnError:
            data = b""
        plain += data
        self.peer_ended = not data

    def receive_end(self) -> None:
        """The connection has ended, with or without a close_notify."""
        self.peer_ended = True
        if self.secured is None and self.failure is None:
            self.failure = "it closed the connection during the TLS handshake"

    def send(self, data: bytes) -> None:
        """Encrypt. Changes ``failure``."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            self._fail(error)

    def _fail(self, error: ssl.SSLError) -> None:
        self.peer_ended = True
        self.failure = self._reason(error)

    def close(self) -> None:
        """Nothing more will be sent; what the peer sends can still be received."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # SSLWantReadError: the peer has not closed its direction; others: it is past caring

    def take_output(self) -> bytes:
        """The ciphertext that is to be sent."""
        return self._outgoing.read()

    def _agreed(self) -> Secured:
        cipher = self._tls.cipher()
        version, algorithm = self._tls.version() or "", cipher[0] if cipher else ""
        return Secured(version, algorithm, _subject(self._tls), _name(self._tls))

    def _reason(self, error: ssl.SSLError) -> str:
        name = error.reason or ""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {error.verify_message}"
        if name in _OLD_VERSIONS:
            return f"it speaks no TLS version from {self._min_version} on (tls.min_version)"
        alert = name.rpartition("ALERT_")[2]
        return _REASONS.get(name) or _ALERTS.get(alert) or name.lower().replace("_", " ") or str(error)


def _subject(tls: ssl.SSLObject) -> Optional[str]:
    """``CN=…,O=…`` of the certificate that the peer has shown; only one that was verified is ever asked for."""
    der = tls.getpeercert(binary_form=True)
    if der is None:
        return None
    try:
        return facts_of_der(der).subject
    except NoCertificate:
        return ""


def _name(tls: ssl.SSLObject) -> Optional[str]:
    """The common name in the certificate that was verified; None of one that has none, or several."""
    subject: Any = (tls.getpeercert() or {}).get("subject", ())
    names = [value for group in subject for kind, value in group if kind == "commonName"]
    return str(names[0]) if len(names) == 1 else None
