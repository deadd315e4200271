"""The daemon's certificate, and those that VMs show: what is told of them, and what changes while VMs are connected."""

from __future__ import annotations

import shutil
import signal
import ssl
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.simulator import Simulator
from tests.system.tls_peers import (
    OpensslVm,
    Pair,
    TlsVm,
    dialled,
    self_signed,
    signed,
    tls_helpers,
    trusting,
    wait_certificate,
)
from tests.system.vm import FakeVm
from tests.system.wait import throughout

DAY = 86400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return self_signed(folder, "vspc")


@pytest.fixture(scope="module")
def other(folder: Path) -> Pair:
    return self_signed(folder, "renewed")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Pair:
    return self_signed(folder, "authority")


def shown_now(daemon: Daemon, stack: ExitStack) -> bytes:
    """The certificate that a newcomer is shown, as bytes."""
    vm = stack.enter_context(TlsVm(daemon.proxy))
    assert isinstance(vm.socket, ssl.SSLSocket)
    return vm.socket.getpeercert(binary_form=True) or b""


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


# Thumbprints


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_thumbprints_in_log_and_status_are_those_of_openssl(
    algorithm: str, start_daemon: StartDaemon, pair: Pair
) -> None:
    daemon = start_daemon(*pair.settings)
    expected = pair.thumbprint(algorithm)
    wait_certificate(daemon, lambda c: bool(c[algorithm] == expected), expected)
    daemon.wait_log("certificate", expected)


def test_status_shows_people_the_thumbprints(start_daemon: StartDaemon, pair: Pair) -> None:
    daemon = start_daemon(*pair.settings)
    wait_certificate(daemon, bool, "a certificate")
    shown = daemon.ctl("status").stdout
    assert [a for a in ("sha1", "sha256") if pair.thumbprint(a) not in shown] == []


def test_without_a_certificate_status_has_none(start_daemon: StartDaemon) -> None:
    assert start_daemon().status()["certificate"] is None


# Reload


def test_reload_drops_nothing_and_shows_newcomers_the_new_certificate(
    root: Path, start_daemon: StartDaemon, pair: Pair, other: Pair, stack: ExitStack
) -> None:
    used = Pair(root / "cert.pem", root / "key.pem")
    shutil.copy(pair.certificate, used.certificate)
    shutil.copy(pair.key, used.key)
    daemon = start_daemon(*used.settings)
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    worker, helpers = daemon.worker(vm.name), tls_helpers(daemon)

    shutil.copy(other.certificate, used.certificate)
    shutil.copy(other.key, used.key)
    daemon.signal(signal.SIGHUP)
    wait_certificate(daemon, lambda c: bool(c["sha1"] == other.thumbprint("sha1")), "the new certificate")
    daemon.wait_log("certificate", other.thumbprint("sha1"), other.thumbprint("sha256"))
    assert shown_now(daemon, stack) == der(other)

    vm.send(b"still here")
    assert client.read(10) == b"still here"
    client.send(b"so am I")
    assert vm.read(7) == b"so am I"
    assert (daemon.worker(vm.name), tls_helpers(daemon)) == (worker, helpers)


