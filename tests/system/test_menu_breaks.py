"""Breaks and SysRq keys: by the menu of vspcctl console, by telnet clients, by vspcctl break."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack

import pytest

from tests.system.clients import PtyClient, TelnetClient
from tests.system.conftest import Dial
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.menus import ESCAPE, Menu, session
from tests.system.test_sharing import audit
from tests.system.vm import BREAK, COM_PORT, IAC, FakeVm, Sub, sub
from tests.system.wait import until


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial(name="web01")


def breaks(vm: FakeVm) -> int:
    return vm.heard.count(BREAK)


def test_a_break_needs_enter_and_is_written_down(daemon: Daemon, vm: FakeVm, menu: Menu) -> None:
    menu.choose(b"b", b"break: ")
    menu.send(b"\x03" + ESCAPE + b"b")
    menu.read_until(b"break: ")
    menu.answer(b"")
    menu.read_until(b"break sent]")
    menu.send(b"x")
    assert vm.read(1) == b"x"
    assert breaks(vm) == 1
    until(lambda: any(each["what"] == "break" for each in audit(daemon)), "the break is written down")


def test_a_dangerous_sysrq_key_is_confirmed_and_a_harmless_one_is_not(vm: FakeVm, menu: Menu) -> None:
    menu.choose(b"b", b"break: ")
    menu.answer(b"sync")
    assert (vm.read(1), breaks(vm)) == (b"s", 1)
    menu.choose(b"b", b"break: ")
    menu.answer(b"reboot")
    menu.read_until(b"reboots at once")
    menu.answer(b"")
    menu.read_until(b"nothing was sent]")
    menu.choose(b"b", b"break: ")
    menu.answer(b"reboot")
    menu.read_until(b"y/N: ")
    menu.answer(b"y")
    assert (vm.read(1), breaks(vm)) == (b"b", 2)


def test_a_break_of_a_telnet_client_goes_through(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    telnet.socket.sendall(bytes([IAC, 243]) + b"b")
    assert vm.read(1) == b"b"
    assert breaks(vm) == 1


def test_a_vm_that_has_asked_for_it_is_told_of_a_break_by_com_port_as_well(vm: FakeVm, menu: Menu) -> None:
    vm.send_raw(sub(bytes([10, 0x10]), COM_PORT))
    vm.hear(Sub(COM_PORT, bytes([110, 0x10])))
    menu.choose(b"b", b"break: ")
    menu.answer(b"sync")
    assert vm.read(1) == b"s"
    vm.hear(Sub(COM_PORT, bytes([106, 0x10])))
    heard = [each for each in vm.heard if each in (BREAK, Sub(COM_PORT, bytes([106, 0x10])))]
    assert heard == [BREAK, Sub(COM_PORT, bytes([106, 0x10]))]


def test_the_break_command_sends_one_and_says_so(daemon: Daemon, vm: FakeVm) -> None:
    done = daemon.ctl("break", vm.name, "--sysrq", "help", "--yes")
    assert (done.returncode, done.stdout) == (0, "web01: break and SysRq h sent (lists the keys)\n")
    assert (vm.read(1), breaks(vm)) == (b"h", 1)
    until(lambda: any(each["what"] == "break" for each in audit(daemon)), "the break is written down")


def test_the_break_command_ends_when_the_break_was_taken(daemon: Daemon, vm: FakeVm) -> None:
    worker = daemon.worker(vm.name)
    os.kill(worker, signal.SIGSTOP)
    try:
        words = [VSPCCTL, "--root", str(daemon.root), "break", "--yes", vm.name]
        command = subprocess.Popen(words, stdout=subprocess.PIPE)
        daemon.wait_clients(vm.name, 1)
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(0.5)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert command.communicate(timeout=20)[0] == b"web01: break sent\n"
    vm.hear(BREAK)


def test_the_break_command_asks_on_a_terminal(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    for typed, code in ((b"n\n", 1), (b"\n", 1), (b"\x04", 1), (b"\x03", 130), (b"y\n", 0)):
        client = stack.enter_context(PtyClient([VSPCCTL, "--root", str(daemon.root), "break", vm.name]))
        client.read_until(b"Send it? [y/N] ")
        client.send(typed)
        assert client.wait() == code
    vm.hear(BREAK)
    assert breaks(vm) == 1


def test_the_break_command_refuses_what_it_cannot_do(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    done = daemon.ctl("break", vm.name)
    assert (done.returncode, "--yes says so" in done.stderr) == (2, True)
    done = daemon.ctl("break", vm.name, "--sysrq", "rebot", "--yes")
    assert (done.returncode, "is no SysRq key" in done.stderr) == (2, True)
    holder = stack.enter_context(session(daemon, vm.name, "--lock"))
    done = daemon.ctl("break", vm.name, "--yes")
    assert (done.returncode, "is locked by" in done.stderr) == (5, True)
    vm.close()
    daemon.wait_state(vm.name, "waiting")
    holder.send(ESCAPE + b".")
    holder.wait()
    done = daemon.ctl("break", vm.name, "--yes")
    assert (done.returncode, "no VM is there to take a break" in done.stderr) == (1, True)
    assert breaks(vm) == 0
