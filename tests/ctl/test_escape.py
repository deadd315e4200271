"""The escape key's state machine."""

from __future__ import annotations

from typing import Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.ctl.escape import MENU, Action, EscapeKeys, key_name, parse_key

ESCAPE = 0x1D


def received(chunks: list[bytes], escape: Union[int, None] = ESCAPE) -> list[Union[bytes, Action]]:
    """What a machine makes of the chunks, neighbouring bytes joined."""
    keys = EscapeKeys(escape)
    joined: list[Union[bytes, Action]] = []
    for piece in [piece for chunk in chunks for piece in keys.receive(chunk)]:
        last = joined[-1] if joined else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            joined[-1] = last + piece
        else:
            joined.append(piece)
    return joined


def test_typing_goes_to_the_vm() -> None:
    assert received([b"ls\r"]) == [b"ls\r"]


def test_escape_and_dot_detach() -> None:
    assert received([b"ls\x1d."]) == [b"ls", Action("detach", ord("."))]


def test_what_is_typed_behind_an_action_goes_to_the_vm() -> None:
    assert received([b"\x1d?more"]) == [Action("help", ord("?")), b"more"]


def test_escape_twice_sends_one_escape() -> None:
    assert received([b"a\x1d\x1db"]) == [b"a\x1db"]


def test_an_unknown_key_is_told_and_not_sent() -> None:
    assert received([b"\x1dx"]) == [Action("unknown", ord("x"))]


def test_the_machine_waits_for_the_key_behind_escape() -> None:
    keys = EscapeKeys(ESCAPE)
    assert (keys.receive(b"\x1d"), keys.pending) == ([], True)
    assert (keys.receive(b"."), keys.pending) == ([Action("detach", ord("."))], False)


def test_without_an_escape_key_every_byte_goes_to_the_vm() -> None:
    everything = bytes(range(256))
    assert received([everything], None) == [everything]


@pytest.mark.parametrize("key", sorted(MENU))
def test_every_key_of_the_menu_does_what_the_table_says(key: int) -> None:
    assert received([bytes([ESCAPE, key])]) == [Action(MENU[key], key)]


@given(st.lists(st.sampled_from([b"\x1d", b".", b"x", b"?", b"\xff", b"\r"]), max_size=30), st.data())
def test_any_chunking_gives_the_same_result(typed: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(typed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    edges = [0, *cuts, len(whole)]
    assert received([whole[a:b] for a, b in zip(edges, edges[1:])]) == received([whole])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("^]", 0x1D),
        ("^a", 1),
        ("^A", 1),
        ("C-a", 1),
        ("c-t", 0x14),
        ("~", ord("~")),
        ("none", None),
        ("^@", 0),
    ],
)
def test_a_key_is_read_as_people_write_it(text: str, key: Union[int, None]) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "^", "^1", "ctrl-a", "é", "ab", "C-"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_key(text)


@pytest.mark.parametrize("key", [k for k in range(0x7F) if k != ord("^")])
def test_a_keys_name_reads_back_as_the_key(key: int) -> None:
    assert parse_key(key_name(key)) == key
