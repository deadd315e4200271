"""A certificate that is demanded of clients is demanded, whatever becomes of the file with the authorities."""

from __future__ import annotations

import signal
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.system.clients import TcpClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.test_config_errors import run
from tests.system.test_master_death import kill_master
from tests.system.tls_peers import Pair, self_signed, signed, tls_helpers, trusting
from tests.system.vm import FakeVm

UNUSABLE: dict[str, tuple[Callable[[Path, Pair], object], str]] = {
    "missing": (lambda path, _pair: None, "cannot be read: No such file or directory"),
    "a folder": (lambda path, _pair: path.mkdir(), "cannot be read: Is a directory"),
    "rubbish": (lambda path, _pair: path.write_text("rubbish\n"), "no certificate in PEM form"),
    "a key": (lambda path, pair: path.write_text(pair.key.read_text()), "no certificate in PEM form"),
    "damaged": (
        lambda path, pair: path.write_text(pair.certificate.read_text().replace("MII", "AAA")),
        "cannot be used: ",
    ),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("authority"), "authority")


def connect(daemon: Daemon, vm: FakeVm, stack: ExitStack, shown: Optional[Pair] = None) -> TcpClient:
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.socket = trusting(shown).wrap_socket(client.socket)
    return client


def gets_in(daemon: Daemon, vm: FakeVm, stack: ExitStack, shown: Optional[Pair]) -> None:
    before = len(daemon.console(vm.name)["clients"])
    client = connect(daemon, vm, stack, shown)
    client.send(b"typed")
    assert vm.read(5) == b"typed"
    daemon.wait_clients(vm.name, before + 1)


def stays_out(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    """Whoever shows no certificate. With TLS 1.3 he learns so only after his own handshake."""
    before = len(daemon.console(vm.name)["clients"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(daemon, vm, stack).socket.recv(100)
    assert len(daemon.console(vm.name)["clients"]) == before


@pytest.mark.parametrize("key", ["ports.client_ca", "tls.client_ca"])
@pytest.mark.parametrize("kind", sorted(UNUSABLE))
def test_authorities_that_cannot_be_used_are_named_and_nothing_starts(
    kind: str, key: str, root: Path, pair: Pair
) -> None:
    path = root / "ca.pem"
    make, words = UNUSABLE[kind]
    make(path, pair)
    options = [*pair.settings, "ports.tls=true", f"{key}={path}"]
    done = run(root, *(word for option in options for word in ("-o", option)))
    assert done.returncode == 2, done.stderr
    assert all(each in done.stderr for each in (f"{key}: {path} ", words, "expected a PEM file"))
    assert not (root / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "rubbish"])
def test_after_a_reload_without_usable_authorities_the_old_ones_are_asked(
    kind: str, root: Path, start_daemon: StartDaemon, pair: Pair, authority: Pair, stack: ExitStack
) -> None:
    used = root / "ca.pem"
    used.write_text(authority.certificate.read_text())
    daemon = start_daemon(*pair.settings, "ports.tls=true", f"ports.client_ca={used}")
    vm = stack.enter_context(daemon.dial(name="web01"))
    alice = signed(authority, "alice")
    gets_in(daemon, vm, stack, alice)
    used.unlink()
    make, words = UNUSABLE[kind]
    make(used, pair)
    done = daemon.ctl("reload")
    assert (done.returncode != 0, words in done.stderr) == (True, True), done.stderr
    stays_out(daemon, vm, stack)
    gets_in(daemon, vm, stack, alice)


def test_a_reload_that_demands_certificates_for_the_first_time_and_cannot_check_them_is_refused(
    root: Path, start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    config = root / "vspcd.yaml"
    files = f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}\n"
    config.write_text(f"{files}ports: {{tls: true}}\n")
    daemon = start_daemon(config=config)
    vm = stack.enter_context(daemon.dial(name="web01"))
    gets_in(daemon, vm, stack, None)
    config.write_text(f"{files}ports: {{tls: true, client_ca: /etc/typo.pem}}\n")
    done = daemon.ctl("reload")
    assert done.returncode != 0
    assert "ports.client_ca: /etc/typo.pem cannot be read" in done.stderr
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("config-rejected", "ports.client_ca")


def test_a_master_that_demands_certificates_demands_them_from_the_helpers_of_the_one_before(
    start_daemon: StartDaemon, pair: Pair, authority: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "ports.tls=true")
    vm = stack.enter_context(daemon.dial(name="web01"))
    gets_in(daemon, vm, stack, None)
    helpers = set(tls_helpers(daemon))
    kill_master(daemon)
    daemon.settings += (f"ports.client_ca={authority.certificate}",)
    daemon.start()
    assert helpers & set(tls_helpers(daemon))
    stays_out(daemon, vm, stack)
    gets_in(daemon, vm, stack, signed(authority, "alice"))
