"""A worker dies, or its master does, before it is known whose VM it has: the VM is served at this very connection."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.tls_peers import TlsVm, self_signed
from tests.system.vm import (
    AUTHENTICATION,
    DO,
    DONT,
    NAME,
    UNKNOWN_2,
    VC_UUID,
    VMWARE,
    WILL,
    WILL_PROXY,
    FakeVm,
    Option,
    Sub,
    option,
    uuid_text,
    vmware,
)
from tests.system.wait import until

EARLY = b"before anybody knows\xff" * 200
ASKED = 5  # steps of the recorded order until a VM is asked who it is
LAST = 199  # a code that nobody knows: its answer says that all before it was dealt with
DEATHS = 3


@pytest.fixture
def daemon(start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch, root: Path) -> Daemon:
    """A daemon whose processes fail where a test says."""
    points = root / "points"
    points.mkdir()
    monkeypatch.setenv("VSPCD_FAILPOINTS", str(points))
    daemon = start_daemon()
    daemon.environment = {"VSPCD_FAILPOINTS": str(points)}
    return daemon


def begun(vm: FakeVm, early: bytes = EARLY) -> FakeVm:
    """It has negotiated, has said something, and has not told who it is."""
    for step in vm.steps()[:ASKED]:
        vm.take_step(step)
    vm.send(early)
    vm.send_raw(vmware(LAST))
    vm.hear_code(UNKNOWN_2, bytes([LAST]))
    return vm


def identified(daemon: Daemon, vm: FakeVm, early: bytes = EARLY) -> None:
    """It tells who it is, and is served; it was told everything once."""
    for step in vm.steps()[ASKED:]:
        vm.take_step(step)
    log = Path(daemon.wait_console(vm.console, lambda c: bool(c["name"]), "is named")["log"])
    until(lambda: log.read_bytes() == early, "what it said first is in the log")
    with TcpClient(daemon.port(vm.console)) as client:
        client.send(b"typed")
        assert vm.read(5) == b"typed"
        vm.send(b"said")
        assert client.read_until(b"said")
    subs = [token for token in vm.heard if isinstance(token, Sub) and token.option == VMWARE]
    assert len(set(subs)) == len(subs), "nothing was said to it twice"


def negotiator(daemon: Daemon) -> int:
    """The process that negotiates."""
    found = [pid for pid, title in daemon.titles().items() if "negotiating" in title]
    assert len(found) == 1, daemon.titles()
    return found[0]


def replaced(daemon: Daemon, pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)
    until(lambda: processes.session_of(pid) is None, "it is dead")
    until(
        lambda: [True for title in daemon.titles().values() if "negotiating" in title], "another one goes on"
    )


@pytest.mark.parametrize("early", [b"", b"a few bytes\xff", EARLY])
def test_a_vm_is_served_at_the_same_connection_whatever_dies(
    daemon: Daemon, stack: ExitStack, early: bytes
) -> None:
    vm = begun(stack.enter_context(FakeVm(daemon.proxy)), early)
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM):
        replaced(daemon, negotiator(daemon), number)
    identified(daemon, vm, early)
    assert daemon.refused() == []
    assert daemon.status()["totals"]["pending"] == 0


def test_a_vm_over_tls_too(start_daemon: StartDaemon, stack: ExitStack, tmp_path: Path) -> None:
    daemon = start_daemon(*self_signed(tmp_path, "vspc").settings)
    vm = begun(stack.enter_context(TlsVm(daemon.proxy)))
    replaced(daemon, negotiator(daemon))
    identified(daemon, vm)


def test_what_was_said_unasked_is_not_said_again(daemon: Daemon, stack: ExitStack) -> None:
    """A VM that is silent is asked after a second, and a worker dies then."""
    vm = stack.enter_context(FakeVm(daemon.proxy))
    vm.hear(Option(DO, VMWARE))
    replaced(daemon, negotiator(daemon))
    asked = list(vm.heard)
    vm.send_raw(option(WILL, AUTHENTICATION))
    vm.hear(Option(DONT, AUTHENTICATION))
    assert vm.heard == [*asked, Option(DONT, AUTHENTICATION)]
    vm.heard.clear()
    vm.send_raw(option(WILL, VMWARE) + b"".join(step.says for step in vm.steps()[4:]))
    vm.hear_code(WILL_PROXY)
    assert Option(DO, VMWARE) not in vm.heard


def test_a_worker_that_is_stopped_is_replaced(daemon: Daemon, stack: ExitStack) -> None:
    vm = begun(stack.enter_context(FakeVm(daemon.proxy)))
    os.kill(negotiator(daemon), signal.SIGSTOP)
    identified(daemon, vm)
    daemon.wait_log("worker-killed", "hung")


def test_a_master_dies_and_then_the_worker_that_the_next_one_has_adopted(
    daemon: Daemon, stack: ExitStack
) -> None:
    vm = begun(stack.enter_context(FakeVm(daemon.proxy)))
    pid = negotiator(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    assert negotiator(daemon) == pid
    assert daemon.status()["totals"]["pending"] == 1
    replaced(daemon, pid)
    identified(daemon, vm)


def test_another_version_knows_what_was_negotiated(daemon: Daemon, stack: ExitStack) -> None:
    vm = begun(stack.enter_context(FakeVm(daemon.proxy)))
    done = daemon.ctl("upgrade", timeout=90)
    assert done.returncode == 0, done.stderr
    replaced(daemon, negotiator(daemon))
    identified(daemon, vm)


def test_what_kills_one_after_the_other_is_in_a_file_that_status_names(daemon: Daemon) -> None:
    vm = FakeVm(daemon.proxy)
    point = daemon.arm("leg.peeked", f"segfault {DEATHS}")
    said = option(WILL, VMWARE) + b"what no parser stands"
    vm.send_raw(said)
    vm.wait_closed()
    assert not point.exists(), "the workers have died"
    reason = daemon.wait_refusal("put aside")["reason"]
    (kept,) = (daemon.root / "log").glob("unidentified.quarantine.*")
    assert str(kept) in reason
    assert kept.read_bytes() == said
    assert str(kept) in daemon.ctl("status").stdout.replace("\n", "").replace(" ", "")
    assert daemon.status()["totals"]["pending"] == 0
    vm.close()
    identified(daemon, begun(FakeVm(daemon.proxy)))


def test_console_bytes_that_the_kernel_has_forgotten_are_put_aside_too(daemon: Daemon) -> None:
    vm = begun(FakeVm(daemon.proxy))
    daemon.arm("leg.peeked", f"segfault {DEATHS}")
    vm.send(b"the last drop")
    vm.wait_closed()
    daemon.wait_refusal("put aside")
    (kept,) = (daemon.root / "log").glob("unidentified.quarantine.*")
    assert kept.read_bytes().startswith(EARLY)
    assert kept.read_bytes().endswith(b"the last drop")
    vm.close()


def test_a_vm_may_say_its_name_behind_a_death(daemon: Daemon, stack: ExitStack) -> None:
    """What a dead worker had asked for is not asked for again, and its answer is understood."""
    vm = begun(stack.enter_context(FakeVm(daemon.proxy, name="first")), b"")
    replaced(daemon, negotiator(daemon))
    vm.send_raw(vmware(NAME, b"second"))
    replaced(daemon, negotiator(daemon))
    vm.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))
    daemon.wait_console(vm.console, lambda c: c["name"] == "second", "has its name")
