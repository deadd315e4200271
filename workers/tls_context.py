"""What all TLS connections of a helper begin with: certificate, key, versions, and who must show a certificate.

Does: loads the files that the configuration names, and says in words what is wrong with them.
Owns: nothing.
Never: asks for a passphrase; changes a context that is in use.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Optional

from vspcd.proto.certificate import Facts, NoCertificate, facts

VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
WEAK_VERSIONS = frozenset({"1.0", "1.1"})
WEAK_CIPHERS = "DEFAULT:@SECLEVEL=0"  # versions before 1.2 need SHA-1 signatures, which level 1 forbids

_REASONS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed with an algorithm that is no longer safe",
    "NO_CERTIFICATE_OR_CRL_FOUND": "it holds no certificate in PEM form",
}


class BadCertificate(Exception):
    """The files cannot be used; the text names the file and the reason."""


class Loaded(NamedTuple):
    """A context for new connections, and what its certificate says."""

    context: ssl.SSLContext
    facts: Facts
    min_version: str

    @property
    def demands(self) -> bool:
        """Whether a peer must show a certificate."""
        return self.context.verify_mode == ssl.CERT_REQUIRED


def load(settings: dict[str, Any]) -> Loaded:
    """The context for ``certificate``, ``key``, ``client_ca`` and ``min_version``. Raises BadCertificate."""
    certificate: Optional[str] = settings["certificate"]
    if certificate is None:
        raise BadCertificate("tls.certificate is not set")
    known = _facts(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_versions(context, settings["min_version"])
    _load_pair(context, certificate, settings["key"])
    if settings["client_ca"] is not None:
        _load_authorities(context, settings["client_ca"])
        context.verify_mode = ssl.CERT_REQUIRED
    return Loaded(context, known, settings["min_version"])


def check_authorities(path: str) -> None:
    """Load them for nothing but the mistakes. Raises BadCertificate."""
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), path)


def _facts(path: str) -> Facts:
    try:
        return facts(Path(path).read_text(encoding="latin-1"))
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from None
    except NoCertificate as reason:
        raise BadCertificate(f"{path} cannot be used: {reason}") from None


def _set_versions(context: ssl.SSLContext, oldest: str) -> None:
    if oldest in WEAK_VERSIONS:
        context.set_ciphers(WEAK_CIPHERS)
    context.minimum_version = VERSIONS[oldest]
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A ticket that a peer never reads turns its end into a reset, and the last bytes are lost.
    context.num_tickets = 0


def _load_pair(context: ssl.SSLContext, certificate: str, key: Optional[str]) -> None:
    def passphrase() -> NoReturn:
        raise BadCertificate(f"{key or certificate} cannot be used: the key has a passphrase")

    if key is not None:
        _must_be_readable(key)
    try:
        context.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError as error:
        files = certificate if key is None else f"{certificate} with {key}"
        raise BadCertificate(f"{files} cannot be used: {_reason(error, 'it holds no usable key')}") from None


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _must_be_readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise BadCertificate(f"{path} cannot be used: {_reason(error, 'it is damaged')}") from None
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509"]:
        raise BadCertificate(f"{path} cannot be used: it holds no certificate, only lists of revoked ones")


def _must_be_readable(path: str) -> None:
    """OpenSSL does not say which of two files is missing."""
    try:
        open(path, "rb", buffering=0).close()
    except OSError as error:
        raise BadCertificate(f"{path} cannot be read: {error.strerror}") from None


def _reason(error: ssl.SSLError, otherwise: str) -> str:
    """Errors of the PEM reader have no reason of their own in every version of OpenSSL."""
    if error.reason in _REASONS:
        return _REASONS[error.reason]
    if error.reason is None or error.library in (None, "PEM"):
        return otherwise
    return error.reason.lower().replace("_", " ")
