"""Admission: limits on those who have not identified themselves, and a bounded memory of refusals."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest

from vspcd import admission as admissions
from vspcd import config as configuration
from vspcd.admission import REMEMBERED, Admission
from vspcd.config_schema import Proxy
from vspcd.proto.control import packed
from vspcd.unix.logline import Log

HERE, THERE = "192.0.2.1:1000", "192.0.2.2:1000"


@pytest.fixture
def lines() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def admission(lines: tuple[int, int]) -> Admission:
    return Admission(Log("info", lines[1]))


def rules(**settings: object) -> Proxy:
    return dataclasses.replace(configuration.load(None, [], None).proxy, **settings)  # type: ignore[arg-type]


def test_by_default_everybody_is_let_in(admission: Admission) -> None:
    assert admission.objection(rules(), HERE) is None


def test_a_host_outside_the_allowed_networks_is_not_let_in(admission: Admission) -> None:
    allow = configuration.load(None, ["proxy.allow=[192.0.2.1/32]"], None).proxy
    assert admission.objection(allow, HERE) is None
    assert "proxy.allow" in str(admission.objection(allow, THERE))


def test_no_more_may_be_unidentified_than_allowed_in_all(admission: Admission) -> None:
    for number in range(3):
        assert admission.objection(rules(max_pending=3), HERE) is None
        admission.begins(f"192.0.2.{number}:1")
    assert "proxy.max_pending" in str(admission.objection(rules(max_pending=3), HERE))


def test_no_more_may_be_unidentified_than_allowed_from_one_host_and_others_still_come(
    admission: Admission,
) -> None:
    limits = rules(max_pending_per_source=2)
    for port in (1, 2):
        admission.begins(f"192.0.2.1:{port}")
    assert "max_pending_per_source" in str(admission.objection(limits, HERE))
    assert admission.objection(limits, THERE) is None


def test_one_who_has_identified_himself_makes_room(admission: Admission) -> None:
    limits = rules(max_pending=1, max_pending_per_source=1)
    admission.begins(HERE)
    assert admission.objection(limits, HERE) is not None
    admission.ends(HERE)
    assert admission.objection(limits, HERE) is None
    assert admission.pending == 0


def test_hosts_that_have_gone_leave_nothing_behind(admission: Admission) -> None:
    for number in range(100):
        peer = f"[2001:db8::{number:x}]:1"
        admission.objection(rules(), peer)
        admission.begins(peer)
        admission.ends(peer)
    assert not admission._pending


def test_a_refusal_is_remembered_with_its_reason_the_latest_first(admission: Admission) -> None:
    admission.refused(HERE, "one")
    admission.refused(THERE, "two")
    assert [(each["peer"], each["reason"]) for each in admission.refusals()] == [
        (THERE, "two"),
        (HERE, "one"),
    ]
    assert admission.refusals()[0]["when"] > 1e9


def test_the_same_refusal_from_the_same_host_counts_on(admission: Admission) -> None:
    for port in range(5):
        admission.refused(f"192.0.2.1:{port}", "again")
    admission.refused(THERE, "again")
    assert [(each["peer"], each["count"]) for each in admission.refusals()] == [
        (THERE, 1),
        ("192.0.2.1:4", 5),
    ]


def test_the_memory_of_refusals_is_bounded_and_the_oldest_goes(admission: Admission) -> None:
    for number in range(REMEMBERED + 50):
        admission.refused(HERE, f"reason {number}")
    found = [each["reason"] for each in admission.refusals()]
    assert len(found) == REMEMBERED
    assert (found[0], found[-1]) == (f"reason {REMEMBERED + 49}", "reason 50")


def test_a_long_reason_is_cut_and_all_that_is_remembered_can_be_told(admission: Admission) -> None:
    for number in range(REMEMBERED):
        admission.refused(HERE, f"{number} " + "\x01" * 16000)
    found = admission.refusals()
    assert max(len(each["reason"]) for each in found) <= admissions.REASON_LIMIT + 3
    assert [each for packet in packed(found) for each in packet] == found


def test_what_is_told_cannot_change_what_is_remembered(admission: Admission) -> None:
    admission.refused(HERE, "one")
    admission.refusals()[0]["reason"] = "other"
    assert admission.refusals()[0]["reason"] == "one"


def test_a_storm_of_one_refusal_does_not_fill_the_log(admission: Admission, lines: tuple[int, int]) -> None:
    for _ in range(1000):
        admission.refused(HERE, "again")
    text = os.read(lines[0], 1 << 16).decode()
    assert [line.rpartition("=")[2] for line in text.splitlines()] == [str(1 << power) for power in range(10)]
