"""vspcctl cert: makes a certificate for TLS, or shows what one says.

Does: has the system's ``openssl`` make a key and a certificate that it signs itself; prints its thumbprints,
which VMs can pin, and the lines for the configuration.
Owns: the two files that it makes, until they are in place.
Never: overwrites a file unasked; lets anybody else read a key.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from vspcd.core.names import visible
from vspcd.ctl.failure import FAILED, OK, USAGE, Failure
from vspcd.ctl.outcome import Outcome, told
from vspcd.proto.certificate import Facts, NoCertificate, facts

CERTIFICATE, KEY = "vspcd-cert.pem", "vspcd-key.pem"
SYSTEM_CONFIG = "/etc/vspcd/vspcd.yaml"
DEADLINE = 60.0
"""Seconds that openssl may take; a slow machine finds the primes of an RSA key in 2."""

DAYS_LIMIT = 36500
DAY = 86400
COMMON_NAME_LIMIT = 64

# RSA since hosts of ESXi 5 know nothing else. Not an authority: whoever steals the key can play this host alone.
REQUEST = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
commonName = {name}
[extensions]
subjectAltName = {names}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
"""
COMMAND = (
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-sha256",
    "-nodes",
    "-batch",
    "-config",
    "/dev/stdin",
)

_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?", re.ASCII)


def run(arguments: Namespace) -> int:
    return told(lambda: _told(arguments), arguments.json)


def _told(arguments: Namespace) -> Outcome:
    path = (
        _make(arguments) if arguments.self_signed else Path(arguments.show or _configured(arguments.config))
    )
    known = _facts(path)
    if not arguments.json:
        print(_made(path.parent, known) if arguments.self_signed else described(known, time.time()))
    return OK, {"file": str(path), **known._asdict()}


# Making one.


def _make(arguments: Namespace) -> Path:
    request = REQUEST.format(
        name=_common_name(arguments.self_signed[0]),
        names=",".join(_alternative_name(host) for host in arguments.self_signed),
    )
    if not 1 <= arguments.days <= DAYS_LIMIT:
        raise Failure(f"--days {arguments.days} is not between 1 and {DAYS_LIMIT}", USAGE)
    directory = Path(os.path.abspath(arguments.out))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _refuse_to_overwrite(directory, arguments.force)
        with tempfile.TemporaryDirectory(prefix=".vspcctl-", dir=directory) as private:
            _run_openssl(Path(private), request, arguments.days)
            _put_in_place(Path(private), directory, arguments.force)
    except OSError as error:
        raise Failure(f"{error.filename or directory}: {error.strerror}") from None
    return directory / CERTIFICATE


def _common_name(host: str) -> str:
    return host if len(host) <= COMMON_NAME_LIMIT else "vspcd"


def _alternative_name(host: str) -> str:
    """As openssl's configuration has it, where a comma or a line end would begin something else."""
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise Failure(f"{visible(host)!r} is neither a host name nor an address", USAGE)
    return f"DNS:{host}"


def _refuse_to_overwrite(directory: Path, force: bool) -> None:
    there = [str(directory / name) for name in (KEY, CERTIFICATE) if os.path.lexists(directory / name)]
    if there and not force:
        hint = "VMs that pin the old certificate's thumbprint will refuse a new one; --force replaces it"
        raise Failure(f"{' and '.join(there)} exist{'s' * (len(there) == 1)} already", FAILED, hint)


def _run_openssl(private: Path, request: str, days: int) -> None:
    files = ["-keyout", str(private / KEY), "-out", str(private / CERTIFICATE), "-days", str(days)]
    try:
        done = subprocess.run(
            [*COMMAND, *files], input=request, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except FileNotFoundError:
        raise Failure("there is no openssl command", FAILED, "install the package openssl") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"openssl did not end within {DEADLINE:g} s") from None
    if done.returncode:
        raise Failure("openssl could not make the certificate", FAILED, visible(done.stderr.strip()))


def _put_in_place(private: Path, directory: Path, force: bool) -> None:
    os.chmod(private / KEY, 0o600)
    os.chmod(private / CERTIFICATE, 0o644)
    for name in (KEY, CERTIFICATE):
        if force:
            os.replace(private / name, directory / name)
        else:
            os.link(private / name, directory / name)  # unlike a rename, this never overwrites


def _made(directory: Path, made: Facts) -> str:
    return "\n".join(
        [
            f"made {directory / CERTIFICATE}",
            f"and  {directory / KEY}, which only its owner can read: that must be the user of vspcd",
            "",
            described(made, time.time()),
            "",
            "the lines for vspcd.yaml:",
            "tls:",
            f"  certificate: {_yaml(directory / CERTIFICATE)}",
            f"  key: {_yaml(directory / KEY)}",
        ]
    )


def _yaml(path: Path) -> str:
    return str(path) if re.fullmatch(r"/[A-Za-z0-9/._-]*", str(path), re.ASCII) else json.dumps(str(path))


# Showing one.


def _configured(config: str) -> str:
    """The certificate of the configuration."""
    from vspcd.config import ConfigError, load

    path = config or SYSTEM_CONFIG
    if not config and not os.path.exists(path):
        raise Failure(f"there is no {path}", USAGE, "say which certificate: vspcctl cert --show FILE")
    try:
        certificate = load(Path(path)).tls.certificate
    except ConfigError as error:
        raise Failure(str(error)) from None
    if certificate is None:
        raise Failure(f"tls.certificate is not set in {path}")
    return str(certificate)


def _facts(path: Path) -> Facts:
    try:
        return facts(path.read_text(encoding="latin-1"))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except NoCertificate as reason:
        raise Failure(f"{path}: {reason}") from None


def described(known: Facts, now: float) -> str:
    """A certificate's facts, for people."""
    lines = {
        "subject": visible(known.subject) or "-",
        "names": " ".join(map(visible, known.names)) or "-",
        "from": _date(known.not_before),
        "until": f"{_date(known.not_after)}, {_left(known.not_after - now)}",
        "SHA-1": known.sha1,
        "SHA-256": known.sha256,
    }
    return "\n".join(f"{label:<8} {text}" for label, text in lines.items())


def _date(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _left(seconds: float) -> str:
    if seconds < 0:
        return "expired"
    days = round(seconds / DAY)
    return f"{days} day{'s' * (days != 1)} left"
