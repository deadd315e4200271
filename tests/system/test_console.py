"""People and programs on one console: everyone sees the same, everyone types, byte for byte."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.system.clients import Client, PtyClient, TcpClient, TelnetClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.payload import KIB64, all_bytes
from tests.system.vm import FakeVm
from tests.system.wait import until

GREETING = b"raw hello"
SOME_SECONDS = 1.5


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


def open_client(kind: str, daemon: Daemon, vm: FakeVm) -> Client:
    """A client that is on the console for sure: it is counted, and what it agrees on is agreed."""
    before = len(daemon.console(vm.name)["clients"])
    client: Client
    if kind == "unix":
        client = UnixClient(daemon.socket_path(vm.name))
    elif kind == "telnet":
        client = TelnetClient(daemon.port(vm.name)).negotiated()
    else:
        client = TcpClient(daemon.port(vm.name))
        client.send(GREETING)
        assert vm.read(len(GREETING)) == GREETING
    daemon.wait_clients(vm.name, before + 1)
    return client


KINDS = ("unix", "telnet", "raw")


@pytest.mark.parametrize("kind", KINDS)
def test_64_kib_of_all_bytes_reach_the_client_exactly(
    kind: str, daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = stack.enter_context(open_client(kind, daemon, vm))
    payload = all_bytes(1)
    vm.send(payload)
    assert client.read(KIB64) == payload


@pytest.mark.parametrize("kind", KINDS)
def test_64_kib_of_all_bytes_reach_the_vm_exactly(
    kind: str, daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = stack.enter_context(open_client(kind, daemon, vm))
    payload = all_bytes(2)
    client.send(payload)
    assert vm.read(KIB64) == payload


def test_64_kib_of_all_bytes_are_in_the_log_exactly(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    payload = all_bytes(3)
    vm.send(payload)
    log = daemon.log_file(vm.name)
    until(lambda: log.stat().st_size >= KIB64, "the log holds all that was sent")
    assert log.read_bytes() == payload


def test_what_is_split_at_every_byte_arrives_whole(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(open_client("unix", daemon, vm))
    payload = bytes(range(256))
    for value in payload.replace(b"\xff", b"\xff\xff"):
        vm.send_raw(bytes([value]))
    assert client.read(256) == payload


def test_clients_of_every_sort_see_the_same_output(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    clients = [stack.enter_context(open_client(kind, daemon, vm)) for kind in KINDS * 2]
    terminal = PtyClient([VSPCCTL, "--root", str(daemon.root), "console", vm.name])
    stack.enter_context(terminal)
    daemon.wait_clients(vm.name, len(clients) + 1)
    vm.send(b"login: ")
    assert [client.read(7) for client in clients] == [b"login: "] * len(clients)
    terminal.read_until(b"login: ")


def test_clients_of_every_sort_can_type(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    clients = [stack.enter_context(open_client(kind, daemon, vm)) for kind in KINDS * 2]
    for number, client in enumerate(clients):
        client.send(b"typed by %d\r" % number)
        assert vm.read(11) == b"typed by %d\r" % number


def test_one_types_while_another_watches_the_echo(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    typist, watcher = (stack.enter_context(open_client(kind, daemon, vm)) for kind in ("raw", "telnet"))
    typist.send(b"$g#67")
    vm.send(vm.read(5) + b"+")
    assert (typist.read(6), watcher.read(6)) == (b"$g#67+", b"$g#67+")


def test_raw_tcp_client_that_speaks_first_gets_no_stray_byte(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    gdb = stack.enter_context(open_client("raw", daemon, vm))
    assert gdb.quiet(SOME_SECONDS) == b""


def test_raw_tcp_client_gets_no_notice_when_the_vm_goes_and_comes(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    gdb = stack.enter_context(open_client("raw", daemon, vm))
    watcher = stack.enter_context(open_client("telnet", daemon, vm))
    vm.close()
    watcher.read_until(b"disconnected]")
    again = dial(uuid=vm.uuid)
    again.send(b"+")
    watcher.read_until(b"+")
    assert gdb.quiet(SOME_SECONDS) == b"+"


def test_silent_tcp_client_is_offered_telnet(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.read_until(b"\xff\xfb\x01")


def test_telnet_client_that_refuses_binary_sends_one_carriage_return_for_enter(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"\xff\xfc\x00" + b"a\r\nb\r\x00c\r")
    client.send(b"\nd")
    assert vm.read(7) == b"a\rb\rc\rd"


def test_telnet_client_is_told_when_the_vm_goes(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(open_client("telnet", daemon, vm))
    vm.close()
    client.read_until(b"[vspcd: web01 disconnected]")


def test_client_that_comes_before_the_vm_gets_its_first_byte(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    path = daemon.socket_path(vm.name)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    client = stack.enter_context(UnixClient(path))
    daemon.wait_clients(vm.name, 1)
    dial(uuid=vm.uuid).send(b"first words")
    assert client.read(11) == b"first words"


def test_client_that_hangs_up_is_no_longer_counted(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    with open_client("unix", daemon, vm), open_client("telnet", daemon, vm):
        pass
    assert daemon.wait_clients(vm.name, 0)["state"] == "connected"


def test_clients_of_one_console_hear_nothing_of_another(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    web, db = dial(name="web01"), dial(name="db01")
    client = stack.enter_context(open_client("unix", daemon, web))
    db.send(b"secret of db01")
    web.send(b"word of web01")
    assert client.read(13) == b"word of web01"
    client.send(b"for web01")
    assert (web.read(9), bytes(db.data)) == (b"for web01", b"")


def test_new_telnet_client_sees_the_end_of_what_was_said(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("clients.replay=8")
    vm = stack.enter_context(daemon.dial())
    vm.send(b"much earlier\r\nlogin: ")
    daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 21), "is heard")
    assert stack.enter_context(TelnetClient(daemon.port(vm.name))).read_until(b"login: ") == b"login: "


@pytest.mark.parametrize("kind", ["unix", "raw"])
def test_new_program_gets_nothing_of_what_was_said_before(
    kind: str, daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    vm.send(b"$T05thread:01;#07")
    daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 17), "is heard")
    program = stack.enter_context(open_client(kind, daemon, vm))
    vm.send(b"+")
    assert program.read_until(b"+") == b"+"


def test_console_cannot_have_more_clients_than_configured(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("clients.max=2")
    vm = stack.enter_context(daemon.dial())
    for _ in range(2):
        stack.enter_context(open_client("unix", daemon, vm))
    stack.enter_context(UnixClient(daemon.socket_path(vm.name))).read_to_end()
    assert len(daemon.console(vm.name)["clients"]) == 2


def test_without_ports_the_unix_socket_still_works(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.enabled=false")
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(open_client("unix", daemon, vm))
    client.send(b"ok")
    assert vm.read(2) == b"ok"
    assert daemon.console(vm.name)["port"] is None


def test_unix_socket_has_the_configured_mode(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon('sockets.mode="0600"')
    vm = stack.enter_context(daemon.dial())
    path = daemon.root / "run" / f"{vm.uuid}.sock"
    assert str(path) == daemon.socket_path(vm.name)
    assert path.stat().st_mode & 0o777 == 0o600
