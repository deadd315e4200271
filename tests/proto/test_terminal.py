"""Who is on a console port, and what reaches the VM and the client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import cut, drained, examples, joined, places, telnet_streams, through_json
from vspcd.proto import telnet
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.terminal import RAW, TELNET, UNDECIDED, Break, Input, Resized, Terminal

OFFERED = bytes.fromhex("FFFB01 FFFB03 FFFB00 FFFD00 FFFD03")


def hear(terminal: Terminal, data: bytes) -> list[Input]:
    """What data means, without the tokens that mean nothing."""
    return [piece for piece in joined(drained(terminal.receive, [data])) if piece is not None]


def negotiated(binary: bool) -> Terminal:
    terminal = Terminal()
    terminal.offer()
    hear(
        terminal, bytes.fromhex("FFFD01 FFFD03 FFFD00 FFFB03") + (b"\xff\xfb\0" if binary else b"\xff\xfc\0")
    )
    terminal.take_output()
    return terminal


@pytest.mark.parametrize(
    "first", [b"x", b"\0", b"\r", b"$qSupported#37", b"\xff\xff", b"\xff\x41", b"\xff\xf0", b"a\xff\xfb\x01"]
)
def test_a_client_that_begins_with_anything_but_a_telnet_verb_is_raw(first: bytes) -> None:
    terminal = Terminal()
    assert terminal.receive(first) == [(first, len(first))]
    assert terminal.kind == RAW


@pytest.mark.parametrize("code", range(telnet.NOP, telnet.IAC))
def test_a_client_that_begins_with_a_telnet_verb_speaks_telnet(code: int) -> None:
    terminal = Terminal()
    terminal.receive(bytes((255, code)))
    assert terminal.kind == TELNET


@pytest.mark.parametrize("first", [b"", b"\xff"])
def test_a_client_that_may_be_either_is_undecided(first: bytes) -> None:
    terminal = Terminal()
    assert terminal.receive(first) == []
    assert terminal.kind == UNDECIDED


def test_a_raw_client_stays_raw_and_its_bytes_pass_unchanged() -> None:
    terminal = Terminal()
    terminal.receive(b"x")
    everything = bytes(range(256)) + bytes.fromhex("FFFB01 FFF3 FFF6 0D0A 0D00")
    assert terminal.receive(everything) == [(everything, len(everything))]
    assert terminal.encode(everything) == everything
    terminal.offer()
    assert terminal.take_output() == b""


def test_nothing_is_escaped_for_an_undecided_client() -> None:
    assert Terminal().encode(b"\xff") == b"\xff"


def test_output_is_escaped_for_a_telnet_client() -> None:
    assert negotiated(True).encode(b"a\xffb") == b"a\xff\xffb"


def test_offer_names_what_we_do_and_want_and_is_made_once() -> None:
    terminal = Terminal()
    terminal.offer()
    terminal.offer()
    assert terminal.take_output() == OFFERED
    assert terminal.kind == UNDECIDED


def test_a_client_that_speaks_telnet_first_gets_the_offer_too() -> None:
    terminal = Terminal()
    terminal.receive(bytes.fromhex("FFFD03"))
    assert terminal.take_output() == OFFERED


def test_an_offer_that_was_answered_with_typing_leaves_a_raw_client() -> None:
    terminal = Terminal()
    terminal.offer()
    assert terminal.receive(b"ls\r\n") == [(b"ls\r\n", 4)]
    assert terminal.kind == RAW


def test_window_size_is_agreed_to_and_told() -> None:
    terminal = negotiated(True)
    assert hear(terminal, bytes.fromhex("FFFB1F FFFA1F 0050 0018 FFF0")) == [Resized(80, 24)]
    assert terminal.take_output() == bytes.fromhex("FFFD1F")


def test_window_of_255_columns_is_unescaped() -> None:
    assert hear(negotiated(True), bytes.fromhex("FFFA1F 00FFFF 0018 FFF0")) == [Resized(255, 24)]


@pytest.mark.parametrize("size", [0, 3, 5])
def test_window_size_of_a_wrong_length_is_the_peers_fault(size: int) -> None:
    with pytest.raises(PeerError, match="window size"):
        negotiated(True).receive(telnet.subnegotiation(telnet.NAWS, bytes(size)))


def test_typing_ahead_of_a_fault_is_returned_before_it_is_raised() -> None:
    terminal = negotiated(True)
    bad = telnet.subnegotiation(telnet.NAWS, b"")
    assert terminal.receive(b"ls" + bad) == [(b"ls", 2)]
    with pytest.raises(PeerError):
        terminal.receive(bad)


@pytest.mark.parametrize("option", [telnet.TTYPE, telnet.STATUS, telnet.LINEMODE, 37, 39])
def test_other_options_are_refused(option: int) -> None:
    terminal = negotiated(True)
    assert (
        hear(terminal, telnet.negotiation(telnet.WILL, option) + telnet.negotiation(telnet.DO, option)) == []
    )
    refused = telnet.negotiation(telnet.DONT, option) + telnet.negotiation(telnet.WONT, option)
    assert terminal.take_output() == refused


def test_break_is_told() -> None:
    assert hear(negotiated(True), b"a\xff\xf3b") == [b"a", Break(), b"b"]


def test_are_you_there_is_answered() -> None:
    terminal = negotiated(True)
    assert hear(terminal, b"\xff\xf6") == []
    assert terminal.take_output() == b"\r\n[vspcd: yes]\r\n"


@pytest.mark.parametrize("code", [telnet.NOP, telnet.GA, telnet.DM, telnet.AO, 7])
def test_other_commands_mean_nothing_and_are_covered(code: int) -> None:
    assert negotiated(True).receive(b"\xff" + bytes((code,))) == [(None, 2)]


def test_offsets_point_behind_each_token() -> None:
    data = b"ab\xff\xffc\xff\xf3\xff\xf1d"
    assert negotiated(True).receive(data) == [(b"ab\xffc", 5), (Break(), 7), (None, 9), (b"d", 10)]


TYPED = [
    (b"ls\r\n", b"ls\r"),
    (b"ls\r\0", b"ls\r"),
    (b"ls\r", b"ls\r"),
    (b"\r\0\r\0", b"\r\r"),
    (b"\r\r\n", b"\r\r"),
    (b"\r\n\n", b"\r\n"),
    (b"\r\n\0", b"\r\0"),
    (b"\rx\n", b"\rx\n"),
    (b"\n", b"\n"),
    (b"\0", b"\0"),
    (b"\n\r", b"\n\r"),
    (b"\r\xff\xff\n", b"\r\xff\n"),
]


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_enter_is_one_cr_unless_the_client_is_binary(typed: bytes, expected: bytes) -> None:
    assert b"".join(piece for piece in hear(negotiated(False), typed) if isinstance(piece, bytes)) == expected


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_enter_is_one_cr_when_it_comes_byte_by_byte(typed: bytes, expected: bytes) -> None:
    terminal = negotiated(False)
    chunks = [typed[at : at + 1] for at in range(len(typed))]
    assert (
        b"".join(piece for piece in drained(terminal.receive, chunks) if isinstance(piece, bytes)) == expected
    )


def test_enter_is_one_cr_with_a_command_in_the_middle() -> None:
    assert hear(negotiated(False), b"\r\xff\xf3\nx") == [b"\r", Break(), b"x"]


@pytest.mark.parametrize("typed", [typed for typed, _ in TYPED])
def test_a_binary_clients_bytes_are_as_they_are(typed: bytes) -> None:
    assert hear(negotiated(True), typed) == [typed.replace(b"\xff\xff", b"\xff")]


def test_a_lf_after_the_change_to_binary_is_kept() -> None:
    terminal = negotiated(False)
    assert hear(terminal, b"\r\xff\xfb\0\n") == [b"\r", b"\n"]


def test_a_lf_after_a_while_of_binary_is_kept() -> None:
    assert hear(negotiated(False), b"\r\xff\xfb\0x\xff\xfc\0\n") == [b"\r", b"x", b"\n"]


def test_enter_cut_in_two_by_a_move_to_another_process_is_one_cr() -> None:
    terminal = negotiated(False)
    assert hear(terminal, b"\r") == [b"\r"]
    assert hear(Terminal.restore(through_json(terminal.snapshot())), b"\nx") == [b"x"]


def _driven(stream: bytes, where: list[int], move_at: int) -> tuple[list[Input], bytes, object]:
    """Everything that came of the stream, with the terminal moved once to another process."""
    terminal, tail = Terminal(), b""
    inputs: list[Input] = []
    output = b""
    for number, chunk in enumerate(cut(stream, where)):
        if number == move_at:
            terminal = Terminal.restore(through_json(terminal.snapshot()))
        tail += chunk
        while taken := terminal.receive(tail):
            tail = tail[taken[-1][1] :]
            inputs += [piece for piece, _ in taken if piece is not None]
        output += terminal.take_output()
    return joined(inputs), output, terminal.snapshot()


@given(telnet_streams, places)
@examples(200)
def test_any_splitting_gives_the_same_input_output_and_state(stream: bytes, where: list[int]) -> None:
    assert _driven(stream, where, -1) == _driven(stream, [], -1)


@given(telnet_streams, places, st.integers(0, 12))
@examples(200)
def test_a_restored_terminal_goes_on_identically(stream: bytes, where: list[int], move_at: int) -> None:
    assert _driven(stream, where, move_at) == _driven(stream, where, -1)


def test_queued_output_survives_being_written_down() -> None:
    terminal = Terminal()
    terminal.offer()
    assert Terminal.restore(through_json(terminal.snapshot())).take_output() == OFFERED


GOOD: dict[str, Any] = Terminal().snapshot()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {**GOOD, "kind": "ssh"},
        {**GOOD, "after_return": 1},
        {**GOOD, "output": "x"},
        {**GOOD, "output": None},
        {**GOOD, "options": {}},
    ],
)
def test_malformed_snapshot_is_our_fault(saved: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        Terminal.restore(saved)
