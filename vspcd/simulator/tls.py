"""Whom a simulated host trusts, and how it shows who it is: the TLS settings of ``telnets://``.

Does: makes the context for new connections out of files, checks a certificate against a pinned thumbprint.
Owns: nothing.
Never: touches a socket.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from typing import NamedTuple, Optional

_DIGITS = {40: "sha1", 64: "sha256"}
_CUT_OFF = "the connection was cut off in the middle of the TLS session"


class Untrusted(ConnectionError):
    """The handshake has failed; the text says why."""


class Tls(NamedTuple):
    """``name``: the host as the VM was told. ``thumbprint``: hex digits of the pinned certificate, or ""."""

    context: ssl.SSLContext
    name: str
    thumbprint: str = ""

    def check(self, certificate: bytes) -> None:
        """Compare with the pinned one. Raises Untrusted."""
        if not self.thumbprint:
            return
        shown = hashlib.new(_DIGITS[len(self.thumbprint)], certificate).hexdigest()
        if not hmac.compare_digest(shown, self.thumbprint):
            raise Untrusted(f"the certificate's thumbprint is {shown}, not the pinned one")


def thumbprint(text: str) -> str:
    """The hex digits of a SHA-1 or SHA-256 thumbprint, however they are grouped. Raises ValueError."""
    digits = re.sub(r"[:\s-]", "", text).lower()
    if len(digits) not in _DIGITS or not re.fullmatch("[0-9a-f]*", digits):
        raise ValueError(f"{text!r} is no SHA-1 or SHA-256 thumbprint of 40 or 64 hex digits")
    return digits


def settings(
    name: str,
    ca: Optional[str] = None,
    pinned: str = "",
    certificate: Optional[str] = None,
    key: Optional[str] = None,
) -> Tls:
    """Trust anybody, or who is vouched for by ``ca``, or who has the ``pinned`` thumbprint. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
            context.check_hostname = True
        if certificate is not None:
            context.load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        files = " or ".join(file for file in (ca, certificate, key) if file)
        raise ValueError(f"{files}: {reason_of(error)}") from None
    except OSError as error:
        files = " or ".join(file for file in (ca, certificate, key) if file)
        raise ValueError(f"{files}: {error.strerror}") from None
    return Tls(context, name, pinned)


def reason_of(error: ssl.SSLError) -> str:
    """An error of the TLS library in words."""
    if isinstance(error, ssl.SSLEOFError):
        return _CUT_OFF
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the concentrator's certificate is not trusted: {error.verify_message}"
    return "TLS: " + (error.reason or str(error)).lower().replace("_", " ")
