"""The escape key's state machine."""

from __future__ import annotations

from typing import Optional, Union

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vspcd.ctl.escape import (
    EXPLAINED,
    KEYS,
    MENU,
    SEND,
    Action,
    Answer,
    EscapeKeys,
    Piece,
    escape_name,
    key_name,
    parse_key,
)

ESCAPE = b"\x1d"
CONSERVER = b"\x05c"


def received(chunks: list[bytes], escape: Optional[bytes] = ESCAPE) -> list[Piece]:
    """What a machine makes of the chunks, neighbouring bytes joined; sending a file asks a question."""
    keys = EscapeKeys(escape)
    joined: list[Piece] = []
    for chunk in chunks:
        for piece in keys.receive(chunk):
            last = joined[-1] if joined else None
            if isinstance(piece, bytes) and isinstance(last, bytes):
                joined[-1] = last + piece
            else:
                joined.append(piece)
            if isinstance(piece, Action) and piece.name == SEND:
                keys.ask()
    return joined


def test_typing_goes_to_the_vm() -> None:
    assert received([b"ls\r"]) == [b"ls\r"]


def test_escape_and_dot_detach() -> None:
    assert received([b"ls\x1d."]) == [b"ls", Action("detach", ord("."))]


def test_what_is_typed_behind_an_action_goes_to_the_vm() -> None:
    assert received([b"\x1d?more"]) == [Action("help", ord("?")), b"more"]


@pytest.mark.parametrize("escape", [ESCAPE, CONSERVER, b"&"])
def test_escape_twice_sends_one_escape(escape: bytes) -> None:
    assert received([b"a" + escape + escape + b"b"], escape) == [b"a" + escape + b"b"]


def test_an_unknown_key_is_told_and_not_sent() -> None:
    assert received([b"\x1dx"]) == [Action("unknown", ord("x"))]


@pytest.mark.parametrize("escape", [ESCAPE, CONSERVER])
def test_the_machine_waits_for_the_key_behind_escape(escape: bytes) -> None:
    keys = EscapeKeys(escape)
    assert list(keys.receive(escape)) == []
    assert keys.pending
    assert list(keys.receive(b".")) == [Action("detach", ord("."))]
    assert not keys.pending


def test_without_an_escape_key_every_byte_goes_to_the_vm() -> None:
    everything = bytes(range(256))
    assert received([everything], None) == [everything]


def test_the_first_of_two_escape_keys_goes_to_the_vm_with_what_follows() -> None:
    assert received([b"a\x05b\x05\x05c.\x05"], CONSERVER) == [b"a\x05b\x05", Action("detach", ord("."))]


def test_half_an_escape_in_the_menu_is_no_command() -> None:
    assert received([b"\x05c\x05xy"], CONSERVER) == [Action("unknown", ord("x")), b"y"]


@pytest.mark.parametrize("key", sorted(MENU))
def test_every_key_of_the_menu_does_what_the_table_says(key: int) -> None:
    assert received([ESCAPE + bytes([key])]) == [Action(MENU[key], key)]


def test_no_key_stands_for_two_commands() -> None:
    keys = "".join(KEYS.values())
    assert len(keys) == len(set(keys))


def test_every_explained_key_is_in_the_menu() -> None:
    assert [key for key, _ in EXPLAINED if key != "Enter" and ord(key) not in MENU] == []


def test_a_function_key_behind_escape_leaves_the_menu_whole() -> None:
    assert received([b"\x1d\x1b[Aq\x1b[A"]) == [Action("cancel", 0x1B), b"q\x1b[A"]


def test_escape_and_the_escape_key_of_the_terminal_leave_the_menu() -> None:
    assert received([b"\x1d\x1bls"]) == [Action("cancel", 0x1B), b"ls"]
    assert received([b"\x1d\x1b\x1bx"]) == [Action("cancel", 0x1B), b"\x1bx"]


def test_what_follows_a_question_is_its_answer_up_to_enter() -> None:
    assert received([b"\x1d>a file\rls\r"]) == [Action(SEND, ord(">")), Answer("a file"), b"ls\r"]


@pytest.mark.parametrize("cancel", [b"\x03", b"\x07", b"\x1d"])
def test_a_question_can_be_left(cancel: bytes) -> None:
    assert received([b"\x1d>a fi" + cancel + b"ls\r"]) == [Action(SEND, ord(">")), Answer(None), b"ls\r"]


def test_a_printable_escape_key_can_be_in_an_answer() -> None:
    assert received([b"&>a&b\r"], b"&") == [Action(SEND, ord(">")), Answer("a&b")]


def test_a_question_that_is_given_up_takes_no_keys() -> None:
    keys = EscapeKeys(ESCAPE)
    keys.ask()
    assert list(keys.receive(b"half")) == []
    assert keys.line == "half"
    keys.give_up()
    assert keys.line is None
    assert list(keys.receive(b"ls\r")) == [b"ls\r"]


TYPED = [
    b"\x1d",
    b"\x05",
    b"c",
    b".",
    b">",
    b"x",
    b"\x1b",
    b"[",
    b"A",
    b"O",
    b"\xff",
    b"\r",
    b"\x03",
    b"\x7f",
    b"\xc3",
]


@pytest.mark.parametrize("escape", [ESCAPE, CONSERVER, b">"])
@given(st.lists(st.sampled_from(TYPED), max_size=30), st.data())
@example([b"\x1d", b"\x1b", b"[", b"A"], None)
@example([b"\x05", b"c", b"\x05", b"c", b"\x05", b"x"], None)
def test_any_chunking_gives_the_same_result(
    escape: bytes, typed: list[bytes], data: Optional[st.DataObject]
) -> None:
    whole = b"".join(typed)
    some = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5))) if data else range(len(whole))
    edges = [0, *some, len(whole)]
    assert received([whole[a:b] for a, b in zip(edges, edges[1:])], escape) == received([whole], escape)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("^]", b"\x1d"),
        ("^a", b"\x01"),
        ("^A", b"\x01"),
        ("C-a", b"\x01"),
        ("c-t", b"\x14"),
        ("~", b"~"),
        ("&", b"&"),
        ("none", None),
        ("^@", b"\0"),
        ("^Ec", b"\x05c"),
        ("C-ec", b"\x05c"),
    ],
)
def test_a_key_is_read_as_people_write_it(text: str, key: Union[bytes, None]) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "^", "^1", "ctrl-a", "é", "ab", "C-", "^Ecf", "^Eé", "&c", "^["])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_key(text)


@pytest.mark.parametrize("key", [k for k in range(0x7F) if k not in (ord("^"), 0x1B)])
def test_a_keys_name_reads_back_as_the_key(key: int) -> None:
    assert parse_key(key_name(key)) == bytes([key])


def test_the_name_of_two_keys_reads_back() -> None:
    assert (escape_name(CONSERVER), parse_key("^Ec")) == ("^Ec", CONSERVER)
