"""What rules of nftables do to a port: a whole set of rules as the real nft prints it, and single rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest

from vspcd.ctl.packetfilter import DEPENDS, DROPS, Chain, Judgement, Ruleset

REAL = (Path(__file__).parent / "nft.json").read_text()
INPUT = Chain("inet", "filter", "input")
PLACE = {"family": "inet", "table": "filter"}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}


def match(left: object, right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def judged(*rules: list[Any], policy: str = "accept", **chains: list[Any]) -> Optional[tuple[str, list[int]]]:
    """What becomes of port 13370: how, and by which rules, counted from 1; None when it is let in."""
    objects: list[Any] = [{"metainfo": {"json_schema_version": 1}}]
    objects.append({"chain": {**PLACE, "name": "input", "type": "filter", "hook": "input", "policy": policy}})
    objects += [
        {"rule": {**PLACE, "chain": "input", "handle": number, "expr": expr}}
        for number, expr in enumerate(rules, 1)
    ]
    for name, expr in chains.items():
        objects.append({"chain": {**PLACE, "name": name}})
        objects.append({"rule": {**PLACE, "chain": name, "handle": 100, "expr": expr}})
    found = list(Ruleset(json.dumps({"nftables": objects})).judged(13370))
    return (found[0].what, list(found[0].rules)) if found else None


@pytest.mark.parametrize("port", [22, 8050, 443, 13370])
def test_ports_that_real_rules_let_in(port: int) -> None:
    assert list(Ruleset(REAL).judged(port)) == []


@pytest.mark.parametrize("port", [23, 7999, 8101, 14001])
def test_ports_that_a_real_rule_drops(port: int) -> None:
    assert list(Ruleset(REAL).judged(port)) == [Judgement(INPUT, DROPS, [14])]


def test_without_rules_the_policy_decides() -> None:
    assert judged() is None
    assert judged(policy="drop") == (DROPS, [])


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (match(PORT, 13370), (DROPS, [1])),
        (match(PORT, {"set": [22, {"range": [13000, 14000]}]}), (DROPS, [1])),
        (match(PORT, {"range": [1, 1023]}), None),
        (match(PORT, 22, "!="), (DROPS, [1])),
        (match(PORT, 13370, "!="), None),
        (match(PORT, "@nowhere"), (DEPENDS, [1])),
        (match({"payload": {"protocol": "udp", "field": "dport"}}, 13370), None),
        (match({"meta": {"key": "l4proto"}}, {"set": ["udp", "tcp"]}), (DROPS, [1])),
        (match({"meta": {"key": "l4proto"}}, 6), (DROPS, [1])),
        (match(STATE, ["established", "related"], "in"), None),
        (match(STATE, "new"), (DROPS, [1])),
        (match({"meta": {"key": "iifname"}}, "lo"), None),
        (match({"meta": {"key": "iifname"}}, "lo", "!="), (DROPS, [1])),
        (match({"meta": {"key": "iifname"}}, "eth0"), (DEPENDS, [1])),
        (match(SOURCE, "10.0.0.1"), (DEPENDS, [1])),
        ({"xt": {"type": "match", "name": "geoip"}}, (DEPENDS, [1])),
        ({"limit": {"rate": 5, "per": "minute"}}, (DEPENDS, [1])),
        ({"counter": {"packets": 0, "bytes": 0}}, (DROPS, [1])),
    ],
)
def test_conditions_of_a_rule_that_drops(condition: Any, found: Optional[tuple[str, list[int]]]) -> None:
    assert judged([condition, {"drop": None}]) == found


def test_a_doubt_about_a_rule_that_changes_nothing_is_none() -> None:
    assert judged([match(SOURCE, "10.0.0.1"), {"accept": None}]) is None
    assert judged([match(SOURCE, "10.0.0.1"), {"drop": None}], policy="drop") == (DROPS, [])


def test_the_first_rule_that_fits_decides() -> None:
    accept, drop = [match(PORT, 13370), {"accept": None}], [{"drop": None}]
    assert judged(accept, drop) is None
    assert judged(drop, accept) == (DROPS, [1])
    assert judged([match(SOURCE, "10.0.0.1"), {"accept": None}], drop) == (DEPENDS, [1])


def test_chains_are_gone_through() -> None:
    accept = [match(PORT, 13370), {"accept": None}]
    assert judged([{"jump": {"target": "mine"}}], policy="drop", mine=accept) is None
    drop = [{"drop": None}]
    assert judged([{"jump": {"target": "mine"}}], drop, mine=[{"return": None}]) == (DROPS, [2])
    assert judged([{"goto": {"target": "mine"}}], drop, mine=[match(PORT, 1), {"drop": None}]) is None
    assert judged([{"goto": {"target": "mine"}}], mine=drop) == (DROPS, [100])
    assert judged([match(SOURCE, "::1"), {"jump": {"target": "mine"}}], policy="drop", mine=accept) == (
        DEPENDS,
        [1],
    )
    assert judged([{"jump": {"target": "input"}}]) is None


def test_a_map_of_verdicts_is_read() -> None:
    by_state = {
        "key": STATE,
        "data": {"set": [["invalid", {"drop": None}], ["established", {"accept": None}]]},
    }
    assert judged([{"vmap": by_state}]) is None
    by_port = {"key": PORT, "data": {"set": [[{"range": [13000, 14000]}, {"drop": None}]]}}
    assert judged([{"vmap": by_port}]) == (DROPS, [1])
    by_source = {"key": SOURCE, "data": "@sources"}
    assert judged([{"vmap": by_source}]) == (DEPENDS, [1])


def test_what_is_no_ruleset_is_refused() -> None:
    for text in ("", "[]", "{}", "nonsense"):
        with pytest.raises(ValueError, match=r"rules|Expecting"):
            Ruleset(text)
