"""Whose console it is: VMs that dial again, hosts that vanish, clones and impostors, blank and changing identities."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.system.clients import PtyClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import VSPCCTL, VSPCD, Daemon, as_options
from tests.system.test_vmotion_record import index
from tests.system.vanishing import Namespace, deafen, dial_inside
from tests.system.vm import (
    BIOS_UUID,
    GET_BIOS_UUID,
    GET_LOCATION_UUID,
    LOCATION_UUID,
    VC_UUID,
    WILL_PROXY,
    WONT_PROXY,
    FakeVm,
    uuid_text,
    vmware,
)
from tests.system.vmotion_vm import HERE, THERE, MovingVm, Scene
from tests.system.wait import until

BLANK = "00000000-0000-0000-0000-000000000000"
BIOS = "42100000-1111-2222-3333-444444444444"
LOCATION = "56400000-1111-2222-3333-444444444444"
REPLACED_WITHIN = 3.0


@pytest.fixture
def scene(daemon: Daemon, stack: ExitStack) -> Scene:
    return Scene(daemon, stack)


def claim(vm: FakeVm) -> None:
    """Up to the word that says who it is; what comes of it is not waited for."""
    for step in vm.steps()[:5]:
        vm.take_step(step)
    vm.send_raw(vmware(VC_UUID, uuid_text(vm.uuid)))


def asked(stack: ExitStack, daemon: Daemon, **what: str) -> FakeVm:
    """A VM that was asked who it is and has not answered."""
    vm = stack.enter_context(FakeVm(daemon.proxy, **what))
    for step in vm.steps()[:5]:
        vm.take_step(step)
    return vm


def answered(vm: FakeVm) -> bool:
    return bool({WILL_PROXY, WONT_PROXY} & set(vm.vmware_codes()))


# Another host


def test_attack_second_connection_with_a_live_vms_uuid(scene: Scene, stack: ExitStack) -> None:
    """The operator typed a password to the impostor: now it is refused, and both are named wherever people look."""
    daemon = scene.daemon
    terminal = stack.enter_context(PtyClient([VSPCCTL, "--root", str(daemon.root), "console", "web01"]))
    daemon.wait_clients("web01", 3)
    scene.turns()
    impostor = scene.dial(THERE)
    claim(impostor)
    scene.until(lambda: impostor.closed, "the impostor is hung up on")
    scene.turns()
    scene.check()
    assert impostor.data + impostor.late == b""
    assert WONT_PROXY in impostor.vmware_codes()
    assert WILL_PROXY not in impostor.vmware_codes()

    def names_both(text: str) -> bool:
        return HERE in text and THERE in text

    refusal = daemon.wait_refusal("web01")
    assert names_both(refusal["reason"])
    assert refusal["peer"] == impostor.address
    assert names_both(daemon.wait_log("vm-refused", THERE, HERE))
    assert names_both(str(index(scene, "refused")))
    assert any(names_both(text.decode()) for text in scene.notices())
    told = terminal.read_until(b"impostor").decode(errors="replace")
    assert names_both(told.replace("\r\n", ""))


def test_impostors_that_keep_coming_change_nothing(scene: Scene) -> None:
    for _ in range(5):
        impostor = scene.dial(THERE)
        claim(impostor)
        scene.until(lambda impostor=impostor: impostor.closed, "it is hung up on")  # type: ignore[misc]
    scene.check()
    assert scene.daemon.console("web01")["peer"] == scene.vms[0].address


def test_vm_whose_guest_does_not_read_is_still_there(scene: Scene) -> None:
    """Its host's kernel answers for it, however full its buffers are."""
    vm = scene.guest
    assert vm is not None
    vm.deaf = scene.quiet = True
    scene.fill()
    impostor = scene.dial(THERE)
    claim(impostor)
    scene.until(lambda: impostor.closed, "the impostor is hung up on")
    vm.deaf = scene.quiet = False
    scene.check()


# The same host


