"""Reads the configuration: defaults, then the YAML file, then -o overrides, then what --root demands.

Owns the search for mistakes: all are found in one go, each with its place, its key and what would be right.
The keys themselves are in config_schema, the spellings of values in config_values. Never applies a
configuration, and never creates or looks for anything but the file itself.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Optional

import yaml

from vspcd.config_schema import KEYS, SECTIONS, Config, Key, build, value_of
from vspcd.config_values import WILDCARDS, Address, Unfit, compose, is_null, shown
from vspcd.core.automation import TRIGGERED

__all__ = ["Config", "ConfigError", "Key", "describe", "differences", "load", "reloaded"]

Place = Callable[[yaml.Node, str], str]
LOOPBACK = "127.0.0.1"
QUOTES = "; a value that begins with one of : [ { * & @ needs quotes"


class _Need(NamedTuple):
    """A key that makes no sense without a certificate, when it has been given a value such as this."""

    key: str
    given: Callable[[Any], bool]
    wrong: str


_NEEDS = (
    _Need("ports.tls", bool, "there is no TLS without a certificate"),
    _Need("tls.mode", lambda mode: mode == "required", "there is no TLS without a certificate"),
    _Need("tls.key", lambda path: path is not None, "a key is of no use without its certificate"),
    _Need(
        "ports.client_ca", lambda path: path is not None, "there is no TLS without a certificate of our own"
    ),
    _Need("tls.client_ca", lambda path: path is not None, "there is no TLS without a certificate of our own"),
)


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass
class _Draft:
    """What has been read so far: values and places by dotted name, and the mistakes."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load(path: Optional[Path] = None, overrides: Sequence[str] = (), root: Optional[Path] = None) -> Config:
    """The configuration from a file (None: defaults alone) and KEY=VALUE overrides. Raises ConfigError."""
    draft = _Draft()
    if path is not None:
        _read_file(draft, path)
    for override in overrides:
        _read_override(draft, override)
    top = None if root is None else Path(os.path.abspath(root))
    if top is not None:
        _confine(draft, top)
    config = _resolve_log_files(build(draft.values, top))
    _find_clashes(draft, config)
    _find_contradictions(draft, config)
    if draft.problems:
        raise ConfigError(draft.problems)
    return config


def describe() -> list[Key]:
    """All keys in the order of the table, for documentation."""
    return list(KEYS.values())


def differences(old: Config, new: Config) -> list[str]:
    """One line for each key that changed: which, and whether a reload is enough."""
    effect = {True: "takes effect now", False: "needs a restart"}
    return [f"{key.name} changed: {effect[key.reloads]}" for key in _changed(old, new)]


def reloaded(old: Config, new: Config) -> Config:
    """The configuration in force after a reload: `new` where a reload is enough, `old` in the rest."""
    values = {key.name: value_of(new if key.reloads else old, key.name) for key in KEYS.values()}
    return build(values, old.root)


def _changed(old: Config, new: Config) -> Iterator[Key]:
    return (key for key in KEYS.values() if value_of(old, key.name) != value_of(new, key.name))


def _read_file(draft: _Draft, path: Path) -> None:
    try:
        node = compose(path.read_bytes())
    except OSError as error:
        draft.problems.append(f"{path}: cannot be read: {error.strerror}; name a file that can be")
    except yaml.YAMLError as error:
        draft.problems.append(f"{path}{_line_of(error)}: this is not YAML: {_reason(error)}{QUOTES}")
    except RecursionError:
        draft.problems.append(f"{path}: this is not a configuration: it is nested too deeply")
    else:
        _visit_section(draft, node, "", lambda at, name: f"{path}:{at.start_mark.line + 1}: {name}")


def _read_override(draft: _Draft, override: str) -> None:
    def place(_: yaml.Node, __: str) -> str:
        return f"-o {override}"

    name, equals, text = override.partition("=")
    if not equals:
        draft.problems.append(f"-o {override}: there is no '='; write KEY=VALUE, such as log_level=debug")
        return
    try:
        node = compose(text)
    except (yaml.YAMLError, RecursionError) as error:
        draft.problems.append(f"-o {override}: the value is not YAML: {_reason(error)}{QUOTES}")
    else:
        _visit(draft, node, name.strip(), place)


def _line_of(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f":{mark.line + 1}"


def _reason(error: Exception) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).splitlines()[0]


def _visit(draft: _Draft, node: yaml.Node, name: str, place: Place) -> None:
    """Takes in the node of a key or of a section."""
    if name in KEYS:
        _take(draft, node, KEYS[name], place)
    elif name in SECTIONS:
        _visit_section(draft, node, name, place)
    else:
        draft.problems.append(f"{place(node, name)}: no key is named {name!r}{_suggestion(name)}")


