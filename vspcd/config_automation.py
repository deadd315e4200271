"""Hooks and triggers as they stand in the configuration.

Pure. Does: turns the YAML of lists of hooks and triggers into those of ``vspcd.core.automation``, and finds all
mistakes in them.
Never: looks whether a command exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional
from urllib.parse import urlsplit

import yaml

from vspcd.config_values import (
    DURATION,
    DURATION_OR_NEVER,
    PATTERNS,
    Kind,
    Part,
    Parts,
    Unfit,
    mapping,
    several,
    shown,
)
from vspcd.core.automation import EVENTS, Action, Hook, Trigger
from vspcd.core.patterns import ANYBODY

EVERY, GATHER = 300.0, 2.0
PATTERN_LIMIT = 1000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _text(node: yaml.Node) -> str:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if not text or "\0" in text:
        raise Unfit([(node, f"{shown(node)} is no text")])
    return text


def _event(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.value not in EVENTS:
        raise Unfit([(node, f"{shown(node)} is no event; there are {', '.join(EVENTS)}")])
    return str(node.value)


def _command(node: yaml.Node) -> tuple[str, ...]:
    """A list of words, as they are passed on; a single text is a command without arguments, never a shell's line."""
    words = tuple(_text(each) for each in (node.value if isinstance(node, yaml.SequenceNode) else [node]))
    if not words:
        raise Unfit([(node, "the command is empty")])
    if not words[0].startswith("/"):
        raise Unfit([(node, f"{words[0]!r} is not the absolute path of a command")])
    if len(words) == 1 and " " in words[0]:
        raise Unfit([(node, f"{words[0]!r} is one word; write a list: [{', '.join(words[0].split())}]")])
    return words


def _url(node: yaml.Node) -> str:
    url = _text(node)
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        raise Unfit([(node, f"{shown(node)} is not an http or https URL")])
    return url


def _regular(node: yaml.Node) -> str:
    text = _text(node)
    try:
        compiled = re.compile(text.encode())
    except (re.error, OverflowError, RecursionError) as error:
        raise Unfit([(node, f"{shown(node)} is not a regular expression: {error}")]) from None
    if len(text) > PATTERN_LIMIT:
        raise Unfit([(node, f"a regular expression of more than {PATTERN_LIMIT} characters")])
    if compiled.search(b"") is not None:
        raise Unfit([(node, f"{shown(node)} matches every line")])
    return text


def _name(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not _NAME.fullmatch(str(node.value)):
        raise Unfit([(node, f"{shown(node)} is no name of letters, digits and - _ .")])
    return str(node.value)


_ACTION: Mapping[str, Part] = {"run": _command, "post": _url, "timeout": DURATION.parse}
_HOOK: Mapping[str, Part] = {
    "events": several("a list of events", _event, least=1).parse,
    "consoles": PATTERNS.parse,
    **_ACTION,
}
_TRIGGER: Mapping[str, Part] = {
    "name": _name,
    "pattern": _regular,
    "consoles": PATTERNS.parse,
    "every": DURATION.parse,
    "gather": DURATION_OR_NEVER.parse,
    **_ACTION,
}


def _action(node: yaml.Node, parts: Parts) -> Optional[Action]:
    if "run" in parts and "post" in parts:
        raise Unfit([(node, "it has both run and post; write two")])
    if "run" not in parts and "post" not in parts:
        return None
    return Action(parts.get("run", ()), parts.get("post", ""), parts.get("timeout", 0.0))


def _hook(node: yaml.Node) -> Hook:
    parts = mapping(node, "hook", _HOOK)
    action = _action(node, parts)
    if "events" not in parts or action is None:
        lacks = "events" if "events" not in parts else "run or post"
        raise Unfit([(node, f"the hook has no {lacks}")])
    return Hook(parts["events"], parts.get("consoles") or (ANYBODY,), action)


def _trigger(node: yaml.Node) -> Trigger:
    parts = mapping(node, "trigger", _TRIGGER)
    for needed in ("name", "pattern"):
        if needed not in parts:
            raise Unfit([(node, f"the trigger has no {needed}")])
    return Trigger(
        parts["name"],
        parts["pattern"],
        parts.get("consoles") or (ANYBODY,),
        parts.get("every", EVERY),
        parts.get("gather", GATHER),
        _action(node, parts),
    )


def _triggers(node: yaml.Node) -> tuple[Trigger, ...]:
    """Each has a name of its own: it is what rates are counted by."""
    found = _TRIGGERS.parse(node)
    names = [trigger.name for trigger in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Unfit([(node, f"there is more than one trigger {min(twice)!r}")])
    return found


HOOKS = several(
    "a list of hooks such as {events: [connected, disconnected], consoles: ['db*'], run: [/usr/local/bin/told, vm],"
    " timeout: 10s} or {events: [quarantined], post: 'https://example.com/vspcd'}",
    _hook,
)
_TRIGGERS = several(
    "a list of triggers such as {name: panic, pattern: 'Kernel panic', consoles: ['*', '!lab*'], every: 5m,"
    " gather: 2s, run: [/usr/local/bin/told]}",
    _trigger,
)
TRIGGERS: Kind[tuple[Trigger, ...]] = Kind(_TRIGGERS.expects, _triggers)
