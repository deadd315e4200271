"""The state that one version hands to the next: it comes through whole, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stage import Stage
from vspcd import bequest, handover, inheritance
from vspcd.attachments import Wish
from vspcd.core.rights import Who
from vspcd.handover import State, Unfit
from vspcd.table import Worker
from vspcd.tlshelpers import TlsHelper
from vspcd.unix.page import LAYOUT


def full(stage: Stage) -> State:
    """The state of a daemon with a bit of everything."""
    owner, _ = stage.owner()
    claimant, _ = stage.dial()
    claimant.claims()
    stage.dial()
    near, far = socket.socketpair()
    wish = Wish("raw", Who(1000, 1, [1000, 4], "alice"), "lock", reason="a test")
    stage.master.attachments.attach(stage.console, wish, near, next(stage.table.numbers))
    far.close()
    owner.says("moving", pair="00" * 20, seconds=60)
    stage.admission.refused("192.0.2.9:1", "not today")
    return bequest.of(stage.master)


def rewritten(state: State, change: Any) -> int:
    """The state in a memory file, changed and with a fresh checksum."""
    facts = dataclasses.asdict(state)
    change(facts)
    fd = handover.pack(state)
    text = json.dumps(facts).encode()
    head = json.loads(os.pread(fd, 1000, 0).partition(b"\n")[0])
    head.update(size=len(text), sha256=handover._checksum(head["format"], head["version"], text))
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(head).encode() + b"\n" + text, 0)
    return fd


def rejected(fd: int, run: Path) -> str:
    try:
        handover.check(handover.unpack(fd))
        inheritance.fits(fd, run)
    except Unfit as unfit:
        return str(unfit)
    finally:
        os.close(fd)
    raise AssertionError("it is trusted")


def test_state_comes_through_unchanged(stage: Stage) -> None:
    state = full(stage)
    fd = handover.pack(state)
    handover.check(handover.unpack(fd))
    after = dataclasses.asdict(inheritance.fits(fd, stage.run))
    assert json.dumps(after) == json.dumps(dataclasses.asdict(state))
    os.close(fd)


def test_describing_the_state_changes_nothing(stage: Stage) -> None:
    first, second = full(stage), bequest.of(stage.master)
    assert (first.legs, first.workers, first.claims) == (second.legs, second.workers, second.claims)


def test_every_byte_of_the_file_counts(stage: Stage) -> None:
    fd = handover.pack(full(stage))
    size = os.fstat(fd).st_size
    for at in range(0, size, 7):
        (byte,) = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([byte ^ 1]), at)
        with pytest.raises(Unfit):
            inheritance.fits(fd, stage.run)
        os.pwrite(fd, bytes([byte]), at)
    for short in range(0, size, 41):
        cut = os.memfd_create("cut")
        os.write(cut, os.pread(fd, short, 0))
        assert rejected(cut, stage.run)
    os.close(fd)


def test_a_state_of_another_format_is_refused_with_what_to_do(stage: Stage) -> None:
    state = full(stage)
    for format_ in (handover.FORMAT + 1, handover.FORMAT - 1, "x" * 900):
        fd = handover.pack(state)
        head = {"format": format_, "more": "that this version has no name for"}
        os.pwrite(fd, json.dumps(head).encode() + b"\n", 0)
        reason = rejected(fd, stage.run)
        assert reason.startswith("its format is ")
        assert f"this version knows {handover.FORMAT}; to change to this version, restart vspcd" in reason
        assert len(reason) < 300


def test_a_state_with_pages_of_another_layout_is_refused_with_what_to_do(stage: Stage) -> None:
    state = full(stage)
    for layout in (LAYOUT + 1, LAYOUT - 1):

        def change(facts: dict[str, Any], layout: int = layout) -> None:
            facts["layout"] = layout

        reason = rejected(rewritten(state, change), stage.run)
        assert f"have layout {layout}, and this version knows {LAYOUT}" in reason
        assert "restart vspcd" in reason


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(State)])
def test_state_without_one_of_its_parts_is_unfit(stage: Stage, name: str) -> None:
    assert rejected(rewritten(full(stage), lambda facts: facts.pop(name)), stage.run)


def test_field_that_nobody_knows_makes_a_state_unfit(stage: Stage) -> None:
    state = full(stage)
    for part in ("legs", "consoles", "claims"):

        def change(facts: dict[str, Any], part: str = part) -> None:
            facts[part][0]["facts"]["future"] = 1

        assert "future" in rejected(rewritten(state, change), stage.run)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("workers", "pid", "1"),
        ("workers", "state", "dancing"),
        ("workers", "page", 1 << 20),
        ("workers", "legs", [999999]),
        ("workers", "console", "nobody"),
        ("consoles", "worker", 999999),
        ("consoles", "leg", 999999),
        ("claims", "console", "nobody"),
        ("moves", "place", "xyz"),
        ("doors", "port", True),
        ("refused", "peer", None),
    ],
)
def test_detail_that_does_not_fit_makes_a_state_unfit(
    stage: Stage, part: str, field: str, value: object
) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts[part][0][field] = value
        if value is None:
            del facts[part][0][field]

    assert rejected(rewritten(full(stage), change), stage.run)


def test_descriptor_of_another_kind_makes_a_state_unfit(stage: Stage) -> None:
    state = full(stage)
    for part, other in (
        ("directory", "lock"),
        ("lock", "control"),
        ("arena", "directory"),
        ("control", "lock"),
    ):

        def change(facts: dict[str, Any], part: str = part, other: str = other) -> None:
            facts[part], facts[other] = facts[other], facts[part]

        assert "descriptor" in rejected(rewritten(state, change), stage.run)


def test_descriptor_that_is_named_twice_makes_a_state_unfit(stage: Stage) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["legs"][0]["fd"] = facts["legs"][1]["fd"]

    assert "descriptor" in rejected(rewritten(full(stage), change), stage.run)


def test_descriptor_that_is_not_open_makes_a_state_unfit(stage: Stage) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["control"] = 99999

    assert "descriptor" in rejected(rewritten(full(stage), change), stage.run)


def test_state_of_another_run_directory_is_unfit(stage: Stage) -> None:
    assert "dirs.run" in rejected(handover.pack(full(stage)), Path("/elsewhere"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([each.name for each in dataclasses.fields(State)]), JSON))
def test_nonsense_is_unfit_and_nothing_worse(nonsense: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        handover.read(State, nonsense, "the state")


def test_every_fact_about_a_worker_is_handed_on() -> None:
    """A field that the table gets must be in the state too, or be found again from what is there."""
    found_again = {"page_number", "replaced", "pinged"}
    for kind, state in ((Worker, handover.WorkerState), (TlsHelper, handover.HelperState)):
        names = {each.name for each in dataclasses.fields(kind)} - found_again
        assert names == {each.name for each in dataclasses.fields(state)}
