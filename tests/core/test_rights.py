"""Who may do what: rules only give, and their order does not matter."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core import rights as rights_module
from vspcd.core.patterns import matches
from vspcd.core.rights import ADMINISTER, NOTHING, TAKE_OVER, WATCH, WRITE, Rights, Rule, Who

HEX = "4c4c4544005130108052b4c04f564432"
ID = "4c4c4544-0051-3010-8052-b4c04f564432"


class Console(NamedTuple):
    id: str = ID
    uuid: str = HEX
    label: str = ""
    name: Optional[str] = "web01"


def rule(
    may: int,
    *consoles: str,
    users: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    certificates: tuple[str, ...] = (),
) -> Rule:
    networks = tuple(ipaddress.ip_network(each) for each in addresses)
    return Rule(users, groups, networks, certificates, consoles or ("*",), may)


ALICE = Who(uid=1000, groups=[100], user="alice")
BOB = Who(uid=1001, groups=[100, 4], user="bob")
REMOTE = Who(address="10.1.2.3:4000")
KNOWN: Any = {"users": {"alice": 1000, "bob": 1001}, "groups": {"ops": 4}}
WEB, DB = Console(), Console(name="db1")


def test_without_rules_whoever_can_connect_may_what_he_always_could() -> None:
    assert Rights().on(ALICE, WEB) == Rights().overall(ALICE) == ADMINISTER
    assert Rights().on(REMOTE, WEB) == WRITE


def test_with_a_rule_only_rules_count_and_root_may_everything() -> None:
    rights = Rights([rule(WRITE, "web*", users=("alice",))], **KNOWN)
    assert rights.on(ALICE, WEB) == WRITE
    assert rights.on(ALICE, DB) == rights.on(BOB, WEB) == rights.on(REMOTE, WEB) == NOTHING
    assert rights.on(Who(uid=0), DB) == rights.overall(Who(uid=0)) == ADMINISTER


def test_groups_beside_the_first_one_count() -> None:
    rights = Rights([rule(TAKE_OVER, groups=("ops",))], **KNOWN)
    assert (rights.on(ALICE, WEB), rights.on(BOB, WEB)) == (NOTHING, TAKE_OVER)


def test_users_and_groups_can_be_numbers_and_all_users_a_star() -> None:
    assert Rights([rule(WATCH, users=("1000",))]).on(ALICE, WEB) == WATCH
    assert Rights([rule(WATCH, groups=("4",))]).on(BOB, WEB) == WATCH
    assert Rights([rule(WATCH, users=("*",))]).on(BOB, WEB) == WATCH
    assert Rights([rule(WATCH, users=("*",))]).on(REMOTE, WEB) == NOTHING


def test_a_name_that_nobody_has_means_nobody() -> None:
    assert Rights([rule(WATCH, users=("carol",), groups=("staff",))]).on(ALICE, WEB) == NOTHING


def test_addresses_and_certificates_mean_who_comes_by_tcp_alone() -> None:
    rights = Rights([rule(WRITE, addresses=("10.0.0.0/8",)), rule(WATCH, certificates=("ali*",))])
    assert rights.on(REMOTE, WEB) == WRITE
    assert rights.on(Who(address="[2001:db8::1]:99", certificate="alice"), WEB) == WATCH
    assert rights.on(Who(address="192.0.2.1:99", certificate="bob"), WEB) == NOTHING
    assert rights.on(Who(uid=5, address="10.1.2.3:4000", certificate="alice"), WEB) == NOTHING


def test_what_concerns_the_daemon_needs_a_rule_for_all_consoles() -> None:
    assert Rights([rule(ADMINISTER, "w*", users=("alice",))], **KNOWN).overall(ALICE) == NOTHING
    assert Rights([rule(ADMINISTER, "*", "!x", users=("alice",))], **KNOWN).overall(ALICE) == NOTHING
    assert Rights([rule(ADMINISTER, users=("alice",))], **KNOWN).overall(ALICE) == ADMINISTER


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [
        (["web*"], True),
        (["web0[1-3]"], True),
        (["WEB*"], False),
        (["web"], False),
        ([ID], True),
        ([HEX], True),
        (["4c4c4544-*"], True),
        (["db*", "web*"], True),
        (["*", "!web*"], False),
        (["!db*"], True),
        (["!web01"], False),
    ],
)
def test_patterns_mean_names_and_uuids_in_full(patterns: list[str], meant: bool) -> None:
    assert matches(patterns, WEB) is meant


def test_a_labelled_port_is_meant_by_its_label_too() -> None:
    console = Console(id=f"{ID}.gdb", label="gdb")
    assert all(matches([each], console) for each in ("web01.gdb", "*.gdb", "web01", ID, f"{ID}.gdb"))
    assert not matches(["*", "!*.gdb"], console)


def test_a_console_without_a_name_is_not_meant_by_names() -> None:
    assert not matches(["web*"], Console(name=None))
    assert matches(["*"], Console(name=None))


@pytest.mark.parametrize("who", [REMOTE, Who(address="10.1.2.3:4000", certificate="ali")])
def test_who_somebody_is_is_found_out_once_for_all_consoles(
    who: Who, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def counted(host: str) -> Any:
        parsed.append(host)
        return ipaddress.ip_address(host)

    monkeypatch.setattr(rights_module, "ip_address", counted)
    many = [Console(name=f"web{number}") for number in range(1000)]
    given_rules = [rule(WATCH, f"web{number}*", addresses=("10.0.0.0/8",)) for number in range(1, 10)]
    assert len(Rights(given_rules).those(who, many, WATCH)) == 999
    assert parsed == ["10.1.2.3"]


def test_a_rule_is_asked_once_whom_it_means_for_all_consoles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Rule] = []
    means_user = Rights._means_user

    def counted(rights: Rights, given: Rule, who: Who) -> bool:
        asked.append(given)
        return means_user(rights, given, who)

    monkeypatch.setattr(Rights, "_means_user", counted)
    given_rules = [rule(WATCH, f"web{number}", users=("alice",)) for number in range(20)]
    many = [Console(name=f"web{number}") for number in range(100)]
    assert Rights(given_rules, **KNOWN).those(ALICE, many, WATCH) == many[:20]
    assert asked == given_rules


rules = st.lists(
    st.builds(
        rule,
        st.integers(WATCH, ADMINISTER),
        st.sampled_from(["web*", "db*", "*", "!web*", "web01", "DB?"]),
        st.sampled_from(["web*", "!db*", "!*1", "x", ID]),
        users=st.sampled_from([(), ("alice",), ("bob",), ("*",)]),
        groups=st.sampled_from([(), ("ops",)]),
        addresses=st.sampled_from([(), ("10.0.0.0/8",)]),
        certificates=st.just(("x",)),
    ),
    min_size=1,
)


@given(rules, st.randoms(), st.sampled_from([ALICE, BOB, REMOTE]), st.sampled_from([WEB, DB]))
def test_the_order_of_rules_does_not_matter_and_a_rule_takes_nothing_away(
    given_rules: list[Rule], random: object, who: Who, console: Console
) -> None:
    found = Rights(given_rules, **KNOWN).on(who, console)
    mixed = list(given_rules)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert Rights(mixed, **KNOWN).on(who, console) == found
    if len(given_rules) > 1:
        assert Rights(given_rules[1:], **KNOWN).on(who, console) <= found
    for right in range(WATCH, ADMINISTER + 1):
        assert Rights(given_rules, **KNOWN).those(who, [console], right) == [console] * (found >= right)
    assert found == max(Rights([each], **KNOWN).on(who, console) for each in given_rules)
