"""VMs behind load balancers that tell where each connection really comes from, a real HAProxy among them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Address, Daemon
from tests.system.lending import Lender
from tests.system.payload import all_bytes
from tests.system.tls_peers import (
    LOCAL_1,
    LOCAL_2,
    BalancedVm,
    Haproxy,
    Pair,
    TlsVm,
    dial_raw,
    dialled,
    hung_up,
    self_signed,
    silent_ones,
    version_1,
    version_2,
)
from tests.system.vm import VC_UUID, FakeVm, uuid_text, vmware
from tests.system.wait import PAUSE, throughout, until

BALANCER = "127.0.0.50"
LISTED = f"proxy.balancers=[{BALANCER}/32]"
HOST: Address = ("10.1.2.3", 4711)
OTHER_HOST: Address = ("10.2.2.2", 815)
TARGET: Address = ("10.9.9.9", 13370)
IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 13370\r\n"
EXTRA = b"\x03\x00\x04abcd" + b"\xee\x00\x02\xff\xff"  # TLVs, one of a type that nobody knows

HEADERS = [version_1(HOST, TARGET), version_2(HOST, TARGET), version_2(HOST, TARGET, EXTRA)]
VERSIONS = [version_1, version_2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc")


@pytest.fixture
def daemon(start_daemon: StartDaemon, pair: Pair) -> Daemon:
    return start_daemon(LISTED, *pair.settings)


@pytest.fixture
def used(lender: Lender, pair: Pair) -> Daemon:
    """The same, for tests that ask nothing of who was refused."""
    return lender.lend(LISTED, *pair.settings)


def claim(vm: FakeVm) -> FakeVm:
    """Takes a VM up to the word that says who it is, and says it."""
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))
    return vm


def balanced(daemon: Daemon, header: bytes, kind: type[BalancedVm] = BalancedVm, **what: str) -> BalancedVm:
    return kind(daemon.proxy, header=header, source=BALANCER, **what)


def idle(daemon: Daemon) -> bool:
    """Nobody is being negotiated with."""
    totals = daemon.status()["totals"]
    return bool(totals["pending"] == 0 and totals["workers"] == totals["consoles"])


# The real host


@pytest.mark.parametrize("kind", [BalancedVm, TlsVm])
@pytest.mark.parametrize("header", HEADERS)
def test_status_and_log_name_the_real_host(
    header: bytes, kind: type[BalancedVm], used: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(dialled(used, balanced(used, header, kind)))
    assert used.console(vm.name)["peer"] == "10.1.2.3:4711"
    used.wait_log("vm-connected", "peer=10.1.2.3:4711")


def test_a_host_of_ipv6_is_named(used: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(used, balanced(used, IPV6)))
    assert used.console(vm.name)["peer"] == "[2001:db8::7]:4711"


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_comes_byte_by_byte_is_read(header: bytes, used: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(balanced(used, b""))
    for at in range(len(header)):
        vm.send_raw(header[at : at + 1])
        time.sleep(PAUSE / 10)
    dialled(used, vm)
    assert used.console(vm.name)["peer"] == "10.1.2.3:4711"


@pytest.mark.parametrize("kind", [BalancedVm, TlsVm])
def test_bytes_behind_a_header_are_exact(kind: type[BalancedVm], used: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(used, balanced(used, HEADERS[1], kind)))
    client = stack.enter_context(UnixClient(used.socket_path(vm.name)))
    used.wait_clients(vm.name, 1)
    said, typed = all_bytes(1), all_bytes(2)
    vm.send(said)
    assert client.read(len(said)) == said
    client.send(typed)
    assert vm.read(len(typed)) == typed


# The rules apply to it


@pytest.mark.parametrize("version", VERSIONS)
def test_the_allow_list_is_applied_to_the_real_host(
    version: Callable[[Address, Address], bytes], start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(LISTED, "proxy.allow=[10.1.0.0/16]")
    vm = stack.enter_context(dialled(daemon, balanced(daemon, version(HOST, TARGET))))
    stranger = stack.enter_context(balanced(daemon, version(OTHER_HOST, TARGET)))
    stranger.wait_closed()
    assert daemon.wait_refusal("proxy.allow")["peer"] == "10.2.2.2:815"
    assert [console["name"] for console in daemon.consoles()] == [vm.name]
    until(lambda: daemon.status()["totals"]["workers"] == 1, "its worker has ended")
    assert "worker-killed" not in daemon.log()


def test_an_allowed_balancer_does_not_vouch_for_its_hosts(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(LISTED, f"proxy.allow=[{BALANCER}/32]")
    vm = stack.enter_context(balanced(daemon, HEADERS[0]))
    vm.wait_closed()
    assert daemon.wait_refusal("proxy.allow")["peer"] == "10.1.2.3:4711"


def test_an_impostor_behind_the_same_balancer_is_another_host(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(dialled(daemon, balanced(daemon, version_2(HOST, TARGET))))
    impostor = claim(stack.enter_context(balanced(daemon, version_2(OTHER_HOST, TARGET), uuid=vm.uuid)))
    impostor.wait_closed()
    reason = daemon.wait_refusal(vm.name)["reason"]
    assert [host for host in (HOST[0], OTHER_HOST[0]) if host not in reason] == []
    assert daemon.console(vm.name)["peer"] == "10.1.2.3:4711"


def test_a_vm_that_dials_again_through_another_balancer_takes_over(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("proxy.balancers=[127.0.0.48/29]")
    vm = stack.enter_context(dialled(daemon, balanced(daemon, version_2(HOST, TARGET))))
    header = version_2((HOST[0], 999), TARGET)
    back = BalancedVm(daemon.proxy, header=header, source="127.0.0.51", uuid=vm.uuid)
    stack.enter_context(dialled(daemon, back))
    vm.wait_closed()
    assert daemon.console(vm.name)["peer"] == "10.1.2.3:999"


def test_pending_vms_are_counted_by_their_real_host(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(LISTED, "proxy.max_pending_per_source=5", "proxy.handshake_timeout=60s")
    headers = {f"10.1.2.3:{port}": version_1((HOST[0], port), TARGET) for port in range(2000, 2006)}
    vms = {
        peer: stack.enter_context(balanced(daemon, header + b"\xff\xfb\x25"))
        for peer, header in headers.items()
    }
    # Their workers say where they come from in any order; one of them is the sixth.
    refused = daemon.wait_refusal("proxy.max_pending_per_source")["peer"]
    vms[refused].wait_closed()
    until(lambda: daemon.status()["totals"]["pending"] == 5, "five are being waited for")
    stack.enter_context(dialled(daemon, balanced(daemon, version_1(OTHER_HOST, TARGET))))


# Those who must not speak for others


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_somebody_unlisted_is_refused_under_his_own_address(
    header: bytes, daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(BalancedVm(daemon.proxy, header=header))
    vm.wait_closed()
    until(daemon.refused, "it is remembered")
    assert [refusal["peer"] for refusal in daemon.refused()] == [vm.address]
    assert "10.1.2.3" not in daemon.log()
    assert daemon.consoles() == []


def test_a_balancer_that_sends_no_header_is_refused_with_the_reason(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(balanced(daemon, b"\xff\xfb\x25"))
    vm.wait_closed()
    daemon.wait_refusal("without a PROXY protocol header")


def test_a_second_header_speaks_for_nobody(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(balanced(daemon, HEADERS[0] + version_1(OTHER_HOST, TARGET)))
    vm.wait_closed()
    until(daemon.refused, "it is remembered")
    assert [refusal["peer"] for refusal in daemon.refused()] == ["10.1.2.3:4711"]


MALFORMED = [
    b"PROXY TCP4 10.1.2.3\r\n",
    b"PROXY TCP4 300.1.2.3 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 10.1.2.3 10.0.0.1 1 99999\r\n",
    b"PROXY TCP4 " + b"1" * 200,
    version_2(HOST, TARGET)[:12] + b"\x31" + version_2(HOST, TARGET)[13:],
    version_2(HOST, TARGET)[:14] + b"\xff\xff" + b"x" * 6000,
    version_2(HOST, TARGET)[:14] + b"\x00\x04abcd",
]


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_header_is_refused_with_the_reason(
    header: bytes, daemon: Daemon, stack: ExitStack
) -> None:
    vm = stack.enter_context(balanced(daemon, header))
    vm.wait_closed()
    assert daemon.wait_refusal("PROXY header")["peer"] == vm.address


def test_half_a_header_is_not_waited_for_for_ever(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(LISTED, "proxy.handshake_timeout=1s")
    vm = stack.enter_context(balanced(daemon, HEADERS[1][:20]))
    vm.wait_closed()
    assert daemon.wait_refusal("1 s")["peer"] == vm.address


def test_silent_balancers_hold_up_nobody(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.balancers=[127.0.0.0/8]", "proxy.handshake_timeout=60s")
    silent_ones(daemon.proxy, HEADERS[1][:20], 20, stack)
    until(lambda: daemon.status()["totals"]["pending"] == 20, "all are being waited for")
    began = time.monotonic()
    stack.enter_context(dialled(daemon, balanced(daemon, HEADERS[1])))
    assert time.monotonic() - began < 5


def test_balancers_can_be_listed_while_the_daemon_runs(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    config = root / "vspcd.yaml"
    config.write_text("proxy:\n  balancers: []\n")
    daemon = start_daemon(config=config)
    config.write_text(f"proxy:\n  balancers: [{BALANCER}/32]\n")
    assert daemon.ctl("reload").returncode == 0
    vm = stack.enter_context(dialled(daemon, balanced(daemon, HEADERS[1])))
    assert daemon.console(vm.name)["peer"] == "10.1.2.3:4711"


# Health checks


@pytest.mark.parametrize("words", [b"", LOCAL_1, LOCAL_2, b"PROXY UNKNOWN 1 2 3 4\r\n"])
@pytest.mark.parametrize("half", [True, False])
def test_a_health_check_is_recorded_nowhere(words: bytes, half: bool, daemon: Daemon) -> None:
    for _ in range(3):
        with dial_raw(daemon.proxy, words, BALANCER) as check:
            if half:
                check.shutdown(1)
                hung_up(check)
    until(lambda: idle(daemon), "they have been dealt with")
    assert throughout(lambda: daemon.refused() == [], 0.3)
    assert "refused" not in daemon.log()


# HAProxy


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("kind", [BalancedVm, TlsVm])
def test_haproxy_passes_vms_on_and_their_hosts_are_known(
    words: str, kind: type[BalancedVm], used: Daemon, stack: ExitStack
) -> None:
    haproxy = stack.enter_context(Haproxy(used, BALANCER, words))
    vm = stack.enter_context(dialled(used, kind(haproxy.address, source="127.0.0.7")))
    assert used.console(vm.name)["peer"] == vm.address
    client = stack.enter_context(UnixClient(used.socket_path(vm.name)))
    used.wait_clients(vm.name, 1)
    said, typed = all_bytes(1), all_bytes(2)
    vm.send(said)
    assert client.read(len(said)) == said
    client.send(typed)
    assert vm.read(len(typed)) == typed


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_haproxy_s_health_checks_are_recorded_nowhere(
    words: str, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(LISTED, "log_level=debug")
    stack.enter_context(Haproxy(daemon, BALANCER, words))
    until(lambda: daemon.log().count(f"vm-dialled peer={BALANCER}:") >= 5, "it has looked a few times")
    assert daemon.refused() == []
    assert "refused" not in daemon.log()


def test_an_impostor_through_haproxy_is_refused(daemon: Daemon, stack: ExitStack) -> None:
    haproxy = stack.enter_context(Haproxy(daemon, BALANCER, "send-proxy-v2"))
    vm = stack.enter_context(dialled(daemon, FakeVm(haproxy.address, source="127.0.0.7")))
    impostor = claim(stack.enter_context(FakeVm(haproxy.address, source="127.0.0.8", uuid=vm.uuid)))
    impostor.wait_closed()
    assert "127.0.0.8" in daemon.wait_refusal(vm.name)["reason"]


def test_a_vm_that_ends_behind_haproxy_is_gone(used: Daemon, stack: ExitStack) -> None:
    haproxy = stack.enter_context(Haproxy(used, BALANCER, "send-proxy-v2"))
    vm = stack.enter_context(dialled(used, TlsVm(haproxy.address, source="127.0.0.7")))
    vm.send(b"last words")
    vm.close()
    used.wait_state(vm.name, "waiting")
    assert used.log_file(vm.name).read_bytes() == b"last words"
