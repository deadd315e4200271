"""RFC 2217 messages of a VM and the answers to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vspcd.proto import comport
from vspcd.proto.comport import Break, Event, LineSettings
from vspcd.proto.errors import LocalError, PeerError

LINE = LineSettings(baud=57600, data_size=7, parity="even", stop_size="1.5", flow="xon/xoff", dtr=True)

# payload, reply, events
ANSWERS: list[tuple[bytes, bytes, list[Event]]] = [
    (b"\x00", b"\x64vspcd", []),
    (b"\x00VMware", b"\x64vspcd", []),
    (b"\x01\x00\x01\xc2\x00", b"\x65\x00\x01\xc2\x00", [replace(LINE, baud=115200)]),
    (b"\x01\x00\x00\x00\x00", b"\x65\x00\x00\xe1\x00", []),
    (b"\x02\x08", b"\x66\x08", [replace(LINE, data_size=8)]),
    (b"\x02\x07", b"\x66\x07", [LINE]),
    (b"\x02\x00", b"\x66\x07", []),
    (b"\x02\x09", b"\x66\x07", []),
    (b"\x03\x01", b"\x67\x01", [replace(LINE, parity="none")]),
    (b"\x03\x02", b"\x67\x02", [replace(LINE, parity="odd")]),
    (b"\x03\x04", b"\x67\x04", [replace(LINE, parity="mark")]),
    (b"\x03\x05", b"\x67\x05", [replace(LINE, parity="space")]),
    (b"\x03\x00", b"\x67\x03", []),
    (b"\x03\x06", b"\x67\x03", []),
    (b"\x04\x01", b"\x68\x01", [replace(LINE, stop_size="1")]),
    (b"\x04\x02", b"\x68\x02", [replace(LINE, stop_size="2")]),
    (b"\x04\x00", b"\x68\x03", []),
    (b"\x05\x00", b"\x69\x02", []),
    (b"\x05\x01", b"\x69\x01", [replace(LINE, flow="none")]),
    (b"\x05\x03", b"\x69\x03", [replace(LINE, flow="hardware")]),
    (b"\x05\x04", b"\x69\x06", []),
    (b"\x05\x05", b"\x69\x05", [Break(True)]),
    (b"\x05\x06", b"\x69\x06", [Break(False)]),
    (b"\x05\x07", b"\x69\x08", []),
    (b"\x05\x09", b"\x69\x09", [replace(LINE, dtr=False)]),
    (b"\x05\x0a", b"\x69\x0c", []),
    (b"\x05\x0b", b"\x69\x0b", [replace(LINE, rts=True)]),
    (b"\x05\x0d", b"\x69\x0e", []),
    (b"\x05\x0f", b"\x69\x0f", []),
    (b"\x05\x63", b"\x69\x63", []),
    (b"\x0a\x10", b"\x6e\x10", []),
    (b"\x0b\xff", b"\x6f\xff", []),
    (b"\x0c\x03", b"\x70\x03", []),
]


@pytest.mark.parametrize(("payload", "reply", "events"), ANSWERS)
def test_command_is_acknowledged_with_its_code_and_100(
    payload: bytes, reply: bytes, events: list[Event]
) -> None:
    assert comport.answer(payload, LINE) == (reply, events)


@pytest.mark.parametrize("payload", [b"\x06\x01", b"\x07\x01", b"\x0d", b"\x63abc", b"\xff", b"\x64sig"])
def test_unknown_command_is_ignored(payload: bytes) -> None:
    assert comport.answer(payload, LINE) == (b"", [])


@pytest.mark.parametrize("payload", [b"\x08", b"\x09"])
def test_suspend_and_resume_are_not_acknowledged_since_that_would_suspend_the_vm(payload: bytes) -> None:
    assert comport.answer(payload, LINE) == (b"", [])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x01\x00\x00\x25",
        b"\x01\x00\x00\x25\x80\x00",
        *(bytes((c,)) for c in (2, 3, 4, 5, 12)),
    ],
)
def test_message_of_a_wrong_length_is_the_peers_fault(payload: bytes) -> None:
    with pytest.raises(PeerError, match="COM-PORT"):
        comport.answer(payload, LINE)


def test_line_survives_being_written_down() -> None:
    assert comport.line_from_dict(comport.line_as_dict(LINE)) == LINE


@pytest.mark.parametrize(
    "saved",
    [None, {}, {**comport.line_as_dict(LINE), "baud": "9600"}, {**comport.line_as_dict(LINE), "x": 1}],
)
def test_malformed_line_is_our_fault(saved: object) -> None:
    with pytest.raises(LocalError):
        comport.line_from_dict(saved)
