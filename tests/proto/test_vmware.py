"""One VM connection, as PROTOCOL.md recorded it, and every way in which a VM may stray from that."""

from __future__ import annotations

import pytest

from tests.proto.sessions import greeted, hear, hx
from tests.proto.streams import through_json
from vspcd.proto import telnet, vmware
from vspcd.proto.comport import Break, LineSettings
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.vmware import (
    BadIdentity,
    BiosUuid,
    Event,
    Extension,
    Identity,
    Ignored,
    Line,
    LocationUuid,
    Named,
    ProxyRefused,
    ProxyRequest,
    Session,
    VmotionAbort,
    VmotionBegin,
    VmotionComplete,
    VmotionPeer,
)

UUID = "0123456789abcdeffedcba9800000000"
OTHER = "f" * 32
ALL_CODES = bytes((0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87))
OLD_CODES = bytes((0, 1, 2, 3, 70, 71, 73, 80, 81, 82, 83))


# What the VM sends, what we answer, what the caller is told. Our DONT AUTHENTICATION goes out as soon as the
# offer is there: a VM waits for it before it agrees to the extension.
RECORDED: list[tuple[bytes, bytes, list[Event]]] = [
    (b"", hx("FFFB00 FFFB03 FFFB01"), []),
    (hx("FFFB25"), hx("FFFE25"), []),
    (hx("FFFD00"), hx("FFFD00 FFFD03 FFFDE8"), []),
    (hx("FFFD03 FFFD01 FFFB00 FFFB03"), b"", []),
    (hx("FFFBE8"), hx("FFFAE801") + ALL_CODES + hx("FFF0"), [Extension()]),
    (hx("FFFAE800") + OLD_CODES + hx("FFF0"), b"", []),
    (
        hx("FFFAE846") + b"SvSPC.py" + hx("FFF0"),
        hx("FFFAE851FFF0 FFFAE853FFF0"),
        [ProxyRequest("S", "vSPC.py", None)],
    ),
    (hx("FFFAE850") + b"01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00" + hx("FFF0"), b"", [Identity(UUID)]),
    (b"accept", hx("FFFAE847FFF0"), []),
    (hx("FFFAE852") + b"web01" + hx("FFF0"), b"", [Named("web01")]),
    (hx("FFFB2C"), hx("FFFD2C"), []),
]


def _step(session: Session, sent: bytes) -> list[Event]:
    if sent != b"accept":
        return hear(session, sent)
    session.accept_proxy()
    return []


@pytest.mark.parametrize("upto", range(1, len(RECORDED) + 1))
def test_the_recorded_order_step_by_step(upto: int) -> None:
    session = Session()
    session.start()
    for sent, answered, told in RECORDED[:upto]:
        assert (_step(session, sent), session.take_output()) == (told, answered)


@pytest.mark.parametrize("moment", range(1, len(RECORDED) + 1))
def test_another_process_can_go_on_after_any_step_of_the_recorded_order(moment: int) -> None:
    session = Session()
    session.start()
    for number, (sent, answered, told) in enumerate(RECORDED):
        if number == moment:
            session = Session.restore(through_json(session.snapshot()))
        assert (_step(session, sent), session.take_output()) == (told, answered)


def test_facts_are_there_after_the_recorded_order() -> None:
    session = Session()
    session.start()
    hear(session, b"".join(sent for sent, _, _ in RECORDED if sent != b"accept"))
    assert (session.extension, session.uuid, session.name) == (True, UUID, "web01")
    assert session.proxy == ProxyRequest("S", "vSPC.py", None)
    assert session.known == frozenset(OLD_CODES)


def test_the_vm_is_asked_once_however_much_it_says() -> None:
    session = Session()
    hear(session, hx("FFFD00 FFFD00 FFFD03 FFFC00 FFFC03 FFFCE8 FFFD01 FFFE01"))
    assert session.take_output().count(hx("FFFDE8")) == 1


@pytest.mark.parametrize("first", ["FFFD00", "FFFE01", "FFFB00", "FFFC03", "FFFB18", "FFFBE8"])
def test_any_first_answer_brings_our_questions(first: str) -> None:
    session = Session()
    session.start()
    hear(session, hx(first))
    output = session.take_output()
    assert [output.count(hx(asked)) for asked in ("FFFD00", "FFFD03", "FFFDE8")] == [1, 1, 1]


def test_offer_of_authentication_alone_does_not_bring_our_questions() -> None:
    session = Session()
    hear(session, hx("FFFB25"))
    assert session.take_output() == hx("FFFE25")


def test_a_silent_vm_can_be_asked_once() -> None:
    session = Session()
    session.ask()
    session.ask()
    assert session.take_output() == hx("FFFD00 FFFD03 FFFDE8")


