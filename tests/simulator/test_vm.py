"""The VM's side of a connection: the recorded order byte for byte, and against the concentrator's session."""

from __future__ import annotations

from typing import Callable, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vspcd.proto import telnet, vmware
from vspcd.proto.errors import PeerError
from vspcd.simulator import vm
from vspcd.simulator.vm import Identity, Ticket, Vm

UUID = "0123456789abcdeffedcba9800000000"
WHO = Identity(UUID, "web01")
UUID_FRAME = b"\xff\xfa\xe8\x50" + b"01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00" + b"\xff\xf0"


def started(**options: object) -> Vm:
    machine = Vm(WHO, **options)  # type: ignore[arg-type]
    machine.start()
    machine.take_output()
    return machine


def heard(machine: Vm, data: bytes) -> bytes:
    """What a machine answers."""
    machine.receive(data)
    return machine.take_output()


def asking(**options: object) -> Vm:
    """A machine that has sent DO-PROXY, or its ticket."""
    machine = started(**options)
    heard(machine, bytes.fromhex("fffe25") + vmware.frame(vmware.KNOWN_SUBOPTIONS_2))
    return machine


def opened(**options: object) -> Vm:
    """A machine that was accepted."""
    machine = asking(**options)
    heard(machine, vmware.frame(vmware.WILL_PROXY))
    return machine


def test_the_recorded_order_step_by_step() -> None:
    machine = Vm(WHO)
    machine.start()
    known = vmware.frame(vmware.KNOWN_SUBOPTIONS_1, vmware.known_codes(vmotion=True))
    assert machine.take_output() == bytes.fromhex("fffb25")
    assert heard(machine, bytes.fromhex("fffb00 fffb03 fffb01")) == bytes.fromhex("fffd00 fffd03 fffd01")
    assert heard(machine, bytes.fromhex("fffd00 fffd03 fffde8")) == bytes.fromhex("fffb00 fffb03")
    assert heard(machine, bytes.fromhex("fffe25")) == bytes.fromhex("fffbe8")
    assert heard(machine, bytes.fromhex("fffae801 2829 fff0")) == known + b"\xff\xfa\xe8\x46SvSPC.py\xff\xf0"
    assert heard(machine, bytes.fromhex("fffae851fff0")) == UUID_FRAME
    assert heard(machine, bytes.fromhex("fffae853fff0")) == b"\xff\xfa\xe8\x52web01\xff\xf0"
    assert heard(machine, bytes.fromhex("fffae847fff0")) == bytes.fromhex("fffb2c")
    settings = bytes.fromhex("fffa2c010001c200fff0 fffa2c0208fff0 fffa2c0301fff0 fffa2c0401fff0")
    assert heard(machine, bytes.fromhex("fffd2c")) == settings


def test_the_extension_is_offered_also_when_nobody_asked_for_it() -> None:
    assert heard(started(), bytes.fromhex("fffe25")) == bytes.fromhex("fffbe8")


def test_the_extension_is_offered_once() -> None:
    machine = started()
    heard(machine, bytes.fromhex("fffe25"))
    assert heard(machine, bytes.fromhex("fffde8 fffe25")) == b""


def test_a_label_goes_into_the_service_uri() -> None:
    machine = started(uri="vSPC.py?port=gdb")
    answer = heard(machine, bytes.fromhex("fffe25 fffae801fff0"))
    assert answer.endswith(b"\xff\xfa\xe8\x46SvSPC.py?port=gdb\xff\xf0")


def test_no_com_port_is_announced_without_a_line() -> None:
    assert heard(asking(line=None), vmware.frame(vmware.WILL_PROXY)) == b""


def test_the_console_is_open_at_will_proxy_and_not_before() -> None:
    machine = asking()
    assert not machine.open
    assert machine.receive(vmware.frame(vmware.WILL_PROXY)) == [vm.Accepted()]
    assert machine.open


def test_a_refusal_leaves_the_console_closed() -> None:
    machine = asking()
    assert machine.receive(vmware.frame(vmware.WONT_PROXY)) == [vm.Refused()]
    assert not machine.open


def test_data_before_will_proxy_is_misplaced() -> None:
    assert asking().receive(b"hello") == [vm.Misplaced(b"hello")]


def test_an_unknown_command_is_reported_to_the_concentrator() -> None:
    assert heard(asking(), vmware.frame(99)) == vmware.frame(vmware.UNKNOWN_SUBOPTION_RCVD_1, b"\x63")


