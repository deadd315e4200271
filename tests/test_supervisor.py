"""The supervisor against workers that die, lie, cross its messages and say nothing: it goes on, and nothing leaks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stage import Stage, ended
from tests.unix.turning import open_descriptors, turn
from tests.workers.bench import UUID
from vspcd import claims
from vspcd import supervisor as supervisors
from vspcd.proto.control import CLAIMING, LEAVING, OWNER


def test_a_vm_that_is_alone_has_its_console(stage: Stage) -> None:
    player, _ = stage.dial()
    player.claims(name="web01")
    stage.until(lambda: player.was_told("own"))
    assert player.worker.state == OWNER
    assert (stage.console.name, stage.admission.pending) == ("web01", 0)


def test_a_second_connection_is_offered_to_the_owner_with_its_descriptor(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, _ = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    assert len(owner.fds) == 1
    assert second.worker.state == CLAIMING


def test_when_the_owner_takes_it_the_claimant_may_go_and_the_old_connection_ends(stage: Stage) -> None:
    owner, old = stage.owner()
    second, _ = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    number = owner.was_told("leg")[0]["leg"]
    assert stage.console.leg is not None
    owner.says("disconnected", leg=stage.console.leg.number, reason="replaced")
    owner.says("took", leg=number, session=None, move=None)
    owner.says("connected", leg=number, session={})
    stage.until(lambda: second.was_told("handed"))
    assert stage.console.leg is not None
    assert stage.console.leg.number == number
    assert ended(old)


def test_a_refused_claimant_is_told_and_remembered(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, _ = stage.dial("192.0.2.9")
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    owner.says("rejected", leg=owner.was_told("leg")[0]["leg"], reason="an impostor")
    stage.until(lambda: second.was_told("refuse"))
    assert "an impostor" in stage.admission.refusals()[0]["reason"]


# Deaths


def test_a_worker_that_dies_before_it_is_connected_is_replaced_and_its_vm_stays(stage: Stage) -> None:
    player, far = stage.dial()
    player.claims()
    stage.until(lambda: player.was_told("own"))
    stage.dies(player)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("own"))
    assert successor.was_told("own")[0]["resume"]
    stage.until(lambda: successor.was_told("resume-leg"))
    assert successor.was_told("resume-leg")[0]["role"] == "newcomer"
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)


def test_a_console_whose_workers_die_again_and_again_is_given_up_and_its_vm_dials_again(stage: Stage) -> None:
    owner, far = stage.owner()
    stage.dies_for_good(owner)
    assert ended(far)
    again, _ = stage.dial()
    again.claims()
    stage.until(lambda: again.was_told("own"))


def test_a_worker_that_dies_before_it_is_connected_leaves_no_connection_when_it_is_given_up(
    stage: Stage,
) -> None:
    player, far = stage.dial()
    player.claims()
    stage.until(lambda: player.was_told("own"))
    stage.dies_for_good(player)
    assert ended(far)


def test_a_worker_that_is_given_up_after_taking_a_connection_takes_both_with_it(stage: Stage) -> None:
    owner, old = stage.owner()
    second, new = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    owner.says("took", leg=owner.was_told("leg")[0]["leg"], session=None, move=None)
    stage.dies_for_good(owner)
    assert ended(old)
    assert ended(new)


def test_a_claim_that_waits_for_an_owner_that_dies_is_judged_by_its_successor(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, _ = stage.dial()
    second.claims()
    stage.dies(owner)
    successor = stage.serving()
    stage.until(lambda: [leg for leg in successor.was_told("leg") if leg["peer"]])
    number = successor.was_told("leg")[-1]["leg"]
    successor.says("took", leg=number, session=None, move=None)
    stage.until(lambda: second.was_told("handed"))


def test_all_that_wait_for_an_owner_that_dies_are_judged_by_its_successor(stage: Stage) -> None:
    owner, _ = stage.owner()
    waiting = [stage.dial()[0] for _ in range(3)]
    for each in waiting:
        each.claims()
    stage.dies(owner)
    successor = stage.serving()
    stage.until(lambda: len(successor.was_told("leg")) >= 3)
    for leg in successor.was_told("leg")[-3:]:
        successor.says("rejected", leg=leg["leg"], reason="no")
    stage.until(lambda: all(each.was_told("refuse") for each in waiting))


def test_last_words_are_heard(stage: Stage) -> None:
    player, _ = stage.dial()
    player.channel.send({"type": "failed", "reason": "it is no VM"})
    stage.dies(player)
    assert [each["reason"] for each in stage.admission.refusals()] == ["it is no VM"]


def test_a_claim_among_last_words_is_served_by_a_successor(stage: Stage) -> None:
    player, _ = stage.dial()
    player.channel.send({"type": "claim", "uuid": UUID, "label": "", "name": None, "session": {}})
    stage.dies(player)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("own"))
    assert successor is not player


def test_deaths_leak_no_descriptor(stage: Stage) -> None:
    def round_() -> None:
        owner, old = stage.owner()
        second, new = stage.dial()
        second.claims()
        stage.until(lambda: owner.was_told("leg"))
        stage.dies(owner)
        stage.dies_for_good(stage.serving())
        stage.until(lambda: second.was_told("own"))
        stage.dies_for_good(second)
        for far in (old, new):
            far.close()

    round_()
    stage.until(lambda: stage.console.unix)  # its listener is open
    before = len(open_descriptors())
    for _ in range(5):
        round_()
    assert len(open_descriptors()) <= before


# Words that cross each other


def test_a_claimant_that_fails_while_it_is_judged_does_no_harm(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, new = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    second.says("failed", reason="it was reset")
    stage.dies(second)
    owner.says("rejected", leg=owner.was_told("leg")[0]["leg"], reason="too late")
    assert ended(new)
    assert stage.console.worker is owner.worker


def test_a_claimant_that_fails_when_its_connection_was_taken_already_does_no_harm(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, _ = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    owner.says("took", leg=owner.was_told("leg")[0]["leg"], session=None, move=None)
    second.says("failed", reason="it was reset")
    assert second.worker.state == LEAVING
    assert stage.console.worker is owner.worker


def test_a_claimant_that_fails_and_dies_before_the_owner_takes_its_connection(stage: Stage) -> None:
    owner, _ = stage.owner()
    second, new = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    number = owner.was_told("leg")[0]["leg"]
    second.says("failed", reason="it was reset")
    stage.dies(second)
    owner.says("took", leg=number, session=None, move=None)
    owner.says("connected", leg=number, session={})
    owner.says("disconnected", leg=number, reason="it was reset")
    assert ended(new)
    assert stage.console.leg is None


def test_an_owner_that_judges_nothing_is_replaced(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "JUDGED_WITHIN", 0.05)
    owner, _ = stage.owner()
    second, _ = stage.dial()
    second.claims()
    stage.until(lambda: stage.killed(owner))
    owner.close()
    stage.reap(owner)
    assert stage.serving() is not owner


def test_a_worker_that_does_not_end_when_told_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "QUIT_WITHIN", 0.05)
    owner, _ = stage.owner()
    stage.supervisor.quit(owner.worker, "enough")
    stage.until(lambda: stage.killed(owner))


def test_a_worker_that_has_ended_when_it_is_told_to_is_not_called_unreachable(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    owner, _ = stage.owner()
    with monkeypatch.context() as patch:
        patch.setattr(stage.supervisor, "kill", lambda _worker, reason: reasons.append(reason))
        owner.close()
        stage.supervisor.quit(owner.worker, "enough")
    assert reasons == []
    stage.dies(owner)
    assert stage.table.workers == {}


# Lies


@pytest.mark.parametrize(
    "lie",
    [
        {"type": "took", "leg": 999, "session": None, "move": None},
        {"type": "rejected", "leg": 999, "reason": "x"},
        {"type": "connected", "leg": 999, "session": {}},
        {"type": "claim", "uuid": UUID, "label": "", "name": None, "session": {}},
        {"type": "source", "peer": "192.0.2.7:1"},
        {"type": "nonsense"},
        {"type": "facts"},
        {"type": "detached", "client": "1", "reason": "x"},
    ],
    ids=lambda lie: str(lie["type"]),
)
def test_an_owner_that_speaks_out_of_turn_is_killed_and_its_console_lives(
    stage: Stage, lie: dict[str, Any]
) -> None:
    owner, _ = stage.owner()
    owner.channel.send(lie)
    stage.until(lambda: stage.killed(owner))
    owner.close()
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("own"))
    assert successor is not owner


@pytest.mark.parametrize(
    "claim",
    [
        {"uuid": "../../etc/passwd", "label": ""},
        {"uuid": UUID.upper(), "label": ""},
        {"uuid": UUID + "\n", "label": ""},
        {"uuid": UUID, "label": "../x"},
        {"uuid": UUID, "label": "x" * 33},
        {"uuid": UUID, "label": "x\n"},
    ],
    ids=repr,
)
def test_a_claim_with_an_impossible_identity_is_the_end_of_its_worker(
    stage: Stage, claim: dict[str, str]
) -> None:
    player, _ = stage.dial()
    player.channel.send({"type": "claim", "name": None, "session": {}, **claim})
    stage.until(lambda: stage.killed(player))
    assert stage.table.consoles == {}


@pytest.mark.parametrize("packet", [b"garbage", b"{}", b"[" * 1000, b""], ids=repr)
def test_a_worker_that_sends_no_message_loses_its_channel_and_nothing_else_happens(
    stage: Stage, packet: bytes
) -> None:
    owner, _ = stage.owner()
    owner.channel.sock.send(packet)
    for _ in range(5):
        turn(stage.loop)
    stage.dies(owner)
    assert stage.serving() is not owner


def test_words_about_clients_that_are_not_there_are_harmless(stage: Stage) -> None:
    owner, _ = stage.owner()
    owner.says("detached", client=12345, reason="x")
    owner.says("client-kind", client=12345, kind="telnet")
    owner.says("disconnected", leg=12345, reason="x")
    assert not stage.killed(owner)


def test_an_heir_has_all_the_time_to_judge_whatever_the_dead_owner_has_spent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "JUDGED_WITHIN", 1.0)
    owner, _ = stage.owner()
    second, _ = stage.dial()
    second.claims()
    offered = time.monotonic()
    stage.until(lambda: time.monotonic() - offered > 0.7)
    stage.dies(owner)
    heir, inherited = stage.serving(), time.monotonic()
    stage.until(lambda: time.monotonic() - inherited > 0.5)
    assert not stage.killed(heir)
    assert not heir.worker.hung
    stage.until(lambda: stage.killed(heir))
    assert heir.worker.hung
    assert time.monotonic() - inherited >= 1.0


def test_a_parked_vm_that_dials_again_and_again_is_one_refusal_that_is_counted(stage: Stage) -> None:
    owner, _ = stage.owner()
    owner.says("disconnected", leg=next(iter(owner.worker.legs)), reason="its VM has gone")
    for left in (3000.0, 2000.0, 1000.0):
        stage.console.parked = time.monotonic() + left
        stage.dial()[0].claims()
    (refusal,) = stage.admission.refusals()
    assert refusal["count"] == 3
    assert "unpark" in refusal["reason"]


def test_a_doubt_about_a_log_reaches_whoever_writes_to_its_page(stage: Stage) -> None:
    """An heir goes on with the page of the dead one."""
    owner, _ = stage.owner()
    page = owner.worker.page_number
    consoles = stage.master.consoles
    consoles.in_doubt(page)
    stage.until(lambda: owner.was_told("in-doubt"))
    stage.dies(owner)
    heir = stage.serving()
    assert heir.worker.page_number == page
    consoles.in_doubt(page)
    stage.until(lambda: heir.was_told("in-doubt"))
    other, _ = stage.dial()
    consoles.in_doubt(other.worker.page_number)  # which has no console, nor a log
    consoles.in_doubt(page + 1000)
    for _ in range(3):
        turn(stage.loop, 0.001)
    assert not other.was_told("in-doubt")
    assert len(heir.was_told("in-doubt")) == 1


def test_a_page_is_its_heirs_before_the_dead_one_is_struck_off(stage: Stage) -> None:
    owner, _ = stage.owner()
    heir = stage.supervisor.spawn(OWNER, instead_of=owner.worker)
    assert stage.table.strike(owner.worker.pid) is owner.worker
    assert stage.table.writer(heir.page_number) is heir
    assert stage.table.strike(heir.pid) is heir
    assert stage.table.writer(heir.page_number) is None
    for each in (owner.worker, heir):
        stage.table.enter(each)
