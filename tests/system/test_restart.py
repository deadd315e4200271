"""What a console keeps over restarts of the daemon, and when it is forgotten."""

from __future__ import annotations

import random
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.system.clients import TcpClient, TelnetClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import close_all
from tests.system.wait import throughout, until


def ports(daemon: Daemon) -> dict[str, int]:
    """The port of each console, once all of them are open."""
    until(lambda: all(console["socket"] for console in daemon.consoles()), "all consoles are open")
    return {console["id"]: console["port"] for console in daemon.consoles()}


def hold(port: int) -> socket.socket:
    """Someone else's listener on a port."""
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(("127.0.0.1", port))
    other.listen()
    return other


def free_range(size: int) -> int:
    """The first of so many free ports, below those that the system gives out by itself."""
    while True:
        first = random.randrange(20000, 30000)
        with ExitStack() as held:
            try:
                for port in range(first, first + size):
                    held.enter_context(hold(port))
            except OSError:
                continue
            return first


def test_ports_survive_a_restart(daemon: Daemon, dial: Dial) -> None:
    vms = [dial(name="web01"), dial(name="db01"), dial(name="db01", uri="vSPC.py?port=gdb")]
    before = ports(daemon)
    close_all(vms)
    daemon.stop()
    daemon.start()
    assert ports(daemon) == before
    assert len(set(before.values())) == 3


def test_ports_survive_a_crash(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    before = ports(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    vm.close()
    until(lambda: not daemon.members(), "the workers of a dead master leave when their VM does")
    daemon.start()
    assert ports(daemon) == before


def test_ports_of_consoles_that_were_long_in_use_survive_a_crash(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    """The map says when the VM came; that it was there until the end, nobody could note."""
    daemon = start_daemon("ports.expire=2s")
    vm = stack.enter_context(daemon.dial())
    before = ports(daemon)
    throughout(lambda: True, 2.5)
    daemon.signal(signal.SIGKILL)
    daemon.clean_up()
    daemon.start()
    assert ports(daemon) == before
    until(lambda: daemon.find(vm.name) is None, "its age counts from the start")


def test_console_can_be_attached_after_a_restart_before_its_vm_is_back(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    daemon.stop()
    daemon.start()
    client = stack.enter_context(TcpClient(daemon.port(vm.name)))
    client.send(b"?")
    daemon.wait_clients(vm.name, 1)
    dial(uuid=vm.uuid).send(b"back again")
    assert client.read_until(b"back again")


def test_new_client_sees_the_log_of_before_the_restart(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial()
    vm.send(b"before the restart")
    daemon.wait_console(vm.name, lambda c: c["bytes_in"] == 18, "is heard")
    vm.close()
    daemon.stop()
    daemon.start()
    client = stack.enter_context(TelnetClient(daemon.port(vm.name)))
    assert client.read_until(b"restart").endswith(b"before the restart")


def test_log_goes_on_after_a_restart(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.send(b"one,")
    daemon.wait_console(vm.name, lambda c: c["bytes_in"] == 4, "is heard")
    vm.close()
    daemon.stop()
    daemon.start()
    dial(uuid=vm.uuid).send(b"two")
    log = daemon.log_file(vm.name)
    until(lambda: log.read_bytes() == b"one,two", "the log holds both")


def test_port_that_someone_else_holds_at_start_moves_and_says_so(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    vm = dial()
    taken = daemon.port(vm.name)[1]
    vm.close()
    daemon.stop()
    stack.enter_context(hold(taken))
    daemon.start()
    moved = daemon.port(vm.name)
    assert moved[1] != taken
    daemon.wait_log(str(taken), str(moved[1]))
    again = dial(uuid=vm.uuid)
    stack.enter_context(TcpClient(moved)).send(b"found you")
    assert again.read(9) == b"found you"


def test_moved_port_is_kept_over_the_next_restart(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    taken = daemon.port(vm.name)[1]
    vm.close()
    daemon.stop()
    with hold(taken):
        daemon.start()
        moved = ports(daemon)
        daemon.stop()
    daemon.start()
    assert ports(daemon) == moved


def test_console_ports_count_up_from_the_first(start_daemon: StartDaemon, stack: ExitStack) -> None:
    first = free_range(4)
    stack.enter_context(hold(first + 1))
    daemon = start_daemon(f"ports.first={first}")
    for number in range(3):
        stack.enter_context(daemon.dial(name=f"vm{number}"))
    assert sorted(ports(daemon).values()) == [first, first + 2, first + 3]


def test_console_with_neither_vm_nor_client_expires(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.expire=1s")
    vm = stack.enter_context(daemon.dial())
    path, port = Path(daemon.socket_path(vm.name)), daemon.port(vm.name)[1]
    vm.close()
    until(lambda: daemon.find(vm.name) is None, "the console is forgotten")
    assert not path.exists()
    hold(port).close()


def test_console_with_a_client_does_not_expire(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.expire=1s")
    vm = stack.enter_context(daemon.dial())
    stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    vm.close()
    assert throughout(lambda: daemon.find(vm.name) is not None, 3)


def test_console_with_a_vm_does_not_expire(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.expire=1s")
    vm = stack.enter_context(daemon.dial())
    assert throughout(lambda: daemon.find(vm.name) is not None, 3)


def test_expired_console_is_not_back_after_a_restart(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("ports.expire=1s")
    vm = stack.enter_context(daemon.dial())
    vm.close()
    until(lambda: daemon.find(vm.name) is None, "the console is forgotten")
    daemon.stop()
    daemon.start()
    assert daemon.consoles() == []


def test_forgotten_console_is_gone_for_good(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    assert daemon.ctl("forget", vm.name).returncode == 0
    daemon.stop()
    daemon.start()
    assert daemon.consoles() == []


def test_second_daemon_below_the_same_root_does_not_start(daemon: Daemon, dial: Dial) -> None:
    dial()
    second = Daemon(daemon.root)
    second.process = second.spawn()
    try:
        assert second.wait_end() != 0
        assert daemon.status()["pid"] == daemon.pid
    finally:
        second.clean_up()
