"""The same over IPv6: VMs, clients, moves, TLS, allow-lists, and what is shown of them."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import TcpClient, TelnetClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Address, Daemon
from tests.system.pressure import exchange
from tests.system.tls_peers import TlsVm, dialled, self_signed
from tests.system.vm import FakeVm
from tests.system.vmotion_vm import MovingVm

HOME = "::1"
OVER_IPV6 = ("proxy.listen=['[::1]:0']", "admin.listen=['[::1]:0']", "ports.address=::1")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind((HOME, 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(*OVER_IPV6)


def port(daemon: Daemon, name: str) -> Address:
    return HOME, daemon.port(name)[1]


def test_a_vm_is_served_and_named_by_its_address(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial(source=HOME))
    assert vm.address.startswith("[::1]:")
    assert daemon.console(vm.name)["peer"] == vm.address


def test_clients_of_the_port_are_served_and_named_by_their_address(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial(source=HOME))
    raw = stack.enter_context(TcpClient(port(daemon, vm.name)))
    exchange(raw, vm)
    telnet = stack.enter_context(TelnetClient(port(daemon, vm.name))).negotiated()
    telnet.send(b"typed")
    assert vm.read(5) == b"typed"
    clients = daemon.wait_clients(vm.name, 2)["clients"]
    assert all(client["from"].startswith("[::1]:") for client in clients)


def test_status_shows_the_listeners_and_the_peer(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial(source=HOME))
    shown = daemon.ctl("status").stdout
    assert f"Proxy listens on: [::1]:{daemon.proxy[1]}" in shown
    assert vm.address in shown


def test_a_console_keeps_its_port_over_a_restart(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial(source=HOME))
    before = port(daemon, vm.name)
    vm.close()
    daemon.stop()
    daemon.start()
    assert port(daemon, vm.name) == before
    TcpClient(before).close()


def test_a_port_that_somebody_else_holds_is_moved(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(daemon.dial(source=HOME))
    taken = port(daemon, vm.name)
    vm.close()
    daemon.stop()
    other = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(taken)
    other.listen()
    daemon.start()
    assert port(daemon, vm.name) != taken
    daemon.wait_log("port-moved", str(taken[1]))


def test_a_vm_moves(daemon: Daemon, stack: ExitStack) -> None:
    source = MovingVm(daemon.proxy, source=HOME)
    stack.enter_context(source).handshake()
    client = stack.enter_context(TcpClient(port(daemon, source.uuid)))
    client.send(b"before")
    assert source.read(6) == b"before"
    source.begin()
    source.until(lambda: source.pair() is not None, "GOAHEAD")
    client.send(b"held")
    target = MovingVm(daemon.proxy, uuid=source.uuid, source=HOME)
    stack.enter_context(target)
    target.show(source.pair() or b"")
    target.until(target.admitted, "PEER-OK")
    target.complete()
    source.leave()
    assert target.read(4) == b"held"
    daemon.wait_console(source.uuid, lambda c: bool(c["peer"] == target.address), "has moved")


def test_a_vm_dials_in_over_tls(start_daemon: StartDaemon, stack: ExitStack, tmp_path: Path) -> None:
    daemon = start_daemon(*OVER_IPV6, *self_signed(tmp_path, "vspc").settings)
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy, source=HOME)))
    client = stack.enter_context(TcpClient(port(daemon, vm.name)))
    exchange(client, vm)
    assert daemon.console(vm.name)["peer"] == vm.address
    assert daemon.console(vm.name)["tls"]


@pytest.mark.parametrize("networks", ["['::1/128']", "['::/0']", "[127.0.0.1, '::1']"])
def test_a_vm_from_an_allowed_network_is_welcome(
    networks: str, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(*OVER_IPV6, f"proxy.allow={networks}")
    vm = stack.enter_context(daemon.dial(source=HOME))
    daemon.wait_state(vm.name, "connected")


@pytest.mark.parametrize("networks", ["['fd00::/8']", "[0.0.0.0/0]", "['::2/127']"])
def test_a_vm_from_another_network_is_refused(
    networks: str, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(*OVER_IPV6, f"proxy.allow={networks}")
    vm = stack.enter_context(FakeVm(daemon.proxy, source=HOME))
    vm.wait_closed()
    assert daemon.wait_refusal("proxy.allow")["peer"] == vm.address


def test_both_sorts_of_hosts_use_one_daemon(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.listen=[127.0.0.1:0, '[::1]:0']")
    old, new = daemon.status()["listeners"]["proxy"]
    for name, listener, source in (("old", old, "127.0.0.1"), ("new", new, HOME)):
        host, _, number = listener.rpartition(":")
        vm = stack.enter_context(FakeVm((host.strip("[]"), int(number)), name=name, source=source))
        vm.handshake()
        assert daemon.wait_state(name, "connected")["peer"] == vm.address


def test_the_simulator_dials_in(daemon: Daemon) -> None:
    done = daemon.ctl(
        "simulate", "--proxy", f"[::1]:{daemon.proxy[1]}", "--name", "web01", "--once", "--drop-after", "0.2"
    )
    assert done.returncode == 0, done.stdout + done.stderr
