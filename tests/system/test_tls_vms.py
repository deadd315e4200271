"""VMs over TLS on the port where plain ones dial in too."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import TelnetClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import all_bytes
from tests.system.tls_peers import (
    OpensslVm,
    Pair,
    TlsVm,
    dial_raw,
    dialled,
    hung_up,
    self_signed,
    silent_ones,
)
from tests.system.vm import AUTHENTICATION, DONT, WILL, FakeVm, Option, option, sub
from tests.system.wait import until

AT_ONCE = 5.0
"""Seconds in which a VM is served on a busy machine, far below the deadline of a handshake."""

PATIENT = "proxy.handshake_timeout=60s"
CLIENT_HELLO = b"\x16\x03\x01"
AUTH_IS_SSL_START = b"\x00\x07\x00\x01"  # IS, type SSL, the modifiers, START


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc")


@pytest.fixture
def daemon(start_daemon: StartDaemon, pair: Pair) -> Daemon:
    return start_daemon(*pair.settings)


# One port


def test_plain_and_encrypted_vms_share_the_port(daemon: Daemon, stack: ExitStack) -> None:
    plain = stack.enter_context(dialled(daemon, FakeVm(daemon.proxy, name="plain")))
    secured = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy, name="secured")))
    assert [daemon.console(vm.name)["tls"] for vm in (plain, secured)] == [False, True]


def test_status_names_the_host_of_an_encrypted_vm(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy, source="127.0.0.2")))
    assert daemon.console(vm.name)["peer"] == vm.address


def test_required_refuses_plain_vms_and_says_so(
    start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "tls.mode=required")
    stack.enter_context(dialled(daemon, TlsVm(daemon.proxy, name="secured")))
    plain = stack.enter_context(FakeVm(daemon.proxy, name="plain"))
    plain.send_raw(option(WILL, AUTHENTICATION))
    plain.wait_closed()
    assert daemon.wait_refusal("tls.mode is required")["peer"] == plain.address


def test_required_says_nothing_before_it_is_encrypted(
    start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "tls.mode=required", "proxy.handshake_timeout=2s")
    silent = stack.enter_context(dial_raw(daemon.proxy, b""))
    assert hung_up(silent) == b""


def test_off_takes_plain_vms_alone(start_daemon: StartDaemon, pair: Pair, stack: ExitStack) -> None:
    daemon = start_daemon(*pair.settings, "tls.mode=off")
    stack.enter_context(dialled(daemon, FakeVm(daemon.proxy)))
    hung_up(stack.enter_context(dial_raw(daemon.proxy, CLIENT_HELLO)))
    assert len(daemon.consoles()) == 1


def test_without_a_certificate_tls_is_refused_with_the_reason(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    told = hung_up(stack.enter_context(dial_raw(daemon.proxy, CLIENT_HELLO)))
    (refusal,) = daemon.refused()
    assert "TLS" in refusal["reason"]
    assert b"vspcd" not in told  # words for people are no answer to a handshake


def test_mode_can_be_changed_while_vms_are_connected(
    root: Path, start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    config = root / "vspcd.yaml"
    text = f"tls:\n  certificate: {pair.certificate}\n  key: {pair.key}\n  mode: "
    config.write_text(text + "auto\n")
    daemon = start_daemon(config=config)
    plain = stack.enter_context(dialled(daemon, FakeVm(daemon.proxy, name="plain")))
    config.write_text(text + "required\n")
    assert daemon.ctl("reload").returncode == 0
    newcomer = stack.enter_context(FakeVm(daemon.proxy))
    newcomer.send_raw(option(WILL, AUTHENTICATION))
    newcomer.wait_closed()
    plain.send(b"still here")
    assert stack.enter_context(UnixClient(daemon.socket_path("plain"))) is not None
    until(lambda: daemon.log_file("plain").read_bytes() == b"still here", "the log has it")


# Versions, with the real openssl


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_served_by_default(version: str, daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, OpensslVm(daemon.proxy, version)))
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    vm.send(b"from openssl")
    assert client.read(12) == b"from openssl"
    client.send(b"to openssl")
    assert vm.read(10) == b"to openssl"


OLD = [("-tls1", "1.0"), ("-tls1_1", "1.1"), ("-tls1_1", "1.0")]
ANY_CIPHER = ("-cipher", "ALL:@SECLEVEL=0")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_old_version_is_refused_by_default_with_the_key_that_decides(
    version: str, daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(OpensslVm(daemon.proxy, version, *ANY_CIPHER))
    vm.wait_closed()
    assert daemon.wait_refusal("tls.min_version")["reason"].startswith("TLS: ")


@pytest.mark.parametrize(("version", "oldest"), OLD)
def test_an_old_version_is_served_when_it_is_allowed(
    version: str, oldest: str, start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, f"tls.min_version={oldest}")
    vm = stack.enter_context(dialled(daemon, OpensslVm(daemon.proxy, version, *ANY_CIPHER)))
    assert daemon.console(vm.name)["tls"]


# The bytes


def test_all_byte_values_pass_both_ways_and_into_the_log(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name)))
    telnet.negotiated()
    daemon.wait_clients(vm.name, 2)
    said, typed = all_bytes(1), all_bytes(2)
    vm.send(said)
    assert client.read(len(said)) == said
    assert telnet.read(len(said)) == said
    client.send(typed)
    assert vm.read(len(typed)) == typed
    telnet.send(typed)
    assert vm.read(len(typed)) == typed
    assert daemon.log_file(vm.name).read_bytes() == said


def test_the_last_words_before_a_close_are_in_the_log(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    said = all_bytes(3)
    vm.send(said)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    assert daemon.log_file(vm.name).read_bytes() == said


# Those who do not get that far


@pytest.mark.parametrize("words", [b"", CLIENT_HELLO, CLIENT_HELLO + b"\x02\x00\x01"])
@pytest.mark.parametrize("count", [20, 80])
def test_silent_connections_hold_up_nobody(
    words: bytes, count: int, start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, PATIENT)
    silent = silent_ones(daemon.proxy, words, count, stack)
    until(lambda: daemon.status()["totals"]["pending"] == count, "all of them are being waited for")
    began = time.monotonic()
    stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    assert time.monotonic() - began < AT_ONCE
    assert daemon.status()["totals"]["pending"] == count
    for connection in silent:
        connection.close()


def test_a_silent_handshake_ends_at_its_deadline_with_the_reason(
    start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "proxy.handshake_timeout=1s")
    hung_up(stack.enter_context(dial_raw(daemon.proxy, CLIENT_HELLO)))
    daemon.wait_refusal("it did not finish the TLS handshake within 1 s")
    until(lambda: daemon.status()["totals"]["pending"] == 0, "nobody is waited for")


@pytest.mark.parametrize(
    "garbage", [b"\x16" * 500, b"\x16" + bytes(range(256)), b"\x16\x03\x01\xff\xff" + b"x" * 70000]
)
def test_garbage_behind_the_first_byte_ends_that_connection_alone(
    garbage: bytes, daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    stranger = stack.enter_context(dial_raw(daemon.proxy, b""))
    try:
        stranger.sendall(garbage)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was refused before it had said everything
    hung_up(stranger)
    assert daemon.wait_refusal("TLS: ")["peer"].startswith("127.0.0.1:")
    vm.send(b"not disturbed")
    until(lambda: daemon.log_file(vm.name).read_bytes() == b"not disturbed", "the VM goes on")


def test_authentication_is_declined_and_the_session_goes_on(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    offer, *others = vm.steps()
    vm.take_step(offer)
    vm.send_raw(sub(AUTH_IS_SSL_START, AUTHENTICATION))
    for step in others:
        vm.take_step(step)
    vm.send(b"in plain text")
    until(lambda: daemon.log_file(vm.console).read_bytes() == b"in plain text", "the session goes on")
    answers = [said for said in vm.heard if said[-1] == AUTHENTICATION or said[0] == AUTHENTICATION]
    assert answers == [Option(DONT, AUTHENTICATION)]
