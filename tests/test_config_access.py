"""Rules of access in the configuration: what is understood, and what is said of a wrong one, with its line."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tests.configuring import problems, written
from vspcd.config import load
from vspcd.core.rights import ADMINISTER, TAKE_OVER, WRITE, Rule

GOOD = """\
access:
  - groups: [ops, 4]
    may: administer
  - {users: alice, consoles: ["web*", "!web-old"], may: write}
  - addresses: [10.0.0.0/8, "::1"]
    certificates: alice
    may: takeover
"""


def test_rules_are_read_as_they_stand(tmp_path: Path) -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert load(written(tmp_path, GOOD)).access == (
        Rule((), ("ops", "4"), (), (), ("*",), ADMINISTER),
        Rule(("alice",), (), (), (), ("web*", "!web-old"), WRITE),
        Rule((), (), networks, ("alice",), ("*",), TAKE_OVER),
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("access:\n  - {users: [alice], may: fly}", 2, "'fly' is no right"),
        ("access:\n  - {users: [alice]}", 2, "does not say what they may"),
        ("access:\n  - may: write", 2, "names nobody"),
        ("access:\n  - {users: [], may: write}", 2, "names nobody"),
        ("access:\n  - users: [alice]\n    who: bob\n    may: write", 3, "'who' is no part of a rule"),
        ("access:\n  - users: [alice]\n    users: [bob]\n    may: write", 3, "stands there twice"),
        ("access:\n  - users: [alice]\n    addresses: [10.0.0.1/8]\n    may: write", 3, "bits set"),
        ("access:\n  - users:\n      - alice\n      - 'al ice'\n    may: write", 4, "is not a name"),
        ("access:\n  - users: [alice]\n    consoles: ['']\n    may: write", 3, "is not a pattern"),
        ("access:\n  - users: [alice]\n    consoles: ['!']\n    may: write", 3, "is not a pattern"),
        ("access: alice", 1, "is no rule"),
    ],
)
def test_a_wrong_rule_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (problem,) = problems(path=written(tmp_path, text))
    assert f"vspcd.yaml:{line}: access: " in problem
    assert words in problem
    assert "watch, write, takeover, administer" in problem


def test_all_wrong_rules_are_told_at_once(tmp_path: Path) -> None:
    text = "access:\n  - {users: alice, may: fly, to: x}\n  - {may: write}"
    assert len(problems(path=written(tmp_path, text))) == 3


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("off", 0.0), ("90s", 90.0), ("30m", 1800.0)])
def test_an_idle_time_can_be_never(text: str, seconds: float) -> None:
    assert load(None, [f"locks.idle={text}"]).locks.idle == seconds


def test_an_audit_log_is_beside_the_logs_unless_said_otherwise() -> None:
    assert load().audit.file == Path("/var/log/vspc/audit.log")
    assert load(None, ["audit.file=/srv/audit"]).audit.file == Path("/srv/audit")
    assert load(None, ["audit.file=off"]).audit.file is None


def test_certificates_of_clients_need_one_of_our_own() -> None:
    assert "ports.client_ca" in problems("ports.client_ca=/etc/ca.pem")[0]
