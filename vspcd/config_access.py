"""The rules of ``access`` as they stand in the configuration.

Pure. Does: turns the YAML of a list of rules into ``vspcd.core.rights.Rule``, and finds all mistakes in it.
Never: looks whether a user or a group exists.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from vspcd.config_values import NAMES, NETWORKS, PATTERNS, Part, Parts, Unfit, mapping, several, shown
from vspcd.core.patterns import ANYBODY
from vspcd.core.rights import RIGHTS, Rule

WHO = ("users", "groups", "addresses", "certificates")
EXPECTS = (
    "a list of rules such as {users: [alice], groups: [ops], addresses: [10.0.0.0/8], certificates: [alice],"
    f" consoles: ['web*', '!web-old'], may: write}}, where may is one of {', '.join(RIGHTS[1:])}"
)


def _right(node: yaml.Node) -> int:
    if not isinstance(node, yaml.ScalarNode) or node.value not in RIGHTS[1:]:
        raise Unfit([(node, f"{shown(node)} is no right")])
    return RIGHTS.index(node.value)


MEMBERS: Mapping[str, Part] = {
    "users": NAMES.parse,
    "groups": NAMES.parse,
    "addresses": NETWORKS.parse,
    "certificates": PATTERNS.parse,
    "consoles": PATTERNS.parse,
    "may": _right,
}


def _rule(node: yaml.Node) -> Rule:
    values = mapping(node, "rule", MEMBERS)
    lacking = _lacks(values)
    if lacking:
        raise Unfit([(node, lacking)])
    users, groups, addresses, certificates = (values.get(name, ()) for name in WHO)
    return Rule(users, groups, addresses, certificates, values.get("consoles") or (ANYBODY,), values["may"])


def _lacks(values: Parts) -> str:
    if not any(values.get(name) for name in WHO):
        return f"the rule names nobody, by one of {', '.join(WHO)}"
    return "" if "may" in values else "the rule does not say what they may"


ACCESS = several(EXPECTS, _rule)
