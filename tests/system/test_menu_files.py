"""What the menu of vspcctl console reads and writes: the last lines, files that are sent, local copies."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.conftest import Dial
from tests.system.daemon import Daemon
from tests.system.disks import small_disk
from tests.system.menus import ESCAPE, Menu, session
from tests.system.vm import FakeVm
from tests.system.wait import until


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial(name="web01")


def test_the_last_lines_are_replayed(vm: FakeVm, menu: Menu) -> None:
    vm.send(b"one\r\ntwo\r\n\x1b[5;5Hthree\r\nprompt$ ")
    menu.read_until(b"prompt$ ")
    menu.choose(b"r", b"how many lines")
    menu.answer(b"3")
    shown = menu.read_until(b"[vspcctl: end of these lines]\r\nprompt$ ")
    assert b"lines of web01]\r\ntwo\r\nthree\r\nprompt$ " in shown
    assert b"\x1b[5;5H" not in shown


def test_the_last_lines_are_there_although_nobody_else_is_let_in(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    menu = stack.enter_context(session(daemon, vm.name, "--exclusive"))
    vm.send(b"one\r\ntwo\r\n")
    menu.read_until(b"two\r\n")
    menu.choose(b"r", b"how many lines")
    menu.answer(b"")
    menu.read_until(b"as far as this session remembers]")
    menu.read_until(b"one\r\ntwo\r\n")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    path = tmp_path / "commands"
    path.write_text("first\nsecond\n")
    return path


def send_file(menu: Menu, path: Path, pace: bytes = b"") -> None:
    menu.choose(b">", b"send file: ")
    menu.answer(str(path).encode())
    menu.read_until(b"pace: ")
    menu.answer(pace)


def test_a_file_waits_for_its_echo(vm: FakeVm, menu: Menu, commands: Path) -> None:
    send_file(menu, commands)
    assert vm.read(6) == b"first\r"
    menu.send(b"dropped")
    menu.read_until(b"Ctrl-C stops that]")
    assert bytes(vm.data) == b""
    vm.send(b"first\r\n")
    assert vm.read(7) == b"second\r"
    vm.send(b"second\r\n")
    menu.read_until(b"13 bytes in ")
    menu.send(b"me")
    assert vm.read(2) == b"me"


def test_a_file_without_echo_stops_with_the_line(vm: FakeVm, menu: Menu, commands: Path) -> None:
    send_file(menu, commands)
    menu.read_until(b"0 of 2 lines of ")
    menu.read_until(b"line 1 was not echoed")
    send_file(menu, commands, b"50")
    menu.read_until(b"13 bytes in ")
    assert vm.read(19) == b"first\rfirst\rsecond\r"


def test_ctrl_c_stops_a_file_and_is_not_sent(vm: FakeVm, menu: Menu, commands: Path) -> None:
    send_file(menu, commands)
    assert vm.read(6) == b"first\r"
    menu.send(b"\x03")
    menu.read_until(b"you have stopped it")
    menu.send(b"ls")
    assert vm.read(2) == b"ls"


def test_a_file_that_cannot_be_read_is_explained(menu: Menu, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", b"No such file"), (tmp_path, b"directory")):
        menu.choose(b">", b"send file: ")
        menu.answer(str(path).encode())
        menu.read_until(b"cannot send ")
        menu.read_until(why)


def test_a_local_copy_has_what_the_console_says_until_it_is_ended(
    vm: FakeVm, menu: Menu, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    for said in (b"one\xff\r\n", b"two\r\n"):
        menu.choose(b"L", b"local copy to file: ")
        menu.answer(str(path).encode())
        menu.read_until(b"L ends it]")
        vm.send(said)
        menu.read_until(b"\r\n")
        until(lambda said=said: path.read_bytes().endswith(said), "the copy has it")  # type: ignore[misc]
        menu.send(ESCAPE + b"L")
        menu.read_until(b"the local copy has ended")
        vm.send(b"between\r\n")
        menu.read_until(b"between\r\n")
    assert path.read_bytes() == b"one\xff\r\ntwo\r\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_local_copy_on_a_full_disk_ends_with_a_word_and_the_console_goes_on(
    vm: FakeVm, menu: Menu, root: Path, stack: ExitStack
) -> None:
    disk = stack.enter_context(small_disk(root / "small", "64k"))
    menu.choose(b"L", b"local copy to file: ")
    menu.answer(str(disk.path / "copy").encode())
    menu.read_until(b"L ends it]")
    vm.send(b"x" * 100000 + b"\r\n")
    menu.read_until(b"the local copy has ended")
    menu.read_until(b"No space left on device")
    vm.send(b"goes on")
    menu.read_until(b"goes on")
    menu.send(ESCAPE + b"i")
    assert b"local copy" not in menu.read_until(b"you: number")