def test_a_damaged_certificate_is_told_of_and_the_old_one_stays(
    root: Path, start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    used = Pair(root / "cert.pem", root / "key.pem")
    shutil.copy(pair.certificate, used.certificate)
    shutil.copy(pair.key, used.key)
    daemon = start_daemon(*used.settings)
    wait_certificate(daemon, bool, "a certificate")
    used.certificate.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("bad-certificate", str(used.certificate))
    assert shown_now(daemon, stack) == der(pair)
    assert daemon.status()["certificate"]["sha1"] == pair.thumbprint("sha1")


def test_a_damaged_certificate_at_the_start_costs_plain_vms_nothing(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    (root / "cert.pem").write_text("rubbish")
    daemon = start_daemon(f"tls.certificate={root / 'cert.pem'}")
    daemon.wait_log("bad-certificate", "cert.pem")
    stack.enter_context(dialled(daemon, FakeVm(daemon.proxy)))


# Expiry


@pytest.mark.parametrize("days", [29, 6, 1])
def test_a_certificate_that_expires_soon_is_warned_of(
    days: int, tmp_path: Path, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "old", days).settings)
    line = daemon.wait_log("warning", "certificate-expires")
    left = float(line.partition("days=")[2].split()[0])
    assert days - 1 <= left <= days
    told = wait_certificate(daemon, bool, "a certificate")
    assert abs(told["not_after"] - time.time() - days * DAY) < DAY


def test_a_certificate_that_lasts_is_not_warned_of(start_daemon: StartDaemon, pair: Pair) -> None:
    daemon = start_daemon(*pair.settings)
    daemon.wait_log("certificate", pair.thumbprint("sha1"))
    assert throughout(lambda: "certificate-expires" not in daemon.log(), 0.5)


# Certificates of VMs


@pytest.fixture
def strict(start_daemon: StartDaemon, pair: Pair, authority: Pair) -> Daemon:
    """A daemon that demands one."""
    return start_daemon(*pair.settings, f"tls.client_ca={authority.certificate}")


def test_a_vm_with_the_demanded_certificate_is_welcome(
    strict: Daemon, authority: Pair, stack: ExitStack
) -> None:
    context = trusting(signed(authority, "esx01"))
    vm = stack.enter_context(dialled(strict, TlsVm(strict.proxy, context=context)))
    assert strict.console(vm.name)["tls"]


def test_openssl_with_the_demanded_certificate_is_welcome(
    strict: Daemon, authority: Pair, stack: ExitStack
) -> None:
    shown = signed(authority, "esx02")
    options = ["-cert", str(shown.certificate), "-key", str(shown.key)]
    stack.enter_context(dialled(strict, OpensslVm(strict.proxy, *options)))


def refused(daemon: Daemon, context: ssl.SSLContext, stack: ExitStack) -> str:
    """Why a VM with this certificate is refused. With TLS 1.3 it learns so only after its own handshake."""
    try:
        vm = stack.enter_context(TlsVm(daemon.proxy, context=context))
        vm.wait_closed()
    except ssl.SSLError:
        pass
    assert daemon.consoles() == []
    return str(daemon.wait_refusal("TLS: ")["reason"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_vm_without_the_demanded_certificate_is_refused_with_the_reason(
    version: ssl.TLSVersion, strict: Daemon, stack: ExitStack
) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    assert "certificate" in refused(strict, context, stack)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_vm_with_somebody_elses_certificate_is_refused_with_the_reason(
    version: ssl.TLSVersion, strict: Daemon, other: Pair, stack: ExitStack
) -> None:
    context = trusting(other)
    context.minimum_version = context.maximum_version = version
    assert "its certificate is not accepted" in refused(strict, context, stack)


# Certificates that vspcctl makes


def test_vspcctl_cert_prints_the_thumbprints_and_the_lines_that_the_daemon_needs(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    made = Daemon(root).ctl("cert", "--self-signed", "127.0.0.1", "--out", str(root / "tls"))
    assert made.returncode == 0, made.stderr
    config = root / "vspcd.yaml"
    config.write_text(made.stdout.partition("the lines for vspcd.yaml:\n")[2])
    daemon = start_daemon(config=config)
    stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    told = wait_certificate(daemon, bool, "a certificate")
    assert [told[algorithm] for algorithm in ("sha1", "sha256") if told[algorithm] not in made.stdout] == []


def test_a_simulated_vm_verifies_and_pins_the_pair_of_vspcctl_cert(
    root: Path, start_daemon: StartDaemon
) -> None:
    pair = Pair(root / "tls" / "vspcd-cert.pem", root / "tls" / "vspcd-key.pem")
    Daemon(root).ctl("cert", "--self-signed", "127.0.0.1", "--out", str(root / "tls"))
    daemon = start_daemon(*pair.settings, "tls.mode=required")
    trust = ["--tls", "--ca", str(pair.certificate), "--thumbprint", pair.thumbprint("sha1")]
    with Simulator(daemon, "web01", *trust):
        assert daemon.console("web01")["tls"]


def test_a_simulated_vm_that_pins_another_thumbprint_does_not_come(
    start_daemon: StartDaemon, pair: Pair, other: Pair
) -> None:
    daemon = start_daemon(*pair.settings)
    host, port = daemon.proxy
    pinned = ["--tls", "--thumbprint", other.thumbprint("sha256"), "--once"]
    done = daemon.ctl("simulate", "--proxy", f"{host}:{port}", *pinned)
    assert done.returncode == 1
    assert "not the pinned one" in done.stdout
    assert daemon.consoles() == []
