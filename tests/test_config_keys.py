"""The table of keys: the example that documents it, and what a reload changes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import yaml

from tests.configuring import EXAMPLE, written
from vspcd.config import Config, describe, differences, load, reloaded
from vspcd.config_schema import KEYS, SECTIONS


def with_active_dirs(text: str) -> str:
    """Activates the settings that are commented out: a # with no space behind it."""
    return re.sub(r"(?m)^( *)#(?=[a-z_]+:)", r"\1", text)


def test_the_example_gives_exactly_the_defaults() -> None:
    assert load(EXAMPLE) == load()


def test_the_example_with_its_inactive_keys_gives_exactly_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, with_active_dirs(EXAMPLE.read_text()))) == load()


def test_the_example_holds_every_key_and_no_other() -> None:
    tree = yaml.safe_load(with_active_dirs(EXAMPLE.read_text()))
    names = [f"{name}.{leaf}" for name in SECTIONS for leaf in tree.pop(name)] + list(tree)
    assert sorted(names) == sorted(KEYS)


def test_the_example_marks_the_keys_that_a_reload_changes() -> None:
    comment, was_comment, section = "", False, ""
    marked = set()
    for line in with_active_dirs(EXAMPLE.read_text()).splitlines():
        setting = re.match(r"( *)([a-z_]+):", line)
        is_comment = line.lstrip().startswith("#")
        if is_comment:
            comment = comment + line if was_comment else line
        elif setting is None or (not setting[1] and setting[2] in SECTIONS):
            comment, section = "", setting[2] + "." if setting else ""
        elif "[reload]" in comment:
            marked.add(section + setting[2])
        was_comment = is_comment
    assert marked == {key.name for key in describe() if key.reloads}


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in describe()] == list(KEYS)
    assert all(key.meaning and key.kind.expects and key.default for key in describe())


def test_a_config_made_without_load_has_the_defaults_too() -> None:
    assert Config() == dataclasses.replace(load(), log=Config().log, audit=Config().audit)


RELOADABLE = [
    *(
        "proxy.allow",
        "proxy.uri",
        "proxy.handshake_timeout",
        "proxy.max_pending",
        "proxy.max_pending_per_source",
        "proxy.balancers",
    ),
    *("tls.mode", "tls.certificate", "tls.key", "tls.client_ca", "tls.min_version"),
    *("vmotion.timeout", "vmotion.limit", "identity.fallback"),
    *(
        "ports.expire",
        "ports.client_ca",
        "sockets.mode",
        "sockets.group",
        "log.max_size",
        "log.keep",
        "log.sync",
    ),
    *("log.spool", "log.quota", "log.reserve"),
    *("clients.replay", "clients.max_lag", "clients.max", "locks.idle", "audit.file", "audit.typing"),
    *("workers.memory", "hooks.rules", "hooks.concurrency", "hooks.timeout", "hooks.queue"),
    *("access", "triggers", "log_level"),
]


def test_these_keys_take_effect_on_reload() -> None:
    assert [key.name for key in describe() if key.reloads] == RELOADABLE


def test_differences_tell_the_key_and_its_effect() -> None:
    new = load(None, ["log.keep=7", "ports.first=0"])
    assert differences(load(), new) == [
        "ports.first changed: needs a restart",
        "log.keep changed: takes effect now",
    ]


def test_equal_configurations_have_no_differences() -> None:
    assert differences(load(), load(EXAMPLE)) == []


def test_a_reload_changes_only_what_needs_no_restart(tmp_path: Path) -> None:
    old = load(None, [], tmp_path)
    now = reloaded(old, load(None, ["log.keep=7", "ports.first=0", "log.dir=off"], tmp_path))
    assert now == dataclasses.replace(old, log=dataclasses.replace(old.log, keep=7))