@pytest.mark.parametrize("code", [2, 3])
def test_a_report_of_an_unknown_command_is_not_answered(code: int) -> None:
    assert heard(asking(), vmware.frame(code, b"\x63")) == b""


def test_a_break_of_the_guest_is_a_control_message() -> None:
    machine = opened()
    heard(machine, bytes.fromhex("fffd2c"))
    machine.send_break(True)
    machine.send_break(False)
    assert machine.take_output() == bytes.fromhex("fffa2c0505fff0 fffa2c0506fff0")


def test_a_break_from_the_concentrator_is_an_event() -> None:
    assert opened().receive(telnet.command(telnet.BREAK)) == [vm.Break()]


# -- vMotion


def test_goahead_gives_the_ticket_for_the_target() -> None:
    machine = opened()
    machine.begin(b"\x00\xffab")
    assert machine.take_output() == bytes.fromhex("fffae828 00ffff6162 fff0")
    ticket = Ticket(b"\x00\xffab", b"\x00\xffabsecret\xff")
    assert machine.receive(vmware.frame(vmware.VMOTION_GOAHEAD, ticket.pair)) == [vm.GoAhead(ticket)]


def test_data_after_goahead_is_misplaced_until_the_abort() -> None:
    machine = opened()
    machine.begin(b"1234")
    assert machine.receive(b"before") == [vm.Data(b"before")]
    machine.receive(vmware.frame(vmware.VMOTION_GOAHEAD, b"1234secret"))
    assert machine.receive(b"lost") == [vm.Misplaced(b"lost")]
    machine.abort()
    assert machine.receive(b"after") == [vm.Data(b"after")]


def test_notnow_ends_the_vmotion() -> None:
    machine = opened()
    machine.begin(b"1234")
    assert machine.receive(vmware.frame(vmware.VMOTION_NOTNOW, b"1234")) == [vm.NotNow(b"1234")]
    assert machine.sequence is None


def test_goahead_for_a_replaced_begin_goes_by() -> None:
    machine = opened()
    machine.begin(b"1111")
    machine.begin(b"2222")
    assert machine.receive(vmware.frame(vmware.VMOTION_GOAHEAD, b"1111secret")) == []
    assert machine.grant is None


def test_goahead_after_an_abort_goes_by() -> None:
    machine = opened()
    machine.begin(b"1111")
    machine.abort()
    assert machine.receive(vmware.frame(vmware.VMOTION_GOAHEAD, b"1111secret") + b"x") == [vm.Data(b"x")]


def test_a_target_shows_its_ticket_instead_of_asking_for_the_proxy() -> None:
    machine = started(ticket=Ticket(b"1234", b"1234\xff567"))
    answer = heard(machine, bytes.fromhex("fffe25 fffae801fff0"))
    assert answer.endswith(bytes.fromhex("fffae82c 31323334ffff353637 fff0"))
    assert bytes([0xFA, 0xE8, vmware.DO_PROXY]) not in answer


def test_a_target_can_tell_its_identity_before_its_ticket() -> None:
    machine = started(ticket=Ticket(b"1234", b"1234567"), identity_first=True)
    answer = heard(machine, bytes.fromhex("fffe25 fffae801fff0"))
    assert answer.index(UUID_FRAME) < answer.index(b"\xe8\x52web01") < answer.index(b"\xe8\x2c1234567")


def test_a_target_is_open_when_it_completed() -> None:
    machine = asking(ticket=Ticket(b"1234", b"1234567"))
    assert machine.receive(vmware.frame(vmware.VMOTION_PEER_OK, b"1234")) == [vm.PeerOk()]
    assert machine.receive(b"early") == [vm.Misplaced(b"early")]
    machine.complete()
    assert machine.take_output().endswith(vmware.frame(vmware.VMOTION_COMPLETE, b"1234"))
    assert machine.receive(b"typed") == [vm.Data(b"typed")]


def test_peer_ok_for_another_sequence_goes_by() -> None:
    machine = asking(ticket=Ticket(b"1234", b"1234567"))
    assert machine.receive(vmware.frame(vmware.VMOTION_PEER_OK, b"4321")) == []


def test_a_target_that_is_not_recognised_is_told_by_the_unknown_command() -> None:
    machine = asking(ticket=Ticket(b"1234", b"1234567"))
    refusal = vmware.frame(vmware.UNKNOWN_SUBOPTION_RCVD_2, bytes([vmware.VMOTION_PEER]))
    assert machine.receive(refusal) == [vm.PeerUnknown()]


# -- against the concentrator's session, cut anywhere


