"""Handshakes of the TLS helper with real peers: versions, certificates, and peers that never get that far."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.workers.tls_bench import Client, TlsBench, openssl, received, self_signed
from tests.workers.tls_peer import TlsPeer

Benches = Callable[..., TlsBench]
ANY_CIPHER = ("-cipher", "ALL:@SECLEVEL=0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc.example")


@pytest.fixture
def benches(files: tuple[Path, Path]) -> Iterator[Benches]:
    made: list[TlsBench] = []

    def make(**changed: Any) -> TlsBench:
        made.append(TlsBench(*files, **changed))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


# Versions

SPOKEN = [
    ("-tls1", "TLSv1", "1.0"),
    ("-tls1_1", "TLSv1.1", "1.0"),
    ("-tls1_1", "TLSv1.1", "1.1"),
    ("-tls1_2", "TLSv1.2", "1.0"),
    ("-tls1_2", "TLSv1.2", "1.2"),
    ("-tls1_3", "TLSv1.3", "1.2"),
    ("-tls1_3", "TLSv1.3", "1.3"),
]


@pytest.mark.parametrize(("option", "version", "oldest"), SPOKEN)
def test_openssl_gets_through_with_each_version(
    benches: Benches, option: str, version: str, oldest: str
) -> None:
    bench = benches(min_version=oldest)
    with Client(bench, option, *ANY_CIPHER) as client:
        worker = bench.adopt()
        client.stdin.write(b"\xff\xfb\x25")
        assert received(worker, 3) == b"\xff\xfb\x25"
        worker.sendall(b"\xff\xfb\x00")
        assert client.stdout.read(3) == b"\xff\xfb\x00"
        secured = bench.wait("secured", 1)
        assert (secured["version"], bool(secured["cipher"]), secured["subject"]) == (version, True, None)


@pytest.mark.parametrize(
    ("option", "oldest"),
    [("-tls1", "1.2"), ("-tls1_1", "1.2"), ("-tls1", "1.1"), ("-tls1_2", "1.3")],
)
def test_an_older_version_is_refused_and_says_which_key_decides(
    benches: Benches, option: str, oldest: str
) -> None:
    bench = benches(min_version=oldest)
    with Client(bench, option, *ANY_CIPHER) as client:
        worker = bench.adopt()
        expected = f"it speaks no TLS version from {oldest} on (tls.min_version)"
        assert bench.wait("tls-failed", 1)["reason"] == expected
        assert worker.recv(1) == b""
        assert client.process.wait(10) != 0


def test_weak_ciphers_are_not_accepted_by_default(benches: Benches) -> None:
    bench = benches()
    with Client(bench, "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"):
        bench.adopt()
        assert bench.wait("tls-failed", 1)["reason"] == "it has no cipher that we accept"


# Certificates


def signed(directory: Path, authority: tuple[Path, Path], name: str) -> list[str]:
    """The options of a client that has a certificate from this authority."""
    certificate, key, request = (directory / f"{name}.{end}" for end in ("crt", "key", "csr"))
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}/O=ESX"
    )
    by = ("-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial")
    openssl("x509", "-req", "-in", request, "-out", certificate, "-days", "9", *by)
    return ["-cert", str(certificate), "-key", str(key)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("ca"), "authority")


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_a_demanded_client_certificate_lets_in_and_is_named(
    benches: Benches, authority: tuple[Path, Path], tmp_path: Path, option: str
) -> None:
    bench = benches(client_ca=authority[0])
    with Client(bench, option, *signed(tmp_path, authority, "esx01")) as client:
        worker = bench.adopt()
        client.stdin.write(b"x")
        assert received(worker, 1) == b"x"
        assert bench.wait("secured", 1)["subject"] == "CN=esx01,O=ESX"


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_without_the_demanded_certificate_nobody_gets_in(
    benches: Benches, authority: tuple[Path, Path], option: str
) -> None:
    bench = benches(client_ca=authority[0])
    with Client(bench, option) as client:
        worker = bench.adopt()
        client.stdin.write(b"let me in")
        expected = "it showed no certificate, which client_ca demands"
        assert bench.wait("tls-failed", 1)["reason"] == expected
        assert worker.recv(1) == b""


def test_a_certificate_of_somebody_else_does_not_let_in(
    benches: Benches, authority: tuple[Path, Path], tmp_path: Path
) -> None:
    bench = benches(client_ca=authority[0])
    other = self_signed(tmp_path, "other")
    with Client(bench, *signed(tmp_path, other, "esx66")):
        worker = bench.adopt()
        assert bench.wait("tls-failed", 1)["reason"].startswith("its certificate is not accepted: ")
        assert worker.recv(1) == b""


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_a_peer_that_does_not_trust_us_is_told_of_in_words(
    benches: Benches, authority: tuple[Path, Path], option: str
) -> None:
    bench = benches()
    with Client(bench, option, "-verify_return_error", "-CAfile", authority[0]):
        bench.adopt()
        assert "our certificate" in bench.wait("tls-failed", 1)["reason"]


# Peers that never get that far

NO_TLS = [
    (b"GET / HTTP/1.0\r\n\r\n", "it speaks HTTP, not TLS"),
    (b"\xff\xfb\x25\xff\xfb\x00", "what it sent is not TLS"),
    (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
    (b"\x16\x03\x01\xff\xff" + bytes(100), ""),
    (b"\x16" * 600, ""),
    (bytes(20000), ""),
]


@pytest.mark.parametrize(("garbage", "reason"), NO_TLS)
def test_garbage_ends_its_own_leg_with_a_reason(benches: Benches, garbage: bytes, reason: str) -> None:
    bench = benches()
    peer, worker = bench.connect()
    peer.sendall(garbage)
    said = bench.wait("tls-failed", 1)["reason"]
    assert reason in said
    assert said
    assert worker.recv(1) == b""


def test_a_peer_that_closes_during_the_handshake_is_told_of(benches: Benches) -> None:
    bench = benches()
    peer, worker = bench.connect()
    peer.sendall(b"\x16\x03\x01")
    peer.shutdown(socket.SHUT_WR)
    expected = "it closed the connection during the TLS handshake"
    assert bench.wait("tls-failed", 1)["reason"] == expected
    assert worker.recv(1) == b""


def test_a_failed_handshake_is_no_ended_session(benches: Benches) -> None:
    bench = benches()
    peer, _ = bench.connect()
    peer.sendall(b"nothing\r\n")
    assert peer.recv(100)[:1] in (b"\x15", b"")
    bench.wait("tls-failed", 1)
    other, worker = bench.connect()
    TlsPeer(other).handshake().send(b"x")
    assert received(worker, 1) == b"x"
    assert [m["type"] for m in bench.said if m.get("leg") == 1] == ["tls-failed"]


def test_a_silent_peer_is_ended_at_the_deadline_and_holds_up_nobody(benches: Benches) -> None:
    bench = benches(handshake_timeout=1.5)
    began = time.monotonic()
    silent, silent_worker = bench.connect()
    other, worker = bench.connect()
    TlsPeer(other).handshake().send(b"meanwhile")
    assert received(worker, 9) == b"meanwhile"
    assert time.monotonic() - began < 1.5
    expected = "it did not finish the TLS handshake within 1.5 s"
    assert bench.wait("tls-failed", 1)["reason"] == expected
    assert time.monotonic() - began >= 1.5
    assert (silent.recv(1), silent_worker.recv(1)) == (b"", b"")


def test_a_peer_that_trickles_does_not_move_the_deadline(benches: Benches) -> None:
    bench = benches(handshake_timeout=1.0)
    peer, _ = bench.connect()
    began = time.monotonic()
    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03":
        if any(m["type"] == "tls-failed" for m in bench.said):
            break
        peer.send(bytes([byte]))
        bench.loop.call_later(0.15, lambda: None)
        bench.loop.turn()
    assert "within 1 s" in bench.wait("tls-failed", 1)["reason"]
    assert time.monotonic() - began < 5


def test_the_deadline_is_over_with_the_handshake(benches: Benches) -> None:
    bench = benches(handshake_timeout=0.5)
    peer, worker = bench.connect()
    tls = TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    second, _ = bench.connect()  # its deadline comes later, and is seen to pass
    bench.wait("tls-failed", 2)
    tls.send(b"still here")
    assert received(worker, 10) == b"still here"
    second.close()


def test_nothing_is_read_from_the_worker_before_the_handshake(benches: Benches) -> None:
    bench = benches()
    peer, worker = bench.connect()
    worker.sendall(b"early")
    tls = TlsPeer(peer, ssl.TLSVersion.TLSv1_2).handshake()
    assert tls.receive(5) == b"early"


def test_without_a_certificate_a_connection_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    bench = TlsBench(tmp_path / "none.pem", files[1])
    assert "none.pem cannot be read: No such file" in bench.wait("bad-certificate")["reason"]
    peer, worker = bench.connect()
    assert bench.wait("tls-failed", 1)["reason"].startswith("there is no usable certificate: ")
    assert (peer.recv(1), worker.recv(1)) == (b"", b"")
    bench.close()
