"""vSPC.py's query protocol at the admin port, as its own vSPCClient speaks it."""

from __future__ import annotations

import pickle
import socket
from contextlib import ExitStack
from typing import Any, Optional

import pytest

from tests.system.clients import SocketClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Address, Daemon
from tests.system.wait import PATIENCE, until
from vspcd import queries

FREE, READ_ONLY, WRITE, EXCLUSIVE = "free_for_all", "free_for_all_or_readonly", "write", "exclusive"
OFFER = bytes([255, 251, 0, 255, 251, 3, 255, 253, 0, 255, 253, 3])  # WILL and DO, BINARY and SGA


class QueryClient(SocketClient):
    """What vSPCClient does: pickles in its own protocol, then telnet on the same connection."""

    def __init__(self, daemon: Daemon | Address, protocol: int = 4) -> None:
        address = daemon.listener("admin") if isinstance(daemon, Daemon) else daemon
        sock = socket.create_connection(address, timeout=PATIENCE)
        super().__init__(sock)
        self._protocol = protocol
        self._file = sock.makefile("rb", buffering=0)

    def put(self, *values: object) -> None:
        self.send(b"".join(pickle.dumps(value, self._protocol) for value in values))

    def get(self) -> Any:
        self.socket.settimeout(PATIENCE)
        return pickle.load(self._file)

    def ask(self, name: Optional[str], mode: str = READ_ONLY) -> Any:
        self.put(3)
        assert self.get() == 3
        self.put(name, mode)
        return self.get()

    def granted(self, name: str, mode: str = READ_ONLY) -> tuple[str, str]:
        """The mode and the seed."""
        assert self.ask(name, mode) == "vm_found"
        found = self.get(), self.get()
        self.send(OFFER)
        return found

    def listing(self) -> list[dict[str, Any]]:
        return [self.get() for _ in range(self.get())]

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_list(protocol: int, daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vms = [dial(name=f"web0{number}") for number in (1, 2)]
    vms.append(dial(name="web02", uuid=vms[1].uuid, uri="vSPC.py?port=gdb"))
    client = stack.enter_context(QueryClient(daemon, protocol))
    assert client.ask(None) == "vm_not_found"
    found = client.listing()
    assert sorted(found, key=lambda one: str(one["name"])) == [
        {"name": name, "uuid": vm.console, "port": daemon.port(vm.console)[1]}
        for name, vm in zip(["web01", "web02", "web02.gdb"], vms)
    ]
    assert client.read_to_end() == b""


def test_consoles_without_ports_are_listed_without(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.enabled=false")
    stack.enter_context(daemon.dial())
    client = stack.enter_context(QueryClient(daemon))
    client.ask(None)
    assert [one["port"] for one in client.listing()] == [None]


def test_many_consoles_are_listed(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon()
    for number in range(8):
        stack.enter_context(daemon.dial(name=f"{number:x}" * 250))
    client = stack.enter_context(QueryClient(daemon))
    client.ask(None)
    assert {one["name"] for one in client.listing()} == {f"{number:x}" * 250 for number in range(8)}


@pytest.mark.parametrize("name", ["web", "web99", "", "x" * 5000])
def test_a_name_that_is_none_brings_the_list(name: str, daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    """A beginning is not enough: scripts that ask for web1 must not be on web10."""
    dial(name="web01")
    client = stack.enter_context(QueryClient(daemon))
    if len(name) > 4096:
        client.put(3)
        assert client.get() == 3
        client.put(name, FREE)
        assert client.read_to_end() == b""
    else:
        assert client.ask(name) == "vm_not_found"
        assert [one["name"] for one in client.listing()] == ["web01"]


@pytest.mark.parametrize("spelled", ["name", "uuid", "UUID OF VSPC.PY"])
def test_a_session_by_name_and_by_uuid(spelled: str, daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    names = {"name": vm.name, "uuid": vm.uuid, "UUID OF VSPC.PY": vm.uuid.replace("-", " ").upper()}
    vm.send(b"before\r\n\xffgr\xc3\xbc\xc3\x9fe")
    until(lambda: daemon.console(vm.name)["bytes_in"] == 16, "the VM was heard")
    client = stack.enter_context(QueryClient(daemon))
    assert client.granted(names[spelled]) == (FREE, "before\r\n\ufffdgrüße")
    client.send(b"typed")
    assert vm.read(5) == b"typed"
    vm.send(b"!")
    assert b"before" not in client.read_until(b"!")  # the seed is not shown twice


def test_python_2_gets_strings_of_its_own(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    vm.send(b"\xff\xfe")
    until(lambda: daemon.console(vm.name)["bytes_in"] == 2, "the VM was heard")
    client = stack.enter_context(QueryClient(daemon))
    client.send(b"I3\n.S'" + vm.name.encode() + b"'\np1\n.S'write'\np1\n.")
    client.socket.settimeout(PATIENCE)
    file = client.socket.makefile("rb", buffering=0)
    answers = [pickle.load(file, encoding="bytes") for _ in range(4)]
    assert answers == [3, b"vm_found", b"write", b"\xff\xfe"]


@pytest.mark.parametrize(("mode", "lock"), [(WRITE, "lock"), (EXCLUSIVE, "exclusive")])
def test_lock_modes(mode: str, lock: str, daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    first = stack.enter_context(QueryClient(daemon))
    assert first.granted(vm.name, mode)[0] == mode
    assert daemon.console(vm.name)["lock"]["kind"] == lock
    for wanted in (WRITE, EXCLUSIVE, FREE):
        other = stack.enter_context(QueryClient(daemon))
        assert other.ask(vm.name, wanted) == "lock_failed"
        assert other.read_to_end() == b""
    watcher = stack.enter_context(QueryClient(daemon))
    if lock == "exclusive":
        assert watcher.ask(vm.name, READ_ONLY) == "lock_failed"
    else:
        assert watcher.granted(vm.name, READ_ONLY)[0] == READ_ONLY
        watcher.read_until(b"is locked by")
        watcher.send(b"never")
    first.send(b"heard")
    assert vm.read(5) == b"heard"
    first.close()
    until(lambda: daemon.console(vm.name)["lock"] is None, "the lock is gone with its holder")


@pytest.mark.parametrize("mode", ["", "rw", None, 7, "EXCLUSIVE"])
def test_an_unknown_lock_mode(mode: Any, daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(QueryClient(daemon))
    assert client.ask(vm.name, mode) == "lock_invalid"
    assert client.read_to_end() == b""
    assert daemon.console(vm.name)["clients"] == []


def test_rights_hold(start_daemon: StartDaemon, stack: ExitStack) -> None:
    """What somebody may not watch does not exist for him; what he may only watch, he watches if that is enough."""
    rules = '[{addresses: ["127.0.0.1"], consoles: ["web*"], may: watch}]'
    daemon = start_daemon(f"access={rules}")
    for name in ("web01", "db01"):
        stack.enter_context(daemon.dial(name=name))
    client = stack.enter_context(QueryClient(daemon))
    assert client.ask("db01") == "vm_not_found"
    assert [one["name"] for one in client.listing()] == ["web01"]
    assert stack.enter_context(QueryClient(daemon)).ask("web01", FREE) == "lock_failed"
    assert stack.enter_context(QueryClient(daemon)).ask("web01", WRITE) == "lock_failed"
    assert stack.enter_context(QueryClient(daemon)).granted("web01", READ_ONLY)[0] == READ_ONLY


def test_what_is_typed_before_the_grant_is_typed(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(QueryClient(daemon))
    words = [pickle.dumps(word) for word in (3, vm.name, FREE)]
    client.send(b"".join(words) + OFFER + b"early")
    assert [client.get() for _ in range(4)] == [3, "vm_found", FREE, ""]
    assert vm.read(5) == b"early"


def test_questions_that_come_a_byte_at_a_time(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = stack.enter_context(QueryClient(daemon, 2))
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for value in (3, vm.name, FREE):
        for byte in pickle.dumps(value, 2):
            client.send(bytes([byte]))
    assert [client.get() for _ in range(4)] == [3, "vm_found", FREE, ""]


def test_older_versions_have_their_lists(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    about = {"name": vm.name, "uuid": vm.uuid, "port": daemon.port(vm.name)[1]}
    client = stack.enter_context(QueryClient(daemon))
    client.put(1)
    assert [client.get(), client.get()] == [1, (1, [about])]
    client = stack.enter_context(QueryClient(daemon))
    client.put(2, None, FREE)
    assert [client.get() for _ in range(3)] == [2, "vm_not_found", [about]]
    client = stack.enter_context(QueryClient(daemon))
    client.put(4, None, FREE)
    assert client.get() == 3


@pytest.mark.parametrize(
    "words", [b"hello\r\n", b"GET / HTTP/1.0\r\n\r\n", pickle.dumps("3"), pickle.dumps(0)]
)
def test_others_are_told_what_the_port_is(words: bytes, start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon()
    client = stack.enter_context(QueryClient(daemon))
    client.send(words)
    assert b"vSPC.py's query protocol" in client.read_to_end()
    daemon.wait_log("query-refused")


def test_who_asks_nothing_has_to_go(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon()
    client = stack.enter_context(QueryClient(daemon))
    client.put(3)
    assert client.get() == 3
    assert client.read_to_end(queries.ASK_WITHIN + 5) == b""
    daemon.wait_log("query-refused", "has not asked in time")


def test_many_silent_ones_keep_nobody_out(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    admin = daemon.listener("admin")
    silent = [stack.enter_context(QueryClient(admin)) for _ in range(queries.CONVERSATIONS + 6)]
    client = stack.enter_context(QueryClient(admin))
    assert client.granted(vm.name)[0] == FREE
    assert silent[0].read_to_end(queries.ASK_WITHIN - 1) == b""
    raw = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 2)
    vm.send(b"on")
    assert raw.read(2) == b"on"


def test_a_vm_that_is_away_can_be_waited_for(daemon: Daemon, stack: ExitStack) -> None:
    with daemon.dial() as vm:
        vm.send(b"last words")
        until(lambda: daemon.console(vm.name)["bytes_in"] == 10, "the VM was heard")
    daemon.wait_state(vm.name, "waiting")
    client = stack.enter_context(QueryClient(daemon))
    assert client.granted(vm.name) == (FREE, "last words")
    again = stack.enter_context(daemon.dial(name=vm.name, uuid=vm.uuid))
    client.send(b"welcome")
    assert again.read(7) == b"welcome"