def test_vm_that_dials_again_from_its_host_keeps_clients_and_stream(scene: Scene) -> None:
    for _ in range(3):
        old = scene.guest
        assert old is not None
        scene.turns()
        # The host knows what it has given to its VM: typing rests while it dials again.
        scene.quiet = scene.mute = True
        scene.until(lambda: len(scene.heard()) == len(scene.typed), "typing has arrived")
        again = scene.dial(HERE)
        again.handshake()
        scene.until(lambda old=old: old.closed, "the old connection is hung up on")  # type: ignore[misc]
        scene.guest = again
        scene.quiet = scene.mute = False
    scene.check()
    assert len(scene.daemon.console("web01")["clients"]) == 2


def test_two_unlabelled_ports_of_one_vm_are_noticed_with_the_advice(scene: Scene) -> None:
    """Each takes the console from the other, until it is clear that this is no VM that dials again."""
    ports = [scene.vms[0]]
    scene.quiet = scene.mute = True
    for _ in range(6):
        port = scene.dial(HERE)
        claim(port)
        ports.append(port)
        scene.until(lambda port=port: answered(port), "it is answered")  # type: ignore[misc]
    refused = [port for port in ports if WONT_PROXY in port.vmware_codes()]
    assert refused
    reason = scene.daemon.wait_refusal("vSPC.py?port=")["reason"]
    assert HERE in reason
    scene.daemon.wait_log("vm-refused", "vSPC.py?port=")
    scene.until(lambda: any(b"vSPC.py?port=" in text for text in scene.notices()), "people are told")
    scene.until(lambda: [port.closed for port in ports].count(False) == 1, "one is served")


def test_labelled_ports_of_one_vm_do_not_get_in_each_others_way(daemon: Daemon, stack: ExitStack) -> None:
    first = stack.enter_context(daemon.dial(uri="vSPC.py?port=serial1"))
    ports = [first] + [
        stack.enter_context(daemon.dial(uuid=first.uuid, uri=f"vSPC.py?port=serial{number}"))
        for number in range(2, 8)
    ]
    for port in ports:
        daemon.wait_state(port.console, "connected")
    assert daemon.refused() == []


# Hosts that vanish


def replaced(scene: Scene, vanish: Callable[[], None]) -> None:
    """The old host vanishes, the VM is started on another one: it is served within three seconds, and clients stay."""
    scene.turns()
    scene.quiet = scene.mute = True
    scene.until(lambda: len(scene.heard()) == len(scene.typed), "typing has arrived")
    old = scene.guest
    assert old is not None
    old.deaf = True
    vanish()
    again = scene.dial(THERE)
    begun = time.monotonic()
    claim(again)
    scene.until(lambda: WILL_PROXY in again.vmware_codes(), "the VM is served")
    took = time.monotonic() - begun
    scene.daemon.wait_console("web01", lambda c: bool(c["peer"] == again.address), "is at its new host")
    scene.guest = again
    scene.quiet = scene.mute = False
    scene.check()
    assert took < REPLACED_WITHIN
    assert len(scene.daemon.console("web01")["clients"]) == 2


def test_attack_reconnect_while_the_old_connection_is_half_open(scene: Scene) -> None:
    """The new one was closed: now it takes over within three seconds, and clients stay."""
    vm = scene.vms[0]
    replaced(scene, lambda: deafen(vm.socket))


def test_vanished_host_is_replaced_however_much_was_typed_to_it(scene: Scene) -> None:
    """Bytes that its host never acknowledged are no sign of life. What it did not take in is lost with it."""
    vm = scene.vms[0]
    scene.mute = scene.quiet = True
    vm.deaf = True
    deafen(vm.socket)
    scene.typist.send(b"into the void")
    again = scene.dial(THERE)
    begun = time.monotonic()
    claim(again)
    scene.until(lambda: WILL_PROXY in again.vmware_codes(), "the VM is served")
    assert time.monotonic() - begun < REPLACED_WITHIN
    scene.typist.send(b"hello")
    scene.until(lambda: again.data.endswith(b"hello"), "typing goes on")


class OpenDaemon(Daemon):
    """Not below a root, where nothing but loopback is listened on: this one can be reached from a namespace."""

    def command(self) -> list[str]:
        folders = [f"dirs.{name}={self.root / name}" for name in ("run", "state", "log")]
        for name in ("run", "state", "log"):
            (self.root / name).mkdir(exist_ok=True)
        return [VSPCD, *as_options((*self.settings, *folders))]


