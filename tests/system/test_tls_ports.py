"""Console ports that speak TLS, and the real clients that can."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.clients import PtyClient, TcpClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import all_bytes
from tests.system.simulator import PLAIN_SHELL, PROMPT, Simulator
from tests.system.tls_peers import Pair, dial_raw, dialled, hung_up, self_signed, silent_ones, trusting
from tests.system.tools import tool
from tests.system.vm import FakeVm
from tests.system.wait import until

NAME = "web01"
QUESTION = b"echo the answer is $((6*7))\r"
ANSWER = b"the answer is 42"
AT_ONCE = 5.0
CLIENT_HELLO = b"\x16\x03\x01"


class TlsClient(TcpClient):
    """A program that speaks TLS and no telnet."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.socket = trusting().wrap_socket(self.socket)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc")


@pytest.fixture
def daemon(start_daemon: StartDaemon, pair: Pair) -> Daemon:
    return start_daemon(*pair.settings, "ports.tls=true")


@pytest.fixture
def shell(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon with one VM that runs a shell."""
    with Simulator(daemon, NAME, "--shell", PLAIN_SHELL):
        yield daemon


@pytest.fixture
def vm(daemon: Daemon, stack: ExitStack) -> FakeVm:
    return stack.enter_context(dialled(daemon, FakeVm(daemon.proxy, name=NAME)))


def telnet_ssl(daemon: Daemon, *options: str) -> list[str]:
    host, port = daemon.port(NAME)
    return [tool("telnet-ssl"), "-z", "ssl", *options, host, str(port)]


def s_client(daemon: Daemon, *options: str) -> list[str]:
    host, port = daemon.port(NAME)
    return [tool("openssl"), "s_client", "-quiet", *options, "-connect", f"{host}:{port}"]


def ask(client: PtyClient) -> None:
    client.read_until(PROMPT)
    client.send(QUESTION)
    client.read_until(ANSWER)


def test_telnet_ssl_uses_the_shell(shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(telnet_ssl(shell)))
    shell.wait_clients(NAME, 1)
    ask(client)


def test_telnet_ssl_verifies_the_certificate(shell: Daemon, pair: Pair, stack: ExitStack) -> None:
    trust = ["-z", "secure", "-z", "verify=1", "-z", f"cacert={pair.certificate}"]
    client = stack.enter_context(PtyClient(telnet_ssl(shell, *trust)))
    ask(client)


def test_telnet_ssl_leaves_and_its_client_is_gone(shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(telnet_ssl(shell)))
    ask(client)
    client.send(b"\x1d")
    client.read_until(b"telnet-ssl> ")
    client.send(b"quit\r")
    client.wait()
    shell.wait_clients(NAME, 0)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_uses_the_shell(version: str, shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(s_client(shell, version)))
    shell.wait_clients(NAME, 1)
    client.send(b"\r")
    ask(client)


def test_all_byte_values_pass_both_ways(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    client = stack.enter_context(TlsClient(daemon.port(NAME)))
    client.send(b"!")  # a client that speaks first, and no telnet, is a program
    assert vm.read(1) == b"!"
    said, typed = all_bytes(1), all_bytes(2)
    vm.send(said)
    assert client.read(len(said)) == said
    client.send(typed)
    assert vm.read(len(typed)) == typed


def test_what_is_typed_before_a_client_leaves_arrives(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    typed = all_bytes(3)[64:]
    with TlsClient(daemon.port(NAME)) as client:
        client.send(b"!" + typed)
    assert vm.read(1 + len(typed)) == b"!" + typed


def test_status_names_the_client_behind_tls(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    client = stack.enter_context(TlsClient(daemon.port(NAME)))
    (told,) = daemon.wait_clients(NAME, 1)["clients"]
    host, port = client.socket.getsockname()[:2]
    assert told["from"] == f"{host}:{port}"


def test_a_plain_client_is_hung_up_on_and_disturbs_nobody(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    unix = stack.enter_context(UnixClient(daemon.socket_path(NAME)))
    daemon.wait_clients(NAME, 1)
    plain = stack.enter_context(dial_raw(daemon.port(NAME), b"\xff\xfd\x03hello\r\n"))
    hung_up(plain)
    daemon.wait_log("tls-client-refused")
    daemon.wait_clients(NAME, 1)
    vm.send(b"undisturbed")
    assert unix.read(11) == b"undisturbed"
    unix.send(b"typed")
    assert vm.read(5) == b"typed"


def test_a_plain_client_types_and_hears_nothing(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    plain = stack.enter_context(dial_raw(daemon.port(NAME), b"reboot\r"))
    vm.send(b"secret")
    assert b"secret" not in hung_up(plain)
    assert bytes(vm.data) == b""


def test_silent_clients_hold_up_nobody(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    silent_ones(daemon.port(NAME), CLIENT_HELLO, 20, stack)
    began = time.monotonic()
    client = stack.enter_context(TlsClient(daemon.port(NAME)))
    client.send(b"!")
    assert vm.read(1) == b"!"
    assert time.monotonic() - began < AT_ONCE


def test_a_client_that_ends_its_direction_still_hears(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    client = stack.enter_context(TlsClient(daemon.port(NAME)))
    client.send(b"!")
    assert vm.read(1) == b"!"
    socket.socket.shutdown(client.socket, socket.SHUT_WR)
    vm.send(b"the answer")
    assert client.read(10) == b"the answer"


def test_without_a_certificate_the_daemon_does_not_start_with_tls_ports(
    start_daemon: StartDaemon,
) -> None:
    with pytest.raises(AssertionError, match=r"ports\.tls"):
        start_daemon("ports.tls=true")


def test_a_client_sees_the_certificate_of_the_configuration(
    daemon: Daemon, vm: FakeVm, pair: Pair, stack: ExitStack
) -> None:
    client = stack.enter_context(TlsClient(daemon.port(NAME)))
    assert isinstance(client.socket, ssl.SSLSocket)
    shown = client.socket.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
    until(lambda: daemon.status()["certificate"] is not None, "status has it too")
