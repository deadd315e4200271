"""A VM's name is data: it is shown harmlessly, never a path, and may change. Labels tell ports apart."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import Dial
from tests.system.daemon import Daemon, Json
from tests.system.vm import NAME, VC_UUID, FakeVm, vmware
from tests.system.wait import until

NASTY = {
    "escape sequences": "\x1b]0;owned\x07web",
    "parent folders": "../../../../tmp/x",
    "an absolute path": "/etc/passwd",
    "nothing": "",
    "a dot": "..",
    "a line break": "web\nvspcd: master",
    "a very long name": "w" * 2000,
    "any script": "серверная-电脑-🖥",
    "spaces": "  web 01  ",
}


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


def links(daemon: Daemon) -> list[Path]:
    folder = daemon.root / "log" / "by-name"
    return sorted(folder.iterdir()) if folder.exists() else []


def has_said(count: int, console: Json) -> bool:
    return bool(console["bytes_in"] == count)


@pytest.mark.parametrize("sort", sorted(NASTY))
def test_nasty_name_makes_no_file_elsewhere(sort: str, daemon: Daemon, dial: Dial) -> None:
    vm = dial(name=NASTY[sort])
    daemon.wait_state(vm.uuid, "connected")
    until(lambda: links(daemon) or not vm.name, "the log has a name")
    for link in links(daemon):
        assert link.parent == daemon.root / "log" / "by-name"
        assert link.resolve() == daemon.log_file(vm.uuid).resolve()
    assert daemon.log_file(vm.uuid).name == f"{vm.uuid}.log"
    assert not Path("/tmp/x.log").exists()


@pytest.mark.parametrize("sort", sorted(NASTY))
def test_nasty_name_is_harmless_wherever_it_is_shown(sort: str, daemon: Daemon, dial: Dial) -> None:
    vm = dial(name=NASTY[sort])
    daemon.wait_state(vm.uuid, "connected")
    shown = [
        daemon.ctl("status").stdout,
        daemon.ctl("list").stdout,
        daemon.log(),
        processes.title(daemon.worker(vm.uuid)) + "\n",
    ]
    for text in shown:
        assert vm.uuid in text
        assert [c for c in text if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)] == []


def test_name_with_a_line_break_makes_no_line_of_its_own(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="web\nforged line")
    daemon.wait_state(vm.uuid, "connected")
    for text in (daemon.ctl("status").stdout, daemon.ctl("list").stdout, daemon.log()):
        assert [line for line in text.splitlines() if line.startswith("forged")] == []


def test_bytes_that_are_no_utf8_make_a_name_all_the_same(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.send_raw(vmware(NAME, b"web\xfe\xff\x80"))
    daemon.wait_console(vm.uuid, lambda c: c["name"] != "web01" and c["name"].startswith("web"), "is renamed")
    assert daemon.ctl("status").returncode == 0


def test_rename_shows_everywhere(daemon: Daemon, dial: Dial) -> None:
    vm = dial(name="before")
    daemon.wait_state("before", "connected")
    vm.rename("after")
    daemon.wait_state("after", "connected")
    until(lambda: [link.name for link in links(daemon)] == ["after.log"], "the link has the new name")
    pid = daemon.worker("after")
    until(lambda: processes.title(pid) == f"vspcd: after [{vm.uuid}]", "the process has the new name")


def test_rename_keeps_port_clients_and_log(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial(name="before")
    client = stack.enter_context(UnixClient(daemon.socket_path("before")))
    before = daemon.wait_clients("before", 1)
    vm.rename("after")
    vm.send(b"x")
    after = daemon.wait_clients("after", 1)
    assert client.read(1) == b"x"
    assert [after[key] for key in ("id", "port", "socket", "log")] == [
        before[key] for key in ("id", "port", "socket", "log")
    ]


def test_two_vms_of_one_name_have_consoles_of_their_own(daemon: Daemon, dial: Dial) -> None:
    first, second = dial(name="twin"), dial(name="twin")
    first.send(b"first")
    second.send(b"the second")
    for vm, count in ((first, 5), (second, 10)):
        daemon.wait_console(vm.uuid, partial(has_said, count), "is heard")
    assert daemon.ctl("console", "twin").returncode != 0
    assert len({console["port"] for console in daemon.consoles()}) == 2


def test_labelled_ports_of_one_vm_are_consoles_of_their_own(
    daemon: Daemon, dial: Dial, stack: ExitStack
) -> None:
    plain = dial(name="web01")
    gdb = dial(name="web01", uuid=plain.uuid, uri="vSPC.py?port=gdb")
    client = stack.enter_context(UnixClient(daemon.socket_path(f"{plain.uuid}.gdb")))
    daemon.wait_clients(f"{plain.uuid}.gdb", 1)
    plain.send(b"kernel panic")
    gdb.send(b"+$S05#b8")
    assert client.read(8) == b"+$S05#b8"
    client.send(b"$g#67")
    assert (gdb.read(5), bytes(plain.data)) == (b"$g#67", b"")


def test_labelled_port_is_named_by_uuid_and_label(daemon: Daemon, dial: Dial) -> None:
    vm = dial(uri="vSPC.py?port=gdb")
    console = daemon.wait_open(f"{vm.uuid}.gdb")
    run, log = daemon.root / "run", daemon.root / "log"
    assert (console["uuid"], console["label"]) == (vm.uuid, "gdb")
    assert console["socket"] == str(run / f"{vm.uuid}.gdb.sock")
    assert console["log"] == str(log / f"{vm.uuid}.gdb.log")


@pytest.mark.parametrize(
    "spelling",
    [
        b"ab cd ef 01 23 45 67 89-ab cd ef 01 23 45 67 89",
        b"abcdef01-2345-6789-abcd-ef0123456789",
        b"ABCDEF0123456789ABCDEF0123456789",
    ],
)
def test_uuid_is_understood_in_any_spelling(spelling: bytes, daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, spelling))
    daemon.wait_state("abcdef01-2345-6789-abcd-ef0123456789", "connected")


def test_wanted_vm_is_found_by_part_of_its_name(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01")
    dial(name="db01")
    found = daemon.ctl("log", "we")
    assert (found.returncode, found.stderr) == (0, "")


def test_wrong_name_gets_a_proposal(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01")
    done = daemon.ctl("console", "web1")
    assert done.returncode != 0
    assert "did you mean web01?" in done.stderr


def test_name_of_a_vm_that_leaves_at_once_is_kept(daemon: Daemon) -> None:
    with FakeVm(daemon.proxy, name="in-a-hurry") as vm:
        vm.handshake()
    daemon.wait_state("in-a-hurry", "waiting")


def test_vm_without_a_name_is_known_by_its_uuid(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy))
    for step in vm.steps()[:6]:
        vm.take_step(step)
    daemon.wait_state(vm.uuid, "connected")
