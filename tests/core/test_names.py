"""What people's words for a console mean, and how names that strangers chose are shown and filed."""

from __future__ import annotations

import difflib
from typing import NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proto.streams import examples
from vspcd.core import names
from vspcd.core.names import Ambiguous, NotFound


class Console(NamedTuple):
    id: str
    uuid: str
    label: Optional[str]
    name: Optional[str]


def console(uuid: str, name: Optional[str], label: Optional[str] = None) -> Console:
    return Console(f"{uuid}.{label}" if label else uuid, uuid, label, name)


UUID = "01234567-89ab-cdef-fedc-ba9800000000"
WEB = console(UUID, "web01")
WEB_GDB = console(UUID, "web01", "gdb")
DB = console("01aaaaaa-0000-0000-0000-000000000000", "db01")
DB_LONG = console("02bbbbbb-0000-0000-0000-000000000000", "db01.example.org")
NAMELESS = console("deadbeef-0000-0000-0000-000000000000", None)
LABELLED = console("03cccccc-0000-0000-0000-000000000000", "router", "con")
ALL = [WEB_GDB, WEB, DB, DB_LONG, NAMELESS, LABELLED]


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("web01", WEB),
        (UUID, WEB),
        (UUID.upper(), WEB),
        (UUID.replace("-", ""), WEB),
        ("01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00", WEB),
        (f"{UUID}.gdb", WEB_GDB),
        (f"{UUID.replace('-', '').upper()}.gdb", WEB_GDB),
        ("web01.gdb", WEB_GDB),
        ("db01", DB),
        ("db01.example.org", DB_LONG),
        ("db01.", DB_LONG),
        ("we", WEB),
        ("web01.g", WEB_GDB),
        ("02", DB_LONG),
        ("01234", WEB),
        ("01234567-89", WEB),
        ("0123456789", WEB),
        (f"{UUID}.g", WEB_GDB),
        ("DEAD", NAMELESS),
        ("deadbeef-0000-0000-0000-000000000000", NAMELESS),
        ("router", LABELLED),
        ("03cccccc-0000-0000-0000-000000000000", LABELLED),
    ],
)
def test_query_means_one_console(query: str, meant: Console) -> None:
    assert names.resolve(query, ALL) is meant


def test_order_of_the_consoles_does_not_matter() -> None:
    assert names.resolve("web01", [WEB, WEB_GDB]) is names.resolve("web01", [WEB_GDB, WEB])


def test_a_vm_that_calls_itself_by_anothers_uuid_does_not_draw_its_users() -> None:
    impostor = console("ffffffff-0000-0000-0000-000000000000", UUID)
    assert names.resolve(UUID, [impostor, WEB]) is WEB


def test_a_name_goes_before_the_beginning_of_another() -> None:
    assert names.resolve("db01", [DB_LONG, DB]) is DB


@pytest.mark.parametrize(
    ("query", "consoles", "candidates"),
    [
        ("0", [WEB, DB], [WEB, DB]),
        ("same", [console(UUID, "same"), console(NAMELESS.uuid, "same")], [console(UUID, "same"), NAMELESS]),
        (
            "two",
            [console(UUID, "two"), console(NAMELESS.uuid, "two", "a")],
            [console(UUID, "two"), console(NAMELESS.uuid, "two", "a")],
        ),
        (
            "r",
            [console(UUID, "r", "a"), console(UUID, "r", "b")],
            [console(UUID, "r", "a"), console(UUID, "r", "b")],
        ),
    ],
)
def test_ambiguous_query_lists_the_candidates(
    query: str, consoles: list[Console], candidates: list[Console]
) -> None:
    with pytest.raises(Ambiguous) as raised:
        names.resolve(query, consoles)
    assert sorted(raised.value.candidates) == sorted(candidate.id for candidate in candidates)
    assert all(candidate.id in str(raised.value) for candidate in candidates)


def test_list_of_candidates_is_bounded() -> None:
    many = [console(f"{number:08x}-0000-0000-0000-000000000000", f"vm{number}") for number in range(50)]
    with pytest.raises(Ambiguous, match=r"any of 50 consoles.* and 40 more"):
        names.resolve("vm", many)


