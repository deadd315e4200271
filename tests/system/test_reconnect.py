"""VMs that go and come back, and strangers that claim to be them."""

from __future__ import annotations

from contextlib import ExitStack

from tests.system import processes
from tests.system.clients import SocketClient, TelnetClient, UnixClient
from tests.system.conftest import Dial
from tests.system.daemon import Daemon
from tests.system.vm import VC_UUID, FakeVm, uuid_text, vmware
from tests.system.wait import throughout, until


def attach(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> list[SocketClient]:
    telnet = TelnetClient(daemon.port(vm.name))
    clients = [stack.enter_context(UnixClient(daemon.socket_path(vm.name))), stack.enter_context(telnet)]
    telnet.negotiated()
    daemon.wait_clients(vm.name, 2)
    return clients


def claim(vm: FakeVm) -> FakeVm:
    """Takes a VM up to the word that says who it is, and says it."""
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))
    return vm


def test_clients_stay_when_the_vm_goes(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    attach(daemon, vm, stack)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    assert throughout(lambda: len(daemon.console(vm.name)["clients"]) == 2, 1)


def test_clients_are_there_when_the_vm_returns(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    clients = attach(daemon, vm, stack)
    for boot in range(3):
        vm.close()
        daemon.wait_state(vm.name, "waiting")
        vm = dial(uuid=vm.uuid)
        vm.send(b"boot %d" % boot)
        for client in clients:
            client.read_until(b"boot %d" % boot)
            client.send(b"hello %d" % boot)
            assert vm.read(7) == b"hello %d" % boot


def test_one_log_spans_the_boots_of_a_vm(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    client = attach(daemon, vm, stack)[0]
    vm.send(b"first boot\r\n")
    client.read_until(b"first boot\r\n")
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    dial(uuid=vm.uuid).send(b"second boot\r\n")
    client.read_until(b"second boot\r\n")
    assert daemon.log_file(vm.name).read_bytes() == b"first boot\r\nsecond boot\r\n"


def test_worker_ends_with_neither_vm_nor_client(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    pid = daemon.worker(vm.name)
    vm.close()
    console = daemon.wait_console(vm.name, lambda c: c["worker"] is None, "has no worker")
    assert console["state"] == "waiting"
    assert pid not in processes.session_members(daemon.pid)


def test_reconnect_from_the_same_host_takes_over(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    old = dial()
    clients = attach(daemon, old, stack)
    new = dial(uuid=old.uuid)
    old.wait_closed()
    new.send(b"I am back")
    for client in clients:
        client.read_until(b"I am back")
    clients[0].send(b"welcome")
    assert new.read(7) == b"welcome"


def test_last_words_of_the_old_connection_precede_the_new_one(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    old = dial()
    client = attach(daemon, old, stack)[0]
    old.send(b"last words; ")
    new = dial(uuid=old.uuid)
    new.send(b"first words")
    assert client.read(23) == b"last words; first words"


def test_same_uuid_from_elsewhere_is_refused_while_the_vm_answers(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    client = attach(daemon, vm, stack)[0]
    impostor = claim(stack.enter_context(FakeVm(daemon.proxy, uuid=vm.uuid, source="127.0.0.2")))
    impostor.wait_closed()
    client.send(b"password")
    assert vm.read(8) == b"password"
    assert bytes(impostor.data) == b""


def test_impostor_is_named_with_the_vm_that_it_played(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    daemon.wait_state(vm.name, "connected")
    impostor = claim(stack.enter_context(FakeVm(daemon.proxy, uuid=vm.uuid, source="127.0.0.2")))
    impostor.wait_closed()
    refusal = daemon.wait_refusal(vm.name)
    assert refusal["peer"] == impostor.address
    assert [host for host in ("127.0.0.1", "127.0.0.2") if host not in refusal["reason"]] == []


def test_same_uuid_from_elsewhere_is_welcome_once_the_vm_has_gone(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    moved = dial(uuid=vm.uuid, source="127.0.0.2")
    assert daemon.wait_state(vm.name, "connected")["peer"] == moved.address


def test_many_reconnects_leave_one_worker_and_no_open_files(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    daemon.wait_open(vm.name)
    files = len(processes.open_files(daemon.pid))
    for _ in range(20):
        vm.close()
        vm = dial(uuid=vm.uuid)
    daemon.wait_state(vm.name, "connected")
    vm.send(b"x")
    daemon.wait_console(vm.name, lambda c: c["bytes_in"] > 0, "has spoken")
    assert len([t for t in daemon.titles().values() if vm.uuid in t]) == 1
    until(lambda: len(processes.open_files(daemon.pid)) <= files, "no file stays open")
