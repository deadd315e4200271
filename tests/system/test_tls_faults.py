"""Encrypted VMs that vanish, that somebody else claims to be, that move, and that lose their TLS helper."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon, Json
from tests.system.payload import numbered
from tests.system.simulator import Simulator
from tests.system.tls_peers import (
    Pair,
    TlsVm,
    dialled,
    events,
    self_signed,
    silent_ones,
    tls_helpers,
    vanish,
)
from tests.system.vm import VC_UUID, FakeVm, Sub, uuid_text, vmware
from tests.system.wait import Deadline, throughout, until

TAKEN_OVER_WITHIN = 6.0
"""Two seconds of grace for the old host, and what a busy machine adds."""

CLIENT_HELLO = b"\x16\x03\x01"  # and no more
HOME, ELSEWHERE = "127.0.0.1", "127.0.0.2"
KINDS = pytest.mark.parametrize("old", [FakeVm, TlsVm]), pytest.mark.parametrize("new", [FakeVm, TlsVm])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc")


@pytest.fixture
def daemon(start_daemon: StartDaemon, pair: Pair) -> Daemon:
    return start_daemon(*pair.settings)


def claim(vm: FakeVm) -> FakeVm:
    """Takes a VM up to the word that says who it is, and says it."""
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))
    return vm


def attached(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> UnixClient:
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 1)
    return client


# Somebody else


@KINDS[0]
@KINDS[1]
def test_an_impostor_is_refused_while_the_vm_answers(
    old: type[FakeVm], new: type[FakeVm], daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(dialled(daemon, old(daemon.proxy)))
    client = attached(daemon, vm, stack)
    impostor = claim(stack.enter_context(new(daemon.proxy, uuid=vm.uuid, source=ELSEWHERE)))
    impostor.wait_closed()
    refusal = daemon.wait_refusal(vm.name)
    assert refusal["peer"] == impostor.address
    assert [host for host in (HOME, ELSEWHERE) if host not in refusal["reason"]] == []
    client.send(b"password")
    assert vm.read(8) == b"password"
    assert bytes(impostor.data) == b""


@KINDS[0]
@KINDS[1]
def test_a_vm_that_vanished_is_taken_over_from_another_host(
    old: type[FakeVm], new: type[FakeVm], daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(dialled(daemon, old(daemon.proxy)))
    client = attached(daemon, vm, stack)
    vanish(vm)
    began = time.monotonic()
    back = stack.enter_context(dialled(daemon, new(daemon.proxy, uuid=vm.uuid, source=ELSEWHERE)))
    assert time.monotonic() - began < TAKEN_OVER_WITHIN
    assert daemon.console(vm.name)["peer"] == back.address
    back.send(b"I am back")
    client.read_until(b"I am back")
    client.send(b"welcome")
    assert back.read(7) == b"welcome"


def test_a_vm_that_does_not_read_is_not_taken_for_vanished(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    client = attached(daemon, vm, stack)
    stuff(client)
    impostor = claim(stack.enter_context(TlsVm(daemon.proxy, uuid=vm.uuid, source=ELSEWHERE)))
    impostor.wait_closed()
    daemon.wait_refusal(vm.name)
    assert daemon.console(vm.name)["peer"] == vm.address


def stuff(client: UnixClient) -> None:
    """Types until nobody takes any more."""
    client.socket.settimeout(1)
    try:
        while True:
            client.socket.send(b"x" * 65536)
    except TimeoutError:
        pass


@KINDS[0]
@KINDS[1]
def test_a_vm_that_dials_again_from_its_host_takes_over_at_once(
    old: type[FakeVm], new: type[FakeVm], daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(dialled(daemon, old(daemon.proxy)))
    vm.send(b"last words; ")
    back = stack.enter_context(dialled(daemon, new(daemon.proxy, uuid=vm.uuid)))
    vm.wait_closed()
    back.send(b"first words")
    until(lambda: b"first words" in daemon.log_file(vm.name).read_bytes(), "the log has the new connection")
    assert daemon.log_file(vm.name).read_bytes() == b"last words; first words"


def test_a_simulated_host_vanishes_and_its_vm_starts_elsewhere(daemon: Daemon, stack: ExitStack) -> None:
    stack.enter_context(Simulator(daemon, "web01", "--tls", "--echo", "--vanish-after", "0"))
    client = stack.enter_context(UnixClient(daemon.socket_path("web01")))
    options = ["--tls", "--echo", "--clone-of", "web01", "--source", ELSEWHERE]
    stack.enter_context(Simulator(daemon, "web01", *options))
    daemon.wait_console("web01", lambda c: ELSEWHERE in (c["peer"] or ""), "is elsewhere")
    client.send(b"who is there?")
    client.read_until(b"who is there?")


def test_a_simulated_impostor_hears_nothing_however_it_tries(daemon: Daemon, stack: ExitStack) -> None:
    stack.enter_context(Simulator(daemon, "web01", "--tls", "--echo"))
    client = stack.enter_context(UnixClient(daemon.socket_path("web01")))
    host, port = daemon.proxy
    options = ["--tls", "--clone-of", "web01", "--source", ELSEWHERE, "--impostor", "--once"]
    for _ in range(2):
        done = daemon.ctl("simulate", "--proxy", f"{host}:{port}", *options)
        assert done.returncode == 0, done.stdout
        client.send(b"password")
        client.read_until(b"password")
    assert daemon.console("web01")["peer"].startswith(HOME)


@pytest.mark.long
def test_a_vanished_host_is_noticed_within_a_minute(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    vanish(vm)

    def gone() -> bool:
        return bool(daemon.console(vm.name)["state"] == "waiting")

    until(gone, "the host is given up", 75)


# The helper


def connected(daemon: Daemon) -> list[Json]:
    return [console for console in daemon.consoles() if console["state"] == "connected"]


def test_vms_come_back_after_the_death_of_their_tls_helper(daemon: Daemon, stack: ExitStack) -> None:
    stack.enter_context(Simulator(daemon, "plain", "--echo"))
    stack.enter_context(Simulator(daemon, "web1", "--name", "web%d", "--vms", "5", "--tls", "--echo"))
    until(lambda: len(connected(daemon)) == 6, "all are connected")
    client = stack.enter_context(UnixClient(daemon.socket_path("web3")))
    plain_peer = daemon.console("plain")["peer"]
    before = {console["id"]: console["peer"] for console in connected(daemon)}
    (helper,) = tls_helpers(daemon)

    processes.kill(helper)

    def back() -> bool:
        now = {console["id"]: console["peer"] for console in connected(daemon)}
        return len(now) == 6 and sum(now[id] != before[id] for id in now) == 5

    until(back, "the encrypted ones are connected anew, the plain one is not touched")
    assert daemon.console("plain")["peer"] == plain_peer
    assert helper not in tls_helpers(daemon)
    client.send(b"hello again")
    client.read_until(b"hello again")


def test_helpers_that_a_storm_needed_go_when_it_is_over(
    start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "proxy.handshake_timeout=60s")
    with ExitStack() as storm:
        silent_ones(daemon.proxy, CLIENT_HELLO, 150, storm)
        until(lambda: daemon.status()["totals"]["pending"] == 150, "all are being waited for")
        until(lambda: len(tls_helpers(daemon)) == 3, "there is a helper for every 64 of them")
    until(lambda: len(tls_helpers(daemon)) == 1, "one is left")
    assert "tls-helper-died" not in daemon.log()
    vm = stack.enter_context(dialled(daemon, TlsVm(daemon.proxy)))
    daemon.wait_state(vm.name, "connected")


def test_the_death_of_a_tls_helper_is_in_the_logs(daemon: Daemon, stack: ExitStack) -> None:
    stack.enter_context(Simulator(daemon, "web01", "--tls", "--echo"))
    (helper,) = tls_helpers(daemon)
    processes.kill(helper)
    daemon.wait_log("tls-helper-died", "connections=1")
    until(lambda: len(of_kind(daemon, "connected")) == 2, "the index has both connections")
    (mark,) = of_kind(daemon, "disconnected")
    assert "TLS" in mark


def of_kind(daemon: Daemon, word: str) -> list[str]:
    return [line for line in events(daemon, "web01") if line.split()[2] == word]


def test_a_handshake_that_dies_with_its_helper_is_not_waited_for(
    start_daemon: StartDaemon, pair: Pair, stack: ExitStack
) -> None:
    daemon = start_daemon(*pair.settings, "proxy.handshake_timeout=60s")
    silent = stack.enter_context(FakeVm(daemon.proxy))
    silent.send_raw(b"\x16\x03\x01")
    until(lambda: daemon.status()["totals"]["pending"] == 1, "it is being waited for")
    until(
        lambda: any("socket:" in f for f in processes.open_files(tls_helpers(daemon)[0]).values()),
        "it has it",
    )
    (helper,) = tls_helpers(daemon)
    assert throughout(lambda: not silent.closed, 0.2)
    processes.kill(helper)
    silent.wait_closed()
    until(lambda: daemon.status()["totals"]["pending"] == 0, "nobody is waited for")


# vMotion

GOOD = "normal,source-closes-early,crossing,begin-twice,abort,abort-at-once,stranger,replay"
HOSTS = "127.0.0.2,127.0.0.3,127.0.0.4"
MOVES, LINES = 8, 64
BEGIN, GOAHEAD, PEER, PEER_OK, COMPLETE = 40, 41, 44, 45, 46
SEQUENCE = b"seq\xff"


def test_a_vm_moves_over_tls_with_typing_under_way_and_nothing_is_lost(
    daemon: Daemon, stack: ExitStack
) -> None:
    moving = ["--tls", "--echo", "--vmotion-every", "0.15", "--vmotion", GOOD, "--hosts", HOSTS]
    with Simulator(daemon, "web01", *moving) as simulator:
        client = stack.enter_context(UnixClient(daemon.socket_path("web01")))
        daemon.wait_clients("web01", 1)
        typed = type_until(client, lambda: len(daemon.console("web01")["moves"]) >= MOVES)
    assert simulator.process.returncode == 0, tally(simulator.output)
    assert daemon.log_file("web01").read_bytes() == typed
    assert "would lose" not in tally(simulator.output)


def type_until(client: UnixClient, enough: Callable[[], bool]) -> bytes:
    """Types numbered lines to an echo and compares what comes back; all that was typed."""
    deadline, typed = Deadline("enough was typed"), b""
    while not enough():
        assert deadline.left()
        lines = numbered(len(typed) // 64, LINES)
        client.send(lines)
        assert client.read(len(lines)) == lines
        typed += lines
    return typed


def tally(output: Path) -> str:
    return output.read_text()


def test_a_vm_moves_from_plain_to_tls_by_its_pair(daemon: Daemon, stack: ExitStack) -> None:
    """A host may be set up for telnets:// while its VMs are still on the old one."""
    source = stack.enter_context(dialled(daemon, FakeVm(daemon.proxy)))
    client = attached(daemon, source, stack)
    source.send_raw(vmware(BEGIN, SEQUENCE))
    source.until(lambda: GOAHEAD in source.vmware_codes(), "GOAHEAD")
    pair = next(
        said.payload[1:] for said in source.heard if isinstance(said, Sub) and said.payload[0] == GOAHEAD
    )
    client.send(b"held; ")
    target = stack.enter_context(TlsVm(daemon.proxy, uuid=source.uuid, source=ELSEWHERE))
    for step in target.steps()[:4]:
        target.take_step(step)
    target.send_raw(vmware(PEER, pair))
    target.hear_code(PEER_OK, SEQUENCE)
    source.send(b"said by the source; ")
    source.close()
    target.send_raw(vmware(COMPLETE, SEQUENCE))
    target.send(b"said by the target")
    assert client.read(38) == b"said by the source; said by the target"
    assert target.read(6) == b"held; "
    assert daemon.wait_state(source.name, "connected")["tls"]
