"""The TLS helper and its master: certificates, their replacement, probes, and the end."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.unix.turning import until
from tests.workers.tls_bench import Client, TlsBench, openssl, received, self_signed, stuffed
from tests.workers.tls_peer import TlsPeer
from vspcd.unix.tcpinfo import unacknowledged

SO_ATTACH_FILTER = 26
NAMES = "subjectAltName=DNS:vspc.example,DNS:*.lab.example,IP:10.0.0.1,IP:fd00::1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc.example", "-addext", NAMES)


@pytest.fixture
def bench(files: tuple[Path, Path]) -> Iterator[TlsBench]:
    made = TlsBench(*files)
    made.wait("certificate")
    yield made
    made.close()


def fingerprint(certificate: Path, algorithm: str) -> str:
    return openssl("x509", "-in", certificate, "-noout", "-fingerprint", algorithm).strip().partition("=")[2]


# Certificates


def test_the_thumbprints_are_those_that_openssl_tells(bench: TlsBench, files: tuple[Path, Path]) -> None:
    said = bench.wait("certificate")
    assert said["sha1"] == fingerprint(files[0], "-sha1")
    assert said["sha256"] == fingerprint(files[0], "-sha256")


def test_the_certificate_tells_its_end_its_subject_and_its_names(bench: TlsBench) -> None:
    said = bench.wait("certificate")
    assert abs(said["not_after"] - time.time() - 30 * 86400) < 600
    assert said["subject"] == "CN=vspc.example"
    assert said["names"] == ["vspc.example", "*.lab.example", "10.0.0.1", "fd00::1"]


def test_key_and_chain_can_be_in_one_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    whole, authority = tmp_path / "whole.pem", self_signed(tmp_path, "authority")
    whole.write_text(files[1].read_text() + files[0].read_text() + authority[0].read_text())
    bench = TlsBench(whole, None)
    assert bench.wait("certificate")["sha1"] == fingerprint(files[0], "-sha1")
    peer, worker = bench.connect()
    TlsPeer(peer).handshake().send(b"x")
    assert received(worker, 1) == b"x"
    bench.close()


def test_the_certificate_changes_under_a_live_stream(bench: TlsBench, tmp_path: Path) -> None:
    peer, worker = bench.connect()
    old = TlsPeer(peer).handshake()
    old.send(b"before")
    assert received(worker, 6) == b"before"
    certificate, key = self_signed(tmp_path, "new.example")
    bench.said.clear()
    bench.settings["tls"].update(certificate=str(certificate), key=str(key))
    bench.send("settings", settings=bench.settings)
    assert bench.wait("certificate")["sha256"] == fingerprint(certificate, "-sha256")
    old.send(b"after")
    assert received(worker, 5) == b"after"
    worker.sendall(b"down")
    assert old.receive(4) == b"down"
    with Client(bench, "-CAfile", certificate, "-verify_return_error") as client:
        newer = bench.adopt()
        client.stdin.write(b"trusted")
        assert received(newer, 7) == b"trusted"


def test_a_certificate_that_was_replaced_in_place_is_read_again(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    here = [Path(shutil.copy(path, tmp_path)) for path in files]
    bench = TlsBench(here[0], here[1])
    bench.wait("certificate")
    bench.said.clear()
    for new, place in zip(self_signed(tmp_path, "renewed.example"), here):
        os.replace(new, place)
    bench.send("settings", settings=bench.settings)
    assert bench.wait("certificate")["subject"] == "CN=renewed.example"
    bench.close()


def broken(directory: Path, files: tuple[Path, Path]) -> dict[str, tuple[Path, Path, str]]:
    """Unusable pairs and what is said of them."""
    certificate, key = files
    other = self_signed(directory, "other")
    locked, text, damaged = (directory / name for name in ("locked.pem", "text.pem", "damaged.pem"))
    openssl("rsa", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked)
    text.write_text("nothing here\n")
    damaged.write_text(certificate.read_text().replace("MII", "AAA"))
    gone = directory / "gone.pem"
    return {
        "key of another": (certificate, other[1], "the key does not belong to the certificate"),
        "passphrase": (certificate, locked, "locked.pem cannot be used: the key has a passphrase"),
        "no certificate": (text, key, "text.pem cannot be used: it holds no certificate in PEM form"),
        "damaged": (damaged, key, "damaged.pem cannot be used: its certificate is damaged"),
        "no key": (certificate, text, "it holds no usable key"),
        "missing certificate": (gone, key, "gone.pem cannot be read: No such file or directory"),
        "missing key": (certificate, gone, "gone.pem cannot be read: No such file or directory"),
    }


KINDS = [
    *("key of another", "passphrase", "no certificate", "damaged"),
    *("no key", "missing certificate", "missing key"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_certificate_is_told_of_and_the_old_one_stays(
    bench: TlsBench, files: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    certificate, key, words = broken(tmp_path, files)[kind]
    changed = {
        **bench.settings,
        "tls": {**bench.settings["tls"], "certificate": str(certificate), "key": str(key)},
    }
    bench.send("settings", settings=changed)
    assert words in bench.wait("bad-certificate")["reason"]
    peer, worker = bench.connect()
    TlsPeer(peer).handshake().send(b"x")
    assert received(worker, 1) == b"x"


def test_an_unusable_authority_is_told_of(bench: TlsBench, tmp_path: Path) -> None:
    text = tmp_path / "ca.pem"
    text.write_text("nothing here\n")
    changed = {**bench.settings, "tls": {**bench.settings["tls"], "client_ca": str(text)}}
    bench.send("settings", settings=changed)
    assert "ca.pem cannot be used: " in bench.wait("bad-certificate")["reason"]


def test_who_shows_no_certificate_is_not_let_in_when_one_is_demanded_that_cannot_be_checked(
    bench: TlsBench, tmp_path: Path
) -> None:
    bench.settings["tls"]["client_ca"] = str(tmp_path / "typo.pem")
    bench.send("settings", settings=bench.settings)
    assert bench.wait("bad-certificate")["reason"].endswith("; nobody is let in")
    peer, worker = bench.connect()
    assert "typo.pem cannot be read" in bench.wait("tls-failed", 1)["reason"]
    assert (peer.recv(1), worker.recv(1)) == (b"", b"")


@pytest.mark.parametrize("kind", ["missing", "folder", "rubbish"])
def test_with_unusable_authorities_the_old_ones_stay_in_force(
    files: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    bench = TlsBench(*files, client_ca=files[0])
    bench.wait("certificate")
    path = tmp_path / "ca.pem"
    if kind != "missing":
        path.mkdir() if kind == "folder" else path.write_text("nothing here\n")
    bench.settings["tls"]["client_ca"] = str(path)
    bench.send("settings", settings=bench.settings)
    assert bench.wait("bad-certificate")["reason"].endswith("; what was loaded before stays in force")
    with Client(bench, "-cert", files[0], "-key", files[1]) as client:
        worker = bench.adopt()
        client.stdin.write(b"x")
        assert received(worker, 1) == b"x"
    with Client(bench):
        bench.adopt()
        assert bench.wait("tls-failed", 2)["reason"].startswith("it showed no certificate")
    bench.close()


def test_a_list_of_revoked_certificates_is_no_authority(
    bench: TlsBench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "index.txt").touch()
    (tmp_path / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = c\n[c]\ndatabase = {tmp_path}/index.txt\ndefault_md = sha256\n"
    )
    revoked = tmp_path / "crl.pem"
    signer = ["-cert", str(files[0]), "-keyfile", str(files[1]), "-crldays", "3"]
    openssl("ca", "-gencrl", "-config", tmp_path / "ca.cnf", *signer, "-out", revoked)
    bench.settings["tls"]["client_ca"] = str(revoked)
    bench.send("settings", settings=bench.settings)
    assert "it holds no certificate" in bench.wait("bad-certificate")["reason"]


# Probes


def vanish(sock: socket.socket) -> None:
    """The host of this socket hears nothing any more, and so acknowledges nothing."""
    drop_all = struct.pack("HBBI", 0x06, 0, 0, 0)
    memory = ctypes.create_string_buffer(drop_all)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(memory)))


def probed(bench: TlsBench, worker: socket.socket) -> tuple[bool, float]:
    """The verdict, and how long it took."""
    worker.sendall(b"\xff\xf1")
    began = time.monotonic()
    bench.send("probe", leg=1)
    return bool(bench.wait("probed", 1)["alive"]), time.monotonic() - began


def test_a_host_that_acknowledges_is_alive(bench: TlsBench) -> None:
    peer, worker = bench.connect()
    tls = TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    alive, took = probed(bench, worker)
    assert (alive, took < 1) == (True, True)
    assert tls.receive(2) == b"\xff\xf1"


def test_a_host_that_vanished_is_not_alive_after_two_seconds(bench: TlsBench) -> None:
    peer, worker = bench.connect()
    TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    until(bench.loop, lambda: unacknowledged(peer) == 0)  # else it would go on repeating itself
    vanish(peer)
    alive, took = probed(bench, worker)
    assert (alive, 1.5 < took < 4) == (False, True)


def test_a_peer_that_does_not_read_but_whose_host_answers_is_alive(bench: TlsBench) -> None:
    peer, worker = bench.connect()
    TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    stuffed(worker.fileno())
    bench.send("probe", leg=1)
    assert bench.wait("probed", 1)["alive"]


def test_a_connection_that_was_reset_is_not_alive(bench: TlsBench) -> None:
    peer, _worker = bench.connect()
    tls = TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    tls.reset()
    bench.send("probe", leg=1)
    assert bench.wait("probed", 1)["alive"] is False


def test_a_leg_that_is_unknown_is_not_alive(bench: TlsBench) -> None:
    bench.send("probe", leg=99)
    assert bench.wait("probed", 99)["alive"] is False


# The end


@pytest.mark.parametrize("order", ["quit", ""])
def test_the_helper_ends_its_legs_when_told_and_when_its_master_is_gone(bench: TlsBench, order: str) -> None:
    peer, worker = bench.connect()
    TlsPeer(peer).handshake()
    bench.wait("secured", 1)
    if order:
        bench.send(order, reason="we end")
        bench.wait("tls-ended", 1)
    else:
        bench.channel.close()
    assert (peer.recv(1), worker.recv(1)) == (b"", b"")
    assert bench.process.wait(10) == 0


@pytest.mark.parametrize(
    "message", [{"type": "own", "console": {}}, {"type": "adopt", "leg": 1}, {"type": "x"}]
)
def test_a_message_that_is_none_of_its_business_ends_it(bench: TlsBench, message: dict[str, object]) -> None:
    bench.channel.send(message)
    assert bench.process.wait(10) == 0


def test_it_is_known_by_its_name(bench: TlsBench) -> None:
    assert "vspcd: tls" in " ".join(psutil.Process(bench.process.pid).cmdline())


def test_its_master_does_not_load_openssl() -> None:
    code = "import sys, workers.tls; sys.exit('ssl' in sys.modules or '_ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
