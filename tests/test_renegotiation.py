"""A worker dies before it is known whose connection it has: the VM stays, and somebody else negotiates with it."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.stage import Player, Stage, ended
from tests.workers.bench import UUID
from vspcd import bequest, handover, inheritance, renegotiation
from vspcd.mortality import DEATHS, KILLED, weight
from vspcd.proto.control import NEGOTIATING
from vspcd.table import LegRecord

TOLD = {"taken": 5, "early": "00"}


def leg_of(player: Player) -> LegRecord:
    leg = player.worker.only_leg
    assert leg is not None
    return leg


def dies(stage: Stage, player: Player, number: int = signal.SIGSYS) -> Player:
    """A worker dies; whoever has come last."""
    stage.dies(player, number)
    return stage.cradle.players[-1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSYS, signal.SIGTERM, 35, 64])
def test_another_worker_has_the_connection_after_a_death_of_any_sort(stage: Stage, number: int) -> None:
    player, far = stage.dial()
    leg = leg_of(player)
    heir = dies(stage, player, number)
    assert heir is not player
    assert (heir.worker.state, leg_of(heir)) == (NEGOTIATING, leg)
    assert heir.worker.page_number == player.worker.page_number
    assert stage.admission.pending == 1
    assert stage.admission.refusals() == []
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)


def test_the_heir_can_claim_a_console_like_any_other(stage: Stage) -> None:
    player, _ = stage.dial()
    heir = dies(stage, player)
    heir.claims()
    stage.until(lambda: heir.was_told("own"))
    assert stage.admission.pending == 0


def test_what_a_worker_has_told_is_there_for_its_heir(stage: Stage) -> None:
    player, _ = stage.dial()
    player.says("session", leg=leg_of(player).number, session=TOLD, move=None)
    assert leg_of(dies(stage, player)).session == TOLD


def test_what_a_worker_said_last_counts_before_its_death_does(stage: Stage) -> None:
    """Its claim is still in the channel: it has the console, and whoever goes on for it too."""
    player, _ = stage.dial()
    player.channel.send({"type": "claim", "uuid": UUID, "label": "", "name": None, "session": TOLD})
    stage.dies(player)
    stage.until(lambda: stage.serving().was_told("resume-leg"))
    assert stage.serving().was_told("resume-leg")[0]["session"] == TOLD


def test_a_pair_that_nobody_waits_for_and_then_a_death_is_a_negotiation_still(stage: Stage) -> None:
    player, _ = stage.dial()
    player.channel.send({"type": "peer", "pair": "00" * 20, "session": {}})
    heir = dies(stage, player)
    assert (heir.worker.state, stage.admission.pending) == (NEGOTIATING, 1)


def test_a_source_may_be_told_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    player, _ = stage.dial()
    leg_of(player).balancer = True
    player.says("source", peer="10.1.1.1:5")
    heir = dies(stage, player)
    heir.says("source", peer="10.1.1.1:5")
    assert not stage.killed(heir)
    assert (leg_of(heir).peer, stage.admission.pending) == ("10.1.1.1:5", 1)
    assert stage.admission._pending == {"10.1.1.1": 1}


def test_only_the_connection_of_a_balancer_has_another_source(stage: Stage) -> None:
    player, _ = stage.dial()
    player.says("source", peer="10.1.1.1:5")
    stage.until(lambda: stage.killed(player))


@pytest.mark.parametrize(("number", "deaths"), [(signal.SIGSYS, DEATHS), (signal.SIGKILL, KILLED)])
def test_what_has_killed_too_many_is_put_aside_by_the_next_one(
    stage: Stage, number: int, deaths: int
) -> None:
    player, far = stage.dial()
    for _ in range(deaths - 1):
        player = dies(stage, player, number)
        assert not leg_of(player).poisoned
    player = dies(stage, player, number)
    assert leg_of(player).poisoned
    player.says("failed", reason="put aside in a file")
    assert stage.admission.refusals()[0]["reason"] == "put aside in a file"
    assert stage.admission.pending == 0
    stage.dies(player)
    assert ended(far)


def test_a_connection_that_nobody_can_even_put_aside_is_over(stage: Stage) -> None:
    player, far = stage.dial()
    for _ in range(2 * DEATHS):
        player = dies(stage, player)
    assert ended(far)
    assert stage.admission.pending == 0
    assert "put aside" in stage.admission.refusals()[0]["reason"]


def test_a_worker_that_hung_counts_like_a_bug() -> None:
    assert weight("killed by SIGKILL", hung=True) == weight("killed by SIGSEGV", hung=False)
    assert weight("exited with 70", hung=False) > weight("killed by SIGKILL", hung=False) == 1


def test_without_room_for_a_worker_the_vm_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renegotiation, "AGAIN_AFTER", 0.05)
    player, _ = stage.dial()
    leg, worker = leg_of(player), stage.cradle.worker
    attempts = []

    def no_room(*_: Any) -> Any:
        attempts.append(1)
        raise OSError("no process")

    monkeypatch.setattr(stage.cradle, "worker", no_room)
    stage.dies(player)
    assert stage.claims.renegotiation.homeless == {leg.number: leg}
    assert stage.admission.pending == 1
    assert "room" in stage.master.upgrades._objection()
    stage.until(lambda: len(attempts) > 2)
    monkeypatch.setattr(stage.cradle, "worker", worker)
    stage.until(lambda: not stage.claims.renegotiation.homeless)
    assert leg_of(stage.cradle.players[-1]) is leg
    assert stage.master.upgrades._objection() == ""


def test_what_is_known_of_a_negotiation_is_handed_to_another_version(stage: Stage) -> None:
    player, _ = stage.dial()
    player.says("session", leg=leg_of(player).number, session=TOLD, move=None)
    heir = dies(stage, player)
    before = leg_of(heir)
    before.balancer = True
    fd = handover.pack(bequest.of(stage.master))
    (after,) = inheritance.of(handover.unpack(fd), stage.run, lambda _: before.parked).legs.values()
    assert after == before
    assert (after.session, after.deaths, after.balancer) == (TOLD, weight("", hung=False), True)