class Wire:
    """A machine and a session joined by bytes, cut as the test says."""

    def __init__(self, machine: Vm, cut: Callable[[], int]) -> None:
        self.machine = machine
        self.session = vmware.Session()
        self.said = bytearray()
        self.heard = bytearray()
        self.misplaced = bytearray()
        self._cut = cut
        self._tail = bytearray()
        self._up = bytearray()
        self._down = bytearray()
        machine.start()
        self.session.start()

    def run(self, typed: bytes = b"", output: bytes = b"") -> None:
        """Exchange until both are silent; once the console is open, type and say."""
        while self._move():
            pass
        if self.machine.open:
            self._down += telnet.escape(typed)
            self._up += telnet.escape(output)
            while self._move():
                pass

    def _move(self) -> bool:
        self._up += self.machine.take_output()
        self._down += self.session.take_output()
        if self._up:
            self._concentrator(self._piece(self._up))
        if self._down:
            self._vm(self._piece(self._down))
        return bool(self._up or self._down or self._pending())

    def _pending(self) -> bool:
        self._up += self.machine.take_output()
        self._down += self.session.take_output()
        return bool(self._up or self._down)

    def _piece(self, pile: bytearray) -> bytes:
        size = self._cut()
        piece = bytes(pile[:size])
        del pile[:size]
        return piece

    def _vm(self, piece: bytes) -> None:
        for event in self.machine.receive(piece):
            if isinstance(event, vm.Data):
                self.heard += event.data
            elif isinstance(event, vm.Misplaced):
                self.misplaced += event.data

    def _concentrator(self, piece: bytes) -> None:
        self._tail += piece
        tokens = telnet.tokens(self._tail)
        if tokens:
            del self._tail[: tokens[-1][1]]
        for token, _ in tokens:
            if isinstance(token, bytes):
                self.said += token
                continue
            for event in self.session.receive(token):
                self._answer(event)

    def _answer(self, event: vmware.Event) -> None:
        if isinstance(event, vmware.ProxyRequest):
            self.session.accept_proxy()
        elif isinstance(event, vmware.VmotionBegin):
            self.session.goahead(event.sequence, b"\xffsecret\xff")
        elif isinstance(event, vmware.VmotionPeer):
            self.session.peer_ok(event.pair[:4])


cuts = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def cutter(sizes: list[int]) -> Callable[[], int]:
    state = {"at": 0}

    def cut() -> int:
        state["at"] += 1
        return sizes[state["at"] % len(sizes)]

    return cut


def joined(sizes: list[int], ticket: Optional[Ticket] = None) -> Wire:
    return Wire(Vm(WHO, "vSPC.py?port=a", ticket=ticket), cutter(sizes))


@settings(deadline=None)
@given(cuts, st.binary(max_size=300), st.binary(max_size=300))
def test_a_conversation_cut_anywhere_ends_the_same(sizes: list[int], typed: bytes, output: bytes) -> None:
    wire = joined(sizes)
    wire.run(typed, output)
    assert (bytes(wire.heard), bytes(wire.said), bytes(wire.misplaced)) == (typed, output, b"")
    session = wire.session
    assert (session.uuid, session.name, session.line.baud) == (UUID, "web01", 115200)
    assert session.proxy == vmware.ProxyRequest("S", "vSPC.py?port=a", "a")


@settings(deadline=None)
@given(cuts, st.binary(min_size=4, max_size=4))
def test_a_vmotion_cut_anywhere_gives_the_target_the_source_s_ticket(
    sizes: list[int], sequence: bytes
) -> None:
    source = joined(sizes)
    source.run()
    source.machine.begin(sequence)
    source.run()
    assert source.machine.grant == Ticket(sequence, sequence + b"\xffsecret\xff")
    target = joined(sizes, source.machine.grant)
    target.run()
    assert target.machine.state == vm.ADMITTED
    assert (target.session.proxy, target.session.uuid) == (None, UUID)


FRAGMENTS = st.sampled_from(
    [
        b"\xff",
        b"\xff\xfa\xe8",
        b"\xff\xf0",
        b"\x2c",
        b"\x29",
        b"\xff\xfd\x25",
        b"\xff\xfb\x00",
        b"\xff\xff",
        b"a",
    ]
)


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=20), FRAGMENTS), max_size=30))
def test_garbage_gives_events_or_the_concentrator_s_fault(pieces: list[bytes]) -> None:
    machine = opened()
    machine.begin(b"1234")
    for piece in pieces:
        try:
            machine.receive(piece)
        except PeerError:
            return
        machine.take_output()
