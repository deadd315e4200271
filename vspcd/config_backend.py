"""The back end of the port map as it stands in the configuration.

Pure. Does: reads its name and what it is given. Never: looks whether there is such a module.
"""

from __future__ import annotations

import re

import yaml

from vspcd.config_values import Kind, Unfit, shown

KNOWN = ("memory", "file")
_OWN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _backend(node: yaml.Node) -> str:
    name = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if name not in KNOWN and not _OWN.fullmatch(name):
        raise Unfit([(node, f"{shown(node)} is no back end")])
    return name


def _options(node: yaml.Node) -> tuple[tuple[str, str], ...]:
    if not isinstance(node, yaml.MappingNode):
        raise Unfit([(node, f"{shown(node)} is no mapping")])
    wrong = [value for _, value in node.value if not isinstance(value, yaml.ScalarNode)]
    if wrong:
        raise Unfit([(each, f"{shown(each)} is no text") for each in wrong])
    return tuple((str(label.value), str(value.value)) for label, value in node.value)


BACKEND = Kind("memory, file, or module:Class", _backend)
OPTIONS = Kind("names and texts, such as {file: /srv/vspc/map.json}", _options)