def test_a_vm_that_offers_the_extension_first_is_greeted_at_once() -> None:
    session = Session()
    assert hear(session, hx("FFFBE8")) == [Extension()]
    assert session.take_output() == hx("FFFDE8 FFFAE801") + ALL_CODES + hx("FFF0 FFFD00 FFFD03")


def test_a_vm_that_uses_the_extension_without_offering_it_is_greeted_and_answered() -> None:
    session = Session()
    assert hear(session, vmware.frame(70, b"SvSPC.py")) == [Extension(), ProxyRequest("S", "vSPC.py", None)]
    assert session.take_output() == hx("FFFAE801") + ALL_CODES + hx("FFF0 FFFAE851FFF0 FFFAE853FFF0")


def test_offering_the_extension_twice_greets_once() -> None:
    session = greeted()
    assert hear(session, hx("FFFBE8 FFFBE8")) == []
    assert session.take_output() == b""


def test_a_vm_that_takes_the_extension_back_is_greeted_anew_with_the_same_list() -> None:
    session = greeted()
    assert hear(session, hx("FFFCE8")) == []
    assert not session.extension
    assert hear(session, hx("FFFBE8")) == [Extension()]
    assert session.take_output() == hx("FFFEE8 FFFDE8 FFFAE801") + ALL_CODES + hx("FFF0")


@pytest.mark.parametrize("code", [1, 4, 41, 43, 45, 47, 71, 73, 81, 83, 85, 87, 99, 254])
def test_a_command_that_we_do_not_handle_is_answered_so(code: int) -> None:
    session = greeted()
    assert hear(session, vmware.frame(code, b"x")) == [Ignored(code)]
    assert session.take_output() == hx("FFFAE803") + bytes((code,)) + hx("FFF0")


def test_unknown_code_255_is_doubled_in_the_answer() -> None:
    session = greeted()
    assert hear(session, vmware.frame(255)) == [Ignored(255)]
    assert session.take_output() == hx("FFFAE803FFFFFFF0")


@pytest.mark.parametrize("code", [2, 3])
def test_reports_of_unknown_codes_are_never_answered(code: int) -> None:
    session = greeted()
    assert hear(session, vmware.frame(code, b"\x2c")) == [Ignored(code)]
    assert session.take_output() == b""


@pytest.mark.parametrize("code", [40, 41, 43, 44, 45, 46, 48])
def test_without_vmotion_its_codes_are_unknown(code: int) -> None:
    session = greeted(vmotion=False)
    assert hear(session, vmware.frame(code, b"seq")) == [Ignored(code)]
    assert session.take_output() == hx("FFFAE803") + bytes((code,)) + hx("FFF0")


def test_without_vmotion_our_list_does_not_name_it() -> None:
    session = Session(vmotion=False)
    hear(session, hx("FFFBE8"))
    listed = bytes((0, 1, 2, 3, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87))
    assert hx("FFFAE801") + listed + hx("FFF0") in session.take_output()


def test_empty_and_foreign_subnegotiations_and_commands_have_no_effect() -> None:
    session = greeted()
    assert hear(session, hx("FFFAE8FFF0 FFFA1801FFF0 FFF1 FFF6 FFF3 FFF0")) == []
    assert session.take_output() == b""


def test_labelled_request_names_its_label() -> None:
    assert hear(greeted(), vmware.frame(70, b"SvSPC.py?port=gdb")) == [
        ProxyRequest("S", "vSPC.py?port=gdb", "gdb")
    ]


@pytest.mark.parametrize("payload", [b"", b"Snova", b"Ctcp://10.0.0.1:22", b"SvSPC.py?port=/"])
def test_unacceptable_request_is_refused_at_once_and_told(payload: bytes) -> None:
    session = greeted()
    [event] = hear(session, vmware.frame(70, payload))
    assert isinstance(event, ProxyRefused)
    assert session.take_output() == hx("FFFAE849FFF0")
    assert session.proxy is None


def test_services_and_dial_are_the_callers() -> None:
    session = greeted(services=("nova",), dial=("tcp://h:1",))
    assert hear(session, vmware.frame(70, b"Snova")) == [ProxyRequest("S", "nova", None)]
    session = greeted(services=("nova",), dial=("tcp://h:1",))
    assert hear(session, vmware.frame(70, b"Ctcp://h:1")) == [ProxyRequest("C", "tcp://h:1", None)]


def test_refusal_by_the_caller_lets_the_vm_ask_again() -> None:
    session = greeted()
    hear(session, vmware.frame(70, b"SvSPC.py"))
    session.take_output()
    session.refuse_proxy()
    assert (session.take_output(), session.proxy) == (hx("FFFAE849FFF0"), None)
    assert hear(session, vmware.frame(70, b"SvSPC.py")) == [ProxyRequest("S", "vSPC.py", None)]
    assert session.take_output() == b""