def test_list_of_candidates_names_ten() -> None:
    many = [console(f"{number:08x}-0000-0000-0000-000000000000", f"vm{number}") for number in range(50)]
    with pytest.raises(Ambiguous) as raised:
        names.resolve("vm", many)
    assert sum(candidate.id in str(raised.value) for candidate in many) == 10
    assert len(raised.value.candidates) == 50


def test_unknown_name_suggests_a_near_one() -> None:
    with pytest.raises(NotFound, match=r"^no console is named web1; did you mean web01\?$") as raised:
        names.resolve("web1", ALL)
    assert raised.value.suggestions == ["web01"]


@pytest.mark.parametrize(
    "query", ["eb00001.example.org", "zeb00001.example.org", "web00001.example.og", "web00001.example.ogr"]
)
def test_near_name_is_found_among_thousands(query: str) -> None:
    many = [console(f"{n:08x}-0000-0000-0000-000000000000", f"web{n:05}.example.org") for n in range(5000)]
    with pytest.raises(NotFound) as raised:
        names.resolve(query, many)
    assert "web00001.example.org" in raised.value.suggestions


def test_few_of_thousands_of_names_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def close(_query: str, possibilities: list[str], **_limits: int) -> list[str]:
        compared.extend(possibilities)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", close)
    many = [console(f"{n:08x}-0000-0000-0000-000000000000", f"web{n:05}.example.org") for n in range(5000)]
    with pytest.raises(NotFound):
        names.resolve("web0100.exmaple.org", many)
    assert 0 < len(compared) <= 80
    assert names.found("web0100.exmaple.org", many) is None
    assert len(compared) <= 80


@pytest.mark.parametrize("query", ["", "nothing-alike", "."])
def test_unknown_name_without_a_near_one_suggests_nothing(query: str) -> None:
    with pytest.raises(NotFound) as raised:
        names.resolve(query, ALL)
    assert raised.value.suggestions == []
    assert "mean" not in str(raised.value)


def test_errors_show_names_escaped() -> None:
    hostile = [console(UUID, "web\x1b]0;x\x07"), console(NAMELESS.uuid, "web\x1b]0;x\x07")]
    with pytest.raises(Ambiguous) as ambiguous:
        names.resolve("web", hostile)
    with pytest.raises(NotFound) as missing:
        names.resolve("wob\x1b]0;x\x07", hostile)
    assert "\\x1b]0;x\\x07" in str(ambiguous.value)
    assert str(missing.value).count("\\x1b]0;x\\x07") == 2
    assert str(ambiguous.value).isprintable()
    assert str(missing.value).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web01", "web01"),
        ("b\u00fccher \u65e5\u672c", "b\u00fccher \u65e5\u672c"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\r\n\tb\0", "a\\x0d\\x0a\\x09b\\x00"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202egpj", "\\u202egpj"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_a_terminal_might_obey_is_escaped(text: str, shown: str) -> None:
    assert names.visible(text) == shown


@given(st.text())
@examples(100)
def test_visible_text_is_printable(text: str) -> None:
    assert names.visible(text).isprintable()


@pytest.mark.parametrize(
    ("name", "filed"),
    [
        ("web01", "web01"),
        ("web01.example.org", "web01.example.org"),
        ("b\u00fccher", "b\u00fccher"),
        ("", "unnamed"),
        (".", "_"),
        ("..", "_."),
        (".ssh", "_ssh"),
        ("-rf", "_rf"),
        ("../../x", "_._.._x"),
        ("/etc/passwd", "_etc_passwd"),
        ("a b\tc\nd", "a_b_c_d"),
        ("a\0\x1b\u202e\udcffb", "a____b"),
        ("x" * 200, "x" * 100),
        ("\u00fc" * 200, "\u00fc" * 50),
        ("x" + "\u00fc" * 200, "x" + "\u00fc" * 49),
    ],
)
def test_name_is_filed_harmlessly(name: str, filed: str) -> None:
    assert names.file_name(name) == filed


@given(st.text(st.characters()) | st.text("./-\0 a\u00fc\udcff", max_size=300))
@examples(100)
def test_filed_name_keeps_the_rules(name: str) -> None:
    filed = names.file_name(name)
    assert 1 <= len(filed.encode()) <= 100
    assert filed.isprintable()
    assert not filed.startswith((".", "-"))
    assert "/" not in filed
