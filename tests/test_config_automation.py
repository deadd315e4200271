"""Hooks in the configuration: what is understood, and what is said of a wrong one, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configuring import problems, written
from vspcd.config import load
from vspcd.core.automation import Action, Hook

GOOD = """\
hooks:
  rules:
    - {events: [connected, disconnected], consoles: ["db*"], run: [/bin/told, "$(x)", a b], timeout: 10s}
    - events: quarantined
      post: https://alerts.example.com:8443/vspcd?key=1
    - {events: renamed, run: /bin/renamed}
"""


def test_hooks_are_read_as_they_stand(tmp_path: Path) -> None:
    assert load(written(tmp_path, GOOD)).hooks.rules == (
        Hook(("connected", "disconnected"), ("db*",), Action(("/bin/told", "$(x)", "a b"), "", 10.0)),
        Hook(("quarantined",), ("*",), Action((), "https://alerts.example.com:8443/vspcd?key=1")),
        Hook(("renamed",), ("*",), Action(("/bin/renamed",))),
    )


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("{events: conected, run: /bin/x}", "'conected' is no event; there are connected, "),
        ("{run: /bin/x}", "the hook has no events"),
        ("{events: [], run: /bin/x}", "the list is empty"),
        ("{events: connected}", "the hook has no run or post"),
        ("{events: connected, run: /bin/x, post: 'http://h/'}", "it has both run and post"),
        ("{events: connected, run: x}", "'x' is not the absolute path of a command"),
        ("{events: connected, run: /bin/x -v}", "is one word; write a list: [/bin/x, -v]"),
        ("{events: connected, run: []}", "the command is empty"),
        ("{events: connected, run: [/bin/x, {a: b}]}", "is no text"),
        ("{events: connected, post: 'ftp://h/'}", "is not an http or https URL"),
        ("{events: connected, post: 'http:///x'}", "is not an http or https URL"),
        ("{events: connected, post: 'http://h:99999/'}", "is not an http or https URL"),
        ("{events: connected, run: /bin/x, timeout: 0}", "is out of range"),
        ("{events: connected, run: /bin/x, when: now}", "'when' is no part of a hook"),
        ("{events: connected, run: /bin/x, run: /bin/y}", "'run' stands there twice"),
        ("{events: connected, run: /bin/x, consoles: ['']}", "is not a pattern"),
        ("/bin/x", "is no hook"),
    ],
)
def test_a_wrong_hook_is_told_with_its_line(tmp_path: Path, hook: str, words: str) -> None:
    (problem,) = problems(path=written(tmp_path, f"hooks:\n  rules:\n    - {hook}"))
    assert "vspcd.yaml:3: hooks.rules: " in problem
    assert words in problem
    assert "expected a list of hooks such as" in problem


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = "hooks:\n  rules:\n    - {events: x, run: y}\n    - {events: connected}"
    assert len(problems(path=written(tmp_path, text))) == 3