def networks() -> list[Callable[[int], Namespace]]:
    """For root alone: nobody else can make one."""
    return [Namespace] if os.geteuid() == 0 else []


@pytest.mark.parametrize("network", networks())
def test_host_on_a_network_that_vanishes_is_replaced(
    network: Callable[[int], Namespace], root: Path, stack: ExitStack
) -> None:
    host = network(1)
    stack.callback(host.remove)
    host.make()
    daemon = OpenDaemon(root, f"proxy.listen=[{host.near}:0]", "log.dir=.")
    stack.callback(daemon.clean_up)
    daemon.start()
    old = stack.enter_context(dial_inside(host, daemon.proxy[1], name="web01"))
    old.handshake()
    daemon.wait_open("web01")
    client = stack.enter_context(UnixClient(daemon.socket_path("web01")))
    daemon.wait_clients("web01", 1)
    client.send(b"before")
    old.until(lambda: old.data == b"before", "typing arrives")
    host.vanish()
    again = stack.enter_context(MovingVm(daemon.proxy, name="web01", uuid=old.uuid, source=host.near))
    begun = time.monotonic()
    claim(again)
    again.until(lambda: WILL_PROXY in again.vmware_codes(), "the VM is served")
    assert time.monotonic() - begun < REPLACED_WITHIN
    client.send(b"after")
    again.until(lambda: again.data == b"after", "typing goes on")
    again.send(b"hello")
    assert client.read(5) == b"hello"


@pytest.mark.parametrize("network", networks())
def test_live_host_on_another_network_is_not_replaced(
    network: Callable[[int], Namespace], root: Path, stack: ExitStack
) -> None:
    """What makes the test above mean something."""
    host = network(2)
    stack.callback(host.remove)
    host.make()
    daemon = OpenDaemon(root, f"proxy.listen=[{host.near}:0]", "log.dir=.")
    stack.callback(daemon.clean_up)
    daemon.start()
    vm = stack.enter_context(dial_inside(host, daemon.proxy[1], name="web01"))
    vm.handshake()
    daemon.wait_open("web01")
    impostor = stack.enter_context(MovingVm(daemon.proxy, name="web01", uuid=vm.uuid, source=host.near))
    claim(impostor)
    impostor.wait_closed()
    assert daemon.wait_refusal("web01")["peer"] == impostor.address


