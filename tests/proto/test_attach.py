"""The framing between vspcctl and a worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import cut, drained, examples, places
from vspcd.proto import attach
from vspcd.proto.attach import Frame
from vspcd.proto.errors import LocalError, PeerError

BYTES = [
    (attach.frame(attach.DATA, b"hi", 7), bytes.fromhex("01000000 00000002 0000000000000007") + b"hi"),
    (attach.frame(attach.LIVE), bytes.fromhex("04000000 00000000 0000000000000000")),
    (
        attach.frame(attach.SKIPPED, b"12", 1 << 40),
        bytes.fromhex("03000000 00000002 0000010000000000") + b"12",
    ),
    (attach.frame(attach.INPUT, b"\xff"), bytes.fromhex("10000000 00000001 0000000000000000") + b"\xff"),
]

frames = st.builds(
    Frame, st.sampled_from(sorted(attach.TYPES)), st.binary(max_size=20), st.integers(0, (1 << 64) - 1)
)


@pytest.mark.parametrize(("framed", "expected"), BYTES)
def test_frame_is_a_header_of_16_bytes_and_the_payload(framed: bytes, expected: bytes) -> None:
    assert framed == expected


@given(st.lists(frames, max_size=6), places)
@examples(100)
def test_any_splitting_gives_the_frames_that_were_sent(sent: list[Frame], where: list[int]) -> None:
    stream = b"".join(attach.frame(frame.type, frame.payload, frame.offset) for frame in sent)
    assert list(drained(attach.frames, cut(stream, where))) == sent


def test_end_offsets_point_behind_each_frame() -> None:
    stream = attach.frame(attach.INPUT, b"abc") + attach.frame(attach.BREAK)
    assert [end for _, end in attach.frames(stream)] == [19, 35]


def test_bytearray_gives_bytes() -> None:
    [(frame, _)] = attach.frames(bytearray(attach.frame(attach.DATA, b"abc")))
    assert type(frame.payload) is bytes


def test_incomplete_frame_is_not_covered() -> None:
    stream = attach.frame(attach.DATA, b"abc", 1)
    assert all(attach.frames(stream[:size]) == [] for size in range(len(stream)))


def test_payload_of_the_limit_is_taken() -> None:
    [(frame, _)] = attach.frames(attach.frame(attach.DATA, b"x" * attach.PAYLOAD_LIMIT))
    assert len(frame.payload) == 65536


@pytest.mark.parametrize("type", [0, 7, 15, 18, 255])
def test_unknown_type_is_the_peers_fault(type: int) -> None:
    with pytest.raises(PeerError, match=f"type {type} "):
        attach.frames(bytes((type,)) + bytes(15))


def test_too_long_payload_is_the_peers_fault_before_it_comes() -> None:
    with pytest.raises(PeerError, match="65537"):
        attach.frames(bytes.fromhex("01000000 00010001 0000000000000000"))


def test_frames_ahead_of_a_fault_are_returned_before_it_is_raised() -> None:
    good = attach.frame(attach.INPUT, b"typed")
    assert attach.frames(good + bytes(16)) == [(Frame(attach.INPUT, b"typed", 0), len(good))]


@pytest.mark.parametrize(
    ("type", "payload", "offset"), [(9, b"", 0), (1, b"x" * 65537, 0), (1, b"", -1), (1, b"", 1 << 64)]
)
def test_impossible_frame_is_our_fault(type: int, payload: bytes, offset: int) -> None:
    with pytest.raises(LocalError):
        attach.frame(type, payload, offset)