def test_the_same_request_is_told_once_and_answered_again_after_acceptance() -> None:
    session = greeted()
    asked = vmware.frame(70, b"SvSPC.py")
    hear(session, asked)
    assert hear(session, asked) == []
    session.accept_proxy()
    session.take_output()
    assert hear(session, asked) == []
    assert session.take_output() == hx("FFFAE847FFF0")


def test_a_request_for_another_port_on_the_same_connection_is_refused() -> None:
    session = greeted()
    hear(session, vmware.frame(70, b"SvSPC.py?port=a"))
    session.take_output()
    [event] = hear(session, vmware.frame(70, b"SvSPC.py?port=b"))
    assert isinstance(event, ProxyRefused)
    assert session.take_output() == hx("FFFAE849FFF0")
    assert session.proxy == ProxyRequest("S", "vSPC.py?port=a", "a")


def test_accepting_what_nobody_asked_for_is_our_fault() -> None:
    with pytest.raises(LocalError):
        greeted().accept_proxy()


def test_identity_is_asked_for_once() -> None:
    session = greeted()
    hear(session, vmware.frame(70, b"SvSPC.py") + vmware.frame(44, b"pair"))
    session.ask_identity()
    assert session.take_output() == hx("FFFAE851FFF0 FFFAE853FFF0")


def test_identity_that_comes_unasked_is_taken() -> None:
    session = greeted()
    assert hear(session, vmware.frame(80, UUID.encode()) + vmware.frame(82, b"n")) == [
        Identity(UUID),
        Named("n"),
    ]


@pytest.mark.parametrize("payload", [b"", b" ", b"/etc/x", UUID.encode()[:-1]])
def test_bad_uuid_is_told_with_a_reason_and_not_kept(payload: bytes) -> None:
    session = greeted()
    [event] = hear(session, vmware.frame(80, payload))
    assert isinstance(event, BadIdentity)
    assert "UUID" in event.reason
    assert session.uuid is None


def test_uuid_is_told_once_and_cannot_change() -> None:
    session = greeted()
    hear(session, vmware.frame(80, UUID.encode()))
    assert hear(session, vmware.frame(80, UUID.upper().encode())) == []
    [event] = hear(session, vmware.frame(80, OTHER.encode()))
    assert isinstance(event, BadIdentity)
    assert UUID in event.reason
    assert OTHER in event.reason
    assert session.uuid == UUID


def test_name_is_told_when_it_is_new_and_can_be_empty() -> None:
    session = greeted()
    said = [vmware.frame(82, name) for name in (b"", b"", b"web01", b"web01", b"")]
    assert [hear(session, data) for data in said] == [[Named("")], [], [Named("web01")], [], [Named("")]]


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (OLD_CODES, ""),
        (ALL_CODES, "FFFAE855FFF0FFFAE857FFF0"),
        (b"\x54", "FFFAE855FFF0"),
        (b"\x57", "FFFAE857FFF0"),
    ],
)
def test_other_uuids_are_asked_for_after_acceptance_if_the_vm_knows_them(known: bytes, asked: str) -> None:
    session = greeted()
    hear(session, vmware.frame(0, known) + vmware.frame(70, b"SvSPC.py"))
    assert session.take_output() == hx("FFFAE851FFF0 FFFAE853FFF0")
    session.accept_proxy()
    assert session.take_output() == hx("FFFAE847FFF0") + hx(asked)


def test_other_uuids_are_asked_for_when_the_list_comes_late_and_only_once() -> None:
    session = greeted()
    hear(session, vmware.frame(70, b"SvSPC.py"))
    session.accept_proxy()
    session.take_output()
    hear(session, vmware.frame(0, ALL_CODES) * 2)
    assert session.take_output() == hx("FFFAE855FFF0FFFAE857FFF0")


def test_other_uuids_are_asked_for_after_peer_ok() -> None:
    session = greeted()
    hear(session, vmware.frame(0, ALL_CODES) + vmware.frame(44, b"pair"))
    session.take_output()
    session.peer_ok(b"seq")
    assert session.take_output() == vmware.frame(45, b"seq") + hx("FFFAE855FFF0FFFAE857FFF0")


def test_other_uuids_are_kept_and_told_when_new() -> None:
    session = greeted()
    said = vmware.frame(84, UUID.encode()) + vmware.frame(86, OTHER.encode())
    assert hear(session, said) == [BiosUuid(UUID), LocationUuid(OTHER)]
    assert hear(session, said) == []
    assert (session.bios_uuid, session.location_uuid) == (UUID, OTHER)


