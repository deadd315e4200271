"""The rules of ``access`` as they stand in the configuration.

Pure. Does: turns the YAML of a list of rules into ``vspcd.core.rights.Rule``, and finds all mistakes in it.
Never: looks whether a user or a group exists.
"""

from __future__ import annotations

from typing import Any

import yaml

from vspcd.config_values import NAMES, NETWORKS, PATTERNS, Kind, Unfit, several, shown
from vspcd.core.rights import ANYBODY, RIGHTS, Rule

MEMBERS = ("users", "groups", "addresses", "certificates", "consoles", "may")
WHO = MEMBERS[:4]
EXPECTS = (
    "a list of rules such as {users: [alice], groups: [ops], addresses: [10.0.0.0/8], certificates: [alice],"
    f" consoles: ['web*', '!web-old'], may: write}}, where may is one of {', '.join(RIGHTS[1:])}"
)
KINDS: dict[str, Kind[tuple[Any, ...]]] = {
    "users": NAMES,
    "groups": NAMES,
    "addresses": NETWORKS,
    "certificates": PATTERNS,
    "consoles": PATTERNS,
}

Fault = tuple[yaml.Node, str]


def _rule(node: yaml.Node) -> Rule:
    if not isinstance(node, yaml.MappingNode):
        raise Unfit([(node, f"{shown(node)} is no rule")])
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for label, value in node.value:
        name = str(label.value)
        if name not in MEMBERS:
            faults.append((label, f"{name!r} is no part of a rule"))
        elif name in values:
            faults.append((label, f"{name!r} stands there twice"))
        else:
            values[name], wrong = _value(name, value)
            faults += wrong
    if faults or _lacks(values):
        raise Unfit(faults or [(node, _lacks(values))])
    users, groups, addresses, certificates = (values.get(name, ()) for name in WHO)
    return Rule(users, groups, addresses, certificates, values.get("consoles") or (ANYBODY,), values["may"])


def _value(name: str, node: yaml.Node) -> tuple[Any, list[Fault]]:
    try:
        return _right(node) if name == "may" else KINDS[name].parse(node), []
    except Unfit as unfit:
        return None, unfit.faults


def _lacks(values: dict[str, Any]) -> str:
    if not any(values.get(name) for name in WHO):
        return f"the rule names nobody, by one of {', '.join(WHO)}"
    return "" if "may" in values else "the rule does not say what they may"


def _right(node: yaml.Node) -> int:
    if not isinstance(node, yaml.ScalarNode) or node.value not in RIGHTS[1:]:
        raise Unfit([(node, f"{shown(node)} is no right")])
    return RIGHTS.index(node.value)


ACCESS = several(EXPECTS, _rule)
