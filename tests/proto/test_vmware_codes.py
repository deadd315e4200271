"""The extension's encodings: UUIDs, names, service URIs, frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import examples
from vspcd.proto import vmware_codes as codes
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.vmware_codes import ProxyRefused, ProxyRequest

HEX = "0123456789abcdeffedcba9800000000"
RECORDED = b"01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00"


@pytest.mark.parametrize(
    "spelling",
    [
        RECORDED,
        RECORDED.upper(),
        HEX,
        HEX.upper(),
        "01234567-89ab-cdef-fedc-ba9800000000",
        "  01234567 89abcdef\tfedc-ba98-0000-0000\r\n",
    ],
)
def test_uuid_is_taken_in_any_spacing_dashes_and_case(spelling: str | bytes) -> None:
    assert codes.parse_uuid(spelling) == HEX


@pytest.mark.parametrize(
    "spelling",
    [
        HEX[:-1],
        HEX + "0",
        HEX[:-1] + "g",
        "0x" + HEX[2:],
        HEX[:-1] + "\0",
        HEX + "\0",
        HEX[:-1] + "\u0663",
        HEX[:15] + "_" + HEX[16:],
        "{" + HEX + "}",
        "/etc/x",
        "../../x",
        HEX.encode()[:-1] + b"\xff",
    ],
)
def test_anything_else_is_not_a_uuid(spelling: str | bytes) -> None:
    with pytest.raises(PeerError, match="not a UUID"):
        codes.parse_uuid(spelling)


@pytest.mark.parametrize("spelling", [b"", "   ", "-", " - \r\n"])
def test_blank_uuid_is_called_blank(spelling: str | bytes) -> None:
    with pytest.raises(PeerError, match="blank"):
        codes.parse_uuid(spelling)


def test_reason_for_a_bad_uuid_is_short_and_holds_no_control_character() -> None:
    with pytest.raises(PeerError) as raised:
        codes.parse_uuid("\x1b]0;x\x07" + "9" * 10000)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 150


def test_uuid_is_shown_8_4_4_4_12() -> None:
    assert codes.format_uuid(HEX) == "01234567-89ab-cdef-fedc-ba9800000000"


@pytest.mark.parametrize("text", ["", HEX.upper(), HEX + "0", "../../x"])
def test_only_32_hex_digits_are_shown_as_a_uuid(text: str) -> None:
    with pytest.raises(LocalError):
        codes.format_uuid(text)


def test_uuid_is_sent_as_it_was_recorded() -> None:
    assert codes.uuid_payload(HEX) == RECORDED


@given(st.uuids())
@examples(100)
def test_uuid_survives_being_sent(uuid: object) -> None:
    digits = str(uuid).replace("-", "")
    assert codes.parse_uuid(codes.uuid_payload(digits)) == digits


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b"web01", "web01"),
        (b"", ""),
        ("b\u00fccher \U0001f5a5".encode(), "b\u00fccher \U0001f5a5"),
        (b"a\xffb", "a\ufffdb"),
        (b"../../x\x1b]0;", "../../x\x1b]0;"),
        (b"x" * 300, "x" * 256),
        ("\U0001f5a5".encode() * 300, "\U0001f5a5" * 256),
    ],
)
def test_name_is_utf8_of_at_most_256_characters(payload: bytes, name: str) -> None:
    assert codes.parse_name(payload) == name


def test_frame_doubles_ff() -> None:
    assert codes.frame(41, b"\xff\x00\xff") == b"\xff\xfa\xe8\x29\xff\xff\x00\xff\xff\xff\xf0"


def test_known_codes_name_vmotion_only_when_it_is_on() -> None:
    with_it, without = codes.known_codes(True), codes.known_codes(False)
    assert set(with_it) - set(without) == {40, 41, 43, 44, 45, 46, 48}
    assert set(without) == {0, 1, 2, 3, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87}


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        (b"SvSPC.py", None),
        (b"SvSPC.py?", None),
        (b"SvSPC.py?port=gdb", "gdb"),
        (b"SvSPC.py?port=" + b"a" * 32, "a" * 32),
        (b"SvSPC.py?port=A-z_0", "A-z_0"),
        (b"SvSPC.py?x=1&port=gdb&y", "gdb"),
        (b"SvSPC.py?x=1", None),
        (b"Sother", None),
    ],
)
def test_service_of_ours_is_a_request_with_its_label(payload: bytes, label: str | None) -> None:
    uri = payload[1:].decode()
    assert codes.parse_proxy(payload, ("vSPC.py", "other"), ()) == ProxyRequest("S", uri, label)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "direction"),
        (b"XvSPC.py", "direction is 'X'"),
        (b"svSPC.py", "direction is 's'"),
        (b"\xffvSPC.py", r"direction is '\xff'"),
        (b"S", "no such service; we are vSPC.py"),
        (b"Svspc.py", "no such service"),
        (b"SvSPC.pyx", "no such service"),
        (b"SvSPC.py\0", "no such service"),
        (b"S\xff\xfe", "no such service"),
        (b"SvSPC.py?port=", "port label"),
        (b"SvSPC.py?port=a.b", "port label"),
        (b"SvSPC.py?port=../x", "port label"),
        (b"SvSPC.py?port=gdb%0a", "port label"),
        (b"SvSPC.py?port=" + b"a" * 33, "port label"),
        (b"SvSPC.py?port=a&port=b", "more than one port label"),
        (b"SvSPC.py?" + b"x" * 1024, "longer than 1024"),
        (b"Ctcp://10.0.0.1:22", "dial"),
        (b"CvSPC.py", "dial"),
    ],
)
def test_anything_else_is_refused_with_the_reason(payload: bytes, reason: str) -> None:
    judged = codes.parse_proxy(payload, ("vSPC.py",), ())
    assert isinstance(judged, ProxyRefused)
    assert reason in judged.reason


def test_refused_uri_is_bounded() -> None:
    judged = codes.parse_proxy(b"S" + b"x" * 16000, ("vSPC.py",), ())
    assert len(judged.uri) <= 1024


def test_a_target_that_may_be_dialled_is_a_request() -> None:
    judged = codes.parse_proxy(b"Ctcp://h:1", ("vSPC.py",), ("tcp://h:1",))
    assert judged == ProxyRequest("C", "tcp://h:1", None)