@pytest.mark.parametrize("code", [84, 86])
def test_other_uuids_that_are_malformed_have_no_effect(code: int) -> None:
    session = greeted()
    assert hear(session, vmware.frame(code, b"zz")) == []
    assert (session.bios_uuid, session.location_uuid, session.take_output()) == (None, None, b"")


SEQUENCE, SECRET = b"\x01\xff\x00\xf0", b"\xff\xff\xf0secret"


@pytest.mark.parametrize(
    ("code", "payload", "event"),
    [
        (40, SEQUENCE, VmotionBegin(SEQUENCE)),
        (44, SEQUENCE + SECRET, VmotionPeer(SEQUENCE + SECRET)),
        (46, SEQUENCE, VmotionComplete(SEQUENCE)),
        (48, b"", VmotionAbort()),
        (48, b"tolerated", VmotionAbort()),
    ],
)
def test_vmotion_messages_are_told(code: int, payload: bytes, event: Event) -> None:
    assert hear(greeted(), vmware.frame(code, payload)) == [event]


def test_vmotion_answers_carry_what_they_must_and_no_more() -> None:
    session = greeted()
    session.goahead(SEQUENCE, SECRET)
    session.notnow(SEQUENCE)
    session.peer_ok(SEQUENCE)
    session.unknown(44)
    doubled = hx("01FFFF00F0")
    assert session.take_output() == (
        hx("FFFAE829") + doubled + hx("FFFFFFFFF0") + b"secret" + hx("FFF0")
        + hx("FFFAE82B") + doubled + hx("FFF0")
        + hx("FFFAE82D") + doubled + hx("FFF0")
        + hx("FFFAE8032CFFF0")
    )  # fmt: skip


def test_peer_brings_the_question_for_identity() -> None:
    session = greeted()
    hear(session, vmware.frame(44, b"pair"))
    assert session.take_output() == hx("FFFAE851FFF0 FFFAE853FFF0")


@pytest.mark.parametrize(("code", "limit"), [(40, 256), (44, 512), (46, 256)])
def test_vmotion_payloads_are_bounded(code: int, limit: int) -> None:
    assert len(hear(greeted(), vmware.frame(code, b"x" * limit))) == 1
    with pytest.raises(PeerError, match="vMotion"):
        hear(greeted(), vmware.frame(code, b"x" * (limit + 1)))


def test_line_settings_are_acknowledged_and_told_when_new() -> None:
    session = greeted()
    asked = telnet.subnegotiation(44, hx("0100002580"))
    assert hear(session, asked) == [Line(LineSettings(baud=9600))]
    assert session.take_output() == telnet.subnegotiation(44, hx("6500002580"))
    assert hear(session, asked) == []
    assert session.take_output() == telnet.subnegotiation(44, hx("6500002580"))


def test_baud_rate_with_ff_in_it_is_escaped_in_the_acknowledgement() -> None:
    session = greeted()
    hear(session, hx("FFFA2C 01 00 00 FFFF FFFF FFF0"))
    assert session.take_output() == hx("FFFA2C 65 00 00 FFFF FFFF FFF0")
    assert session.line.baud == 65535


def test_a_vm_is_notified_of_breaks_once_it_has_asked_for_it() -> None:
    session = greeted()
    session.notify_break()
    assert session.take_output() == b""
    hear(session, hx("FFFA2C0A10FFF0"))
    assert session.take_output() == hx("FFFA2C6E10FFF0")
    restored = Session.restore(session.snapshot())
    for each in (session, restored):
        each.notify_break()
        assert each.take_output() == hx("FFFA2C6A10FFF0")
    hear(session, hx("FFFA2C0A0FFFF0"))
    session.take_output()
    session.notify_break()
    assert session.take_output() == b""


def test_a_snapshot_of_a_version_that_knew_nothing_of_notified_breaks_is_restored() -> None:
    saved = greeted().snapshot()
    del saved["wants_breaks"]
    assert not Session.restore(saved).wants_breaks


def test_breaks_are_told_and_seen_in_the_line() -> None:
    session = greeted()
    assert hear(session, telnet.subnegotiation(44, b"\5\5")) == [Break(True)]
    assert session.line.break_on
    assert hear(session, telnet.subnegotiation(44, b"\5\6")) == [Break(False)]
    assert not session.line.break_on


def test_malformed_com_port_message_is_the_peers_fault() -> None:
    with pytest.raises(PeerError):
        hear(greeted(), telnet.subnegotiation(44, b"\1\1"))


def test_acknowledgements_and_negotiation_go_out_in_the_order_of_their_causes() -> None:
    session = greeted()
    hear(session, hx("FFFB18") + vmware.frame(99) + hx("FFFB1F") + vmware.frame(98))
    assert session.take_output() == hx("FFFE18 FFFAE80363FFF0 FFFE1F FFFAE80362FFF0")