@pytest.mark.long
def test_host_that_vanished_is_noticed_within_a_minute_without_a_successor(
    scene: Scene, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    scene.turns()
    vm = scene.vms[0]
    vm.deaf = scene.mute = scene.quiet = True
    deafen(vm.socket)
    begun = time.monotonic()
    until(lambda: scene.daemon.console("web01")["state"] == "waiting", "the VM is gone", 75)
    took = time.monotonic() - begun
    record_property("noticed_s", round(took, 1))
    with capsys.disabled():
        sys.stderr.write(f"\nvanished host noticed after {took:.1f} s (demand: 60 s)\n")


# What a VM says of itself


def test_bios_and_location_uuids_are_asked_for_and_kept(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    vm.hear_code(GET_BIOS_UUID)
    vm.hear_code(GET_LOCATION_UUID)
    vm.send_raw(vmware(BIOS_UUID, uuid_text(BIOS)) + vmware(LOCATION_UUID, uuid_text(LOCATION)))
    told = daemon.wait_console("web01", lambda c: bool(c["location_uuid"]), "has told both")
    assert (told["bios_uuid"], told["location_uuid"]) == (BIOS, LOCATION)
    assert BIOS in daemon.ctl("status", "web01").stdout
    vm.close()
    daemon.wait_state("web01", "waiting")
    daemon.stop()
    daemon.start()
    kept = daemon.wait_state("web01", "waiting")
    assert (kept["bios_uuid"], kept["location_uuid"]) == (BIOS, LOCATION)


def test_vm_that_moves_is_asked_for_them_again(scene: Scene) -> None:
    target = scene.move()
    scene.until(lambda: {GET_BIOS_UUID, GET_LOCATION_UUID} <= set(target.vmware_codes()), "it is asked")
    target.send_raw(vmware(LOCATION_UUID, uuid_text(LOCATION)))
    scene.daemon.wait_console("web01", lambda c: bool(c["location_uuid"] == LOCATION), "is there")


def test_blank_uuid_is_refused_with_the_reason(daemon: Daemon, stack: ExitStack) -> None:
    vm = asked(stack, daemon)
    vm.send_raw(vmware(VC_UUID, uuid_text(BLANK)))
    vm.wait_closed()
    assert WONT_PROXY in vm.vmware_codes()
    assert daemon.wait_refusal("blank")["peer"] == vm.address
    assert daemon.consoles() == []


@pytest.mark.parametrize("said", [uuid_text(BLANK), b"", b"/etc/x", b"0123"])
def test_vm_without_a_usable_uuid_is_known_by_its_bios_uuid_if_that_is_configured(
    said: bytes, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("identity.fallback=bios")
    vm = asked(stack, daemon)
    vm.send_raw(vmware(VC_UUID, said))
    vm.hear_code(GET_BIOS_UUID)
    vm.send_raw(vmware(BIOS_UUID, uuid_text(BIOS)))
    vm.hear_code(WILL_PROXY)
    daemon.wait_state(BIOS, "connected")


def test_usable_uuid_counts_even_if_the_bios_uuid_may_stand_in(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("identity.fallback=bios")
    vm = stack.enter_context(daemon.dial())
    assert [console["uuid"] for console in daemon.consoles()] == [vm.uuid]


def test_vm_without_any_usable_uuid_is_refused(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("identity.fallback=bios", "proxy.handshake_timeout=2s")
    vm = asked(stack, daemon)
    vm.send_raw(vmware(VC_UUID, uuid_text(BLANK)))
    vm.hear_code(GET_BIOS_UUID)
    vm.send_raw(vmware(BIOS_UUID, uuid_text(BLANK)))
    vm.wait_closed()
    assert daemon.wait_refusal("UUID")["peer"] == vm.address
    assert daemon.consoles() == []


def test_attack_uuid_that_is_a_path(daemon: Daemon, stack: ExitStack) -> None:
    vm = asked(stack, daemon)
    vm.send_raw(vmware(VC_UUID, b"/etc/x"))
    vm.wait_closed()
    assert daemon.consoles() == []
    files = [path.name for path in (daemon.root / "log").rglob("*")]
    assert [name for name in files if "x" in name] == []


def test_attack_name_that_is_a_path_or_an_escape_sequence_comes_by_a_move(scene: Scene) -> None:
    pair = scene.goahead()
    target = scene.dial(THERE, name="../../x\x1b]0;owned\x07").show(pair)
    scene.until(target.admitted, "PEER-OK")
    scene.complete(target)
    scene.daemon.wait_console(scene.console, lambda c: bool("owned" in c["name"]), "is renamed")
    for text in (scene.daemon.log(), scene.daemon.ctl("status").stdout):
        assert [c for c in text if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)] == []
    for link in (scene.daemon.root / "log" / "by-name").iterdir():
        assert link.resolve() == scene.daemon.log_file(scene.console).resolve()


def test_rename_while_connected_moves_nothing_but_the_name(scene: Scene) -> None:
    scene.turns()
    before = scene.daemon.console(scene.console)
    assert scene.guest is not None
    scene.guest.rename("web02")
    after = scene.daemon.wait_state("web02", "connected")
    assert [after[key] for key in ("id", "port", "socket", "log")] == [
        before[key] for key in ("id", "port", "socket", "log")
    ]
    assert index(scene, "renamed")[-1]["to"] == "web02"
    scene.check()


def test_connected_vm_that_says_it_is_another_one_is_hung_up_on(scene: Scene) -> None:
    vm = scene.guest
    assert vm is not None
    scene.quiet = scene.mute = True
    vm.send_raw(vmware(VC_UUID, uuid_text(BIOS)))
    scene.until(lambda: vm.closed, "it is hung up on")
    scene.daemon.wait_state("web01", "waiting")
    assert scene.daemon.find(BIOS) is None
