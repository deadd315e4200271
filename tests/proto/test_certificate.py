"""What certificates say of themselves, compared with what openssl reads in them."""

from __future__ import annotations

import base64
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.proto.certificate import Facts, NoCertificate, facts, facts_of_der


def made(directory: Path, *words: str) -> Path:
    path = directory / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(directory / "key.pem"),
    ]
    subprocess.run([*command, "-out", str(path), *words], check=True, capture_output=True, timeout=60)
    return path


def told(path: Path, *words: str) -> str:
    command = ["openssl", "x509", "-in", str(path), "-noout", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = "subjectAltName=DNS:a.example,email:x@example,DNS:*.b.example,IP:10.0.0.1,IP:fd00::1"
    subject = "/C=DE/O=Müller, Söhne/CN=a.example"
    return made(tmp_path_factory.mktemp("cert"), "-days", "30", "-utf8", "-subj", subject, "-addext", names)


def test_thumbprints_are_openssls(certificate: Path) -> None:
    known = facts(certificate.read_text())
    assert known.sha1 == told(certificate, "-fingerprint", "-sha1").partition("=")[2]
    assert known.sha256 == told(certificate, "-fingerprint", "-sha256").partition("=")[2]


def test_times_are_openssls(certificate: Path) -> None:
    known = facts(certificate.read_text())
    for moment, option in ((known.not_before, "-startdate"), (known.not_after, "-enddate")):
        text = told(certificate, option).partition("=")[2]
        expected = datetime.strptime(text.replace("GMT", "+0000"), "%b %d %H:%M:%S %Y %z")
        assert moment == int(expected.timestamp())


def test_subject_and_names_are_read(certificate: Path) -> None:
    known = facts(certificate.read_text())
    assert known.subject == "C=DE,O=Müller, Söhne,CN=a.example"
    assert known.names == ("a.example", "*.b.example", "10.0.0.1", "fd00::1")


def test_times_beyond_2049_are_read(tmp_path: Path) -> None:
    path = made(tmp_path, "-days", "36500", "-subj", "/CN=old")
    assert facts(path.read_text()).not_after > 3 * 10**9


def test_a_certificate_without_names_has_none(tmp_path: Path) -> None:
    assert facts(made(tmp_path, "-subj", "/CN=plain").read_text()).names == ()


def test_the_first_certificate_counts_and_a_key_before_it_does_not(certificate: Path, tmp_path: Path) -> None:
    other = made(tmp_path, "-subj", "/CN=second")
    text = (certificate.parent / "key.pem").read_text() + certificate.read_text() + other.read_text()
    assert facts(text) == facts(certificate.read_text())


@pytest.mark.parametrize(
    "text", ["", "words", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nAA==\n"]
)
def test_a_text_without_a_certificate_is_told_so(text: str) -> None:
    with pytest.raises(NoCertificate, match="no certificate in PEM form"):
        facts(text)


@pytest.mark.parametrize("body", ["!", "AAAA", "MIIB"])
def test_a_damaged_certificate_is_told_so(body: str) -> None:
    with pytest.raises(NoCertificate, match="damaged"):
        facts(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")


@given(st.data())
def test_any_damage_gives_facts_or_no_certificate(certificate: Path, data: st.DataObject) -> None:
    pem = certificate.read_text().split("-----")[2]
    der = bytearray(base64.b64decode(pem))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        known = facts_of_der(bytes(der[: data.draw(st.integers(0, len(der)))]))
    except NoCertificate:
        return
    assert isinstance(known, Facts)
