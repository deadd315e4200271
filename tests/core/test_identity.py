"""Who may have a console that somebody has already."""

from __future__ import annotations

import pytest

from vspcd.core.identity import PROBE, TAKE, refusal, verdict


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (None, "192.0.2.1:1000", TAKE),
        ("192.0.2.1:1000", "192.0.2.1:2000", TAKE),
        ("192.0.2.1:1000", "192.0.2.2:1000", PROBE),
        ("192.0.2.1:1000", "192.0.2.11:1000", PROBE),
        ("[2001:db8::1]:1", "[2001:db8::1]:2", TAKE),
        ("[2001:db8::1]:1", "[2001:db8::2]:1", PROBE),
        ("[::1]:1", "127.0.0.1:1", PROBE),
    ],
)
def test_the_same_host_takes_over_and_another_one_must_wait_for_the_probe(
    old: str, new: str, rule: str
) -> None:
    assert verdict(old, new) == rule


def test_a_refusal_names_both_sources() -> None:
    text = refusal("192.0.2.1:1000", "[2001:db8::2]:2000")
    assert "192.0.2.1" in text
    assert "2001:db8::2" in text