def _visit_section(draft: _Draft, section: yaml.Node, name: str, place: Place) -> None:
    """Takes in all members of a section; the whole document is the section without a name."""
    if isinstance(section, yaml.MappingNode):
        for label, member, value in _members(draft, section, name, place):
            known = member in KEYS or member in SECTIONS
            _visit(draft, value if known else label, member, place)
    elif not is_null(section):
        where = place(section, name or "the file")
        draft.problems.append(f"{where}: {shown(section)} is no section; write lines of KEY: VALUE")


def _members(
    draft: _Draft, section: yaml.MappingNode, name: str, place: Place
) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    """Each member's label, dotted name and value, leaving out those that were given before."""
    lines: dict[str, int] = {}
    for label, value in section.value:
        member = f"{name}.{label.value}" if name else str(label.value)
        if member in lines:
            draft.problems.append(
                f"{place(label, member)}: line {lines[member]} has this key already; keep one of them"
            )
        else:
            lines[member] = label.start_mark.line + 1
            yield label, member, value


def _take(draft: _Draft, node: yaml.Node, key: Key, place: Place) -> None:
    draft.places[key.name] = place(node, key.name)
    try:
        draft.values[key.name] = key.kind.parse(node)
    except Unfit as unfit:
        for at, wrong in unfit.faults:
            draft.problems.append(f"{place(at, key.name)}: {wrong}; expected {key.kind.expects}")


def _suggestion(name: str) -> str:
    names = [*KEYS, *SECTIONS]
    leaf = name.rpartition(".")[2]
    same_leaf = [each for each in names if each.rpartition(".")[2] == leaf]
    near = same_leaf or difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else "; conf/vspcd.yaml lists the keys"


def _confine(draft: _Draft, root: Path) -> None:
    """Everything below root, and nothing that another machine can reach."""
    for name in ("run", "state", "log"):
        draft.values.setdefault("dirs." + name, root / name)
    for name in ("proxy.listen", "admin.listen"):
        key = KEYS[name]
        wanted = draft.values.get(name, key.kind.parse(compose(key.default)))
        inner = [(_loopback(draft, name, host), port) for host, port in wanted]
        draft.values[name] = tuple(dict.fromkeys(inner))
    address = draft.values.get("ports.address", LOOPBACK)
    draft.values["ports.address"] = _loopback(draft, "ports.address", address)


def _loopback(draft: _Draft, name: str, host: str) -> str:
    if host in WILDCARDS:
        return LOOPBACK
    if host != "localhost" and not _is_loopback(host):
        draft.problems.append(
            f"{draft.places[name]}: {host} can be reached from outside, which --root forbids;"
            f" expected a loopback address such as {LOOPBACK}"
        )
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _resolve_log_files(config: Config) -> Config:
    values = {name: value_of(config, name) for name in KEYS}
    for name in ("log.dir", "audit.file"):
        if values[name] is not None:
            values[name] = config.dirs.log / values[name]
    return build(values, config.root)


def _find_clashes(draft: _Draft, config: Config) -> None:
    """Two listeners cannot have the same port of the same address."""
    listeners = [(name, each) for name in ("proxy.listen", "admin.listen") for each in value_of(config, name)]
    for (one, first), (other, second) in combinations(listeners, 2):
        if _overlap(first, second):
            place = draft.places.get(other) or draft.places.get(one, other)
            draft.problems.append(
                f"{place}: port {second[1]} is wanted twice, by {one} and by {other}; give each its own"
            )


def _find_contradictions(draft: _Draft, config: Config) -> None:
    """Keys that are right each by itself and not together."""
    unread = "tls.certificate" in draft.places.keys() - draft.values.keys()
    if config.tls.certificate is None and not unread:
        draft.problems.extend(
            f"{draft.places[need.key]}: {need.wrong}; set tls.certificate too"
            for need in _NEEDS
            if need.given(value_of(config, need.key))
        )
    _find_idle_triggers(draft, config)
    if config.vmotion.limit > config.vmotion.timeout:
        place = draft.places.get("vmotion.limit") or draft.places["vmotion.timeout"]
        draft.problems.append(
            f"{place}: a move is given up before the VM's host would wait no longer;"
            " expected vmotion.limit to be less than vmotion.timeout"
        )


def _find_idle_triggers(draft: _Draft, config: Config) -> None:
    """Triggers that could never do anything."""
    if config.triggers and config.log.dir is None:
        draft.problems.append(
            f"{draft.places['triggers']}: triggers look into the logs, and there are none; set log.dir"
        )
    told = any(TRIGGERED in hook.events for hook in config.hooks.rules)
    draft.problems.extend(
        f"{draft.places['triggers']}: trigger {trigger.name!r} does nothing; give it run or post, or let a hook"
        f" in hooks.rules wait for {TRIGGERED}"
        for trigger in config.triggers
        if trigger.action is None and not told
    )


def _overlap(first: Address, second: Address) -> bool:
    if first[1] != second[1] or first[1] == 0:
        return False
    hosts = {first[0], second[0]}
    if len(hosts) == 1 or "" in hosts:
        return True
    return bool(hosts & WILDCARDS) and len({":" in host for host in hosts}) == 1
