"""Whatever a peer sends: tokens, events, or PeerError, and never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import cut, drained, examples, places, telnet_streams
from vspcd.core import names
from vspcd.proto import attach, comport, telnet, vmware
from vspcd.proto.comport import LineSettings
from vspcd.proto.errors import PeerError
from vspcd.proto.terminal import Terminal
from vspcd.proto.vmware import ProxyRequest, Session

UUID = vmware.uuid_payload("0123456789abcdeffedcba9800000000")
VM_SAID = (
    bytes.fromhex("FFFB25 FFFD00 FFFD03 FFFD01 FFFB00 FFFB03 FFFBE8")
    + vmware.frame(0, vmware.known_codes(True))
    + vmware.frame(70, b"SvSPC.py?port=gdb")
    + vmware.frame(80, UUID)
    + vmware.frame(82, "b\u00fccher".encode())
    + bytes.fromhex("FFFB2C FFFA2C0100002580FFF0 FFFA2C0505FFF0")
    + b"login: \xff\xff\0\x11"
    + vmware.frame(40, b"\xffseq")
    + vmware.frame(44, b"\xffseqsecret")
    + vmware.frame(46, b"\xffseq")
    + vmware.frame(48)
    + vmware.frame(84, UUID)
    + vmware.frame(86, UUID)
)
USER_SAID = (
    bytes.fromhex("FFFB18 FFFB1F FFFA1F00500018FFF0 FFFD01 FFFD03 FFFB00") + b"ls\r\n\r\0\xff\xf3\xff\xf6"
)
TOOL_SAID = (
    attach.frame(attach.INPUT, b"ls\r") + attach.frame(attach.BREAK) + attach.frame(attach.INPUT, b"\xff" * 9)
)

thorough = examples(400)


def mutated(recorded: bytes) -> st.SearchStrategy[bytes]:
    """The recording with bytes changed, added, taken out, and stretches repeated."""
    place = st.integers(0, len(recorded))
    byte = st.sampled_from([0xFF, 0xFA, 0xF0, 0, 232, 44]) | st.integers(0, 255)
    edit = st.tuples(
        place, st.integers(0, 12), st.lists(byte, max_size=4).map(bytes) | st.just(recorded[:40])
    )
    return st.lists(edit, min_size=1, max_size=6).map(lambda edits: _edited(recorded, edits))


def _edited(recorded: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, gone, new in edits:
        recorded = recorded[:place] + new + recorded[place + gone :]
    return recorded


def check_reason(error: PeerError) -> None:
    """The reason goes into one line of the daemon's log."""
    assert str(error).isprintable()
    assert len(str(error)) < 300


def session_hears(data: bytes, where: list[int]) -> None:
    session = Session()
    session.start()
    try:
        for token in drained(telnet.tokens, cut(data, where)):
            events = [] if isinstance(token, bytes) else session.receive(token)
            if any(isinstance(event, ProxyRequest) for event in events):
                session.accept_proxy()
    except PeerError as error:
        check_reason(error)
    assert len(session.take_output()) <= 40 * (len(data) + 10)
    Session.restore(json.loads(json.dumps(session.snapshot())))


def terminal_hears(data: bytes, where: list[int]) -> None:
    terminal = Terminal()
    try:
        for _ in drained(terminal.receive, cut(data, where)):
            pass
    except PeerError as error:
        check_reason(error)
    assert len(terminal.take_output()) <= 20 * (len(data) + 10)
    Terminal.restore(json.loads(json.dumps(terminal.snapshot())))


noise = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"\xff", b"\xfa", b"\xf0", b"\xe8", b"\x2c", b"\xfb", b"\x46", b"S", b"\0"]), max_size=80
).map(b"".join)


@thorough
@given(noise | mutated(VM_SAID) | telnet_streams, places)
def test_a_vm_may_send_anything(data: bytes, where: list[int]) -> None:
    session_hears(data, where)


@thorough
@given(st.integers(0, 255), st.binary(max_size=40))
def test_an_extension_message_may_hold_anything(code: int, payload: bytes) -> None:
    session_hears(vmware.frame(code, payload), [])


@thorough
@given(noise | mutated(USER_SAID) | telnet_streams, places)
def test_a_console_ports_client_may_send_anything(data: bytes, where: list[int]) -> None:
    terminal_hears(data, where)


@thorough
@given(noise | mutated(TOOL_SAID), places)
def test_an_attached_tool_may_send_anything(data: bytes, where: list[int]) -> None:
    try:
        for _ in drained(attach.frames, cut(data, where)):
            pass
    except PeerError as error:
        check_reason(error)


@thorough
@given(st.binary(max_size=8))
def test_a_com_port_message_may_hold_anything(payload: bytes) -> None:
    try:
        comport.answer(payload, LineSettings())
    except PeerError as error:
        check_reason(error)


@thorough
@given(st.binary(max_size=80) | st.text(max_size=80))
def test_a_uuid_is_32_hex_digits_or_the_peers_fault(text: bytes | str) -> None:
    try:
        digits = vmware.parse_uuid(text)
    except PeerError as error:
        check_reason(error)
    else:
        assert set(digits) <= set("0123456789abcdef")
        assert len(digits) == 32


@thorough
@given(st.text(max_size=50))
def test_a_console_may_be_asked_for_by_anything(query: str) -> None:
    with pytest.raises(names.NotFound):
        names.resolve(query, [])


def test_the_recordings_themselves_are_good() -> None:
    for recorded in (VM_SAID, USER_SAID):
        tail = telnet.tokens(recorded)[-1][1]
        assert tail == len(recorded)
    assert attach.frames(TOOL_SAID)[-1][1] == len(TOOL_SAID)


@pytest.mark.parametrize("piece", [b"x", b"\xff\xff", b"\xff\xf1\xff\xfa\xe8x"])
def test_an_endless_subnegotiation_ends_at_the_limit(piece: bytes) -> None:
    sent = b"\xff\xfa\xe8" + piece * (2 * telnet.SUBNEGOTIATION_LIMIT // len(piece))
    with pytest.raises(PeerError):
        list(drained(telnet.tokens, cut(sent, range(0, len(sent), 1000))))
