"""What a worker says is bounded: too much ends that worker alone, and what is kept of it can be passed on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stage import Player, Stage
from tests.workers.bench import UUID
from vspcd.adoption import check_worker
from vspcd.core.rights import Who
from vspcd.descriptions import Description
from vspcd.locks import facts
from vspcd.proto.control import LIMITS, NEGOTIATING, ROOM, Message, size_of
from vspcd.proto.errors import PeerError
from vspcd.table import ClientRecord
from vspcd.unix.logline import Log
from vspcd.unix.page import MAX_CLIENTS

CLAIM: dict[str, Any] = {"type": "claim", "uuid": UUID, "label": "", "name": None, "session": {}}
FACTS: dict[str, Any] = {"type": "facts", "name": None, "bios_uuid": None, "location_uuid": None, "line": {}}
MOVE: dict[str, Any] = {
    "state": "moving",
    "sequence": "00",
    "pair": "0011",
    "begun": 1.0,
    "expires": 2.0,
    "completed": False,
    "target": 0,
    "record": {},
}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why workers were killed, as the log has it."""
    reasons: list[str] = []

    def write(_log: Log, _level: str, event: str, fields: dict[str, Any]) -> None:
        if event == "worker-killed":
            reasons.append(fields["reason"])

    monkeypatch.setattr(Log, "write", write)
    return reasons


def says(stage: Stage, player: Player, word: dict[str, Any], killed: list[str]) -> str:
    """A worker says this and is killed, while the master goes on: why."""
    player.channel.send(word)
    stage.until(lambda: stage.killed(player))
    stage.master.consoles.keeper.flush()
    stage.until(lambda: stage.master.consoles.keeper.settled)
    assert len(killed) == 1
    return killed[0]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("name", "n" * 61000, "claim with a name of 61002 bytes, more than 1600"),
        ("name", "a\ud800b", "claim with a name that is no text"),
        ("session", {"early": "0" * 60000}, "more than 60000"),
        ("session", nested(300), "too deep"),
        ("label", "x" * 60000, "a label of"),
        ("uuid", "0" * 60000, "a uuid of"),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_a_claim_that_says_too_much_is_the_end_of_its_worker_alone(
    stage: Stage, killed: list[str], field: str, value: object, reason: str
) -> None:
    owner, _ = stage.owner()
    player, _ = stage.dial()
    assert reason in says(stage, player, {**CLAIM, field: value}, killed)
    assert not stage.killed(owner)


@pytest.mark.parametrize(
    "lie",
    [
        {**FACTS, "name": "\x01" * 400},
        {**FACTS, "name": "\udcff"},
        {**FACTS, "bios_uuid": "0" * 60000},
        {**FACTS, "location_uuid": "0" * 60000},
        {**FACTS, "line": {"a": "0" * 2000}},
        {"type": "moved", "record": {"outcome": "0" * 2000}, "slow": False},
        {"type": "moving", "pair": "00", "seconds": 10**400},
        {"type": "moving", "pair": "00", "seconds": float("inf")},
        {"type": "moving", "pair": "00", "seconds": float("nan")},
        {"type": "moving", "pair": "00" * 2000, "seconds": 1},
        {"type": "disconnected", "leg": 1, "reason": "x" * 60000},
        {"type": "quarantined", "leg": 1, "file": "x" * 60000, "bytes": 1},
        {"type": "client-kind", "client": 1, "kind": "x" * 60000},
        {"type": "terminal", "client": 1, "state": {"unsaid": "0" * 60000}},
        {"type": "break", "client": 1, "count": 1 << 64},
    ],
    ids=lambda lie: str(lie["type"]),
)
def test_an_owner_that_says_too_much_is_killed_and_its_console_lives(
    stage: Stage, killed: list[str], lie: dict[str, Any]
) -> None:
    owner, _ = stage.owner()
    assert says(stage, owner, lie, killed).startswith("out of turn: " + lie["type"])
    owner.close()
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("resumed"))


@pytest.mark.parametrize(
    "change",
    [{"target": None}, {"state": "elsewhere"}, {"state": []}, {"expires": 10**400}, {"begun": float("nan")},
     {"pair": "xy"}, {"sequence": None}, {"completed": 1}, {"record": []}],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("word", ["session", "connected", "took"])
def test_a_move_that_is_none_is_the_end_of_its_worker_and_no_heir_gets_it(
    stage: Stage, killed: list[str], word: str, change: dict[str, Any]
) -> None:
    owner, _ = stage.owner()
    (number,) = owner.worker.legs
    says(stage, owner, {"type": word, "leg": number, "session": {}, "move": {**MOVE, **change}}, killed)
    owner.close()
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("resumed"))
    assert successor.was_told("resumed")[0]["move"] is None
    assert successor.was_told("resume-leg")[0]["role"] == "feeds"


def test_an_empty_move_is_none(stage: Stage, killed: list[str]) -> None:
    owner, _ = stage.owner()
    (number,) = owner.worker.legs
    assert "a move that is none" in says(
        stage, owner, {"type": "session", "leg": number, "session": {}, "move": {}}, killed
    )


def test_a_move_as_workers_tell_it_is_kept(stage: Stage) -> None:
    owner, _ = stage.owner()
    (number,) = owner.worker.legs
    owner.says("session", leg=number, session={}, move=MOVE)
    assert stage.console.move == MOVE
    assert not stage.killed(owner)


def orphan(**said: Any) -> Message:
    return {"type": "worker", "state": NEGOTIATING, "console": None, "move": None, "known": None, **said}


@pytest.mark.parametrize(
    "said",
    [
        {"known": {"since": 10**400, "moves": [], "clients": []}},
        {"known": {"since": 1.0, "moves": [], "clients": [[1, 10**400]]}},
        {"known": {"since": 1.0, "moves": [], "clients": [[float("inf"), 1]]}},
        {"known": {"since": 1.0, "moves": [{"outcome": "\u00e9" * 400}], "clients": []}},
        {"move": {}},
        {"move": {**MOVE, "expires": 10**400}},
    ],
    ids=repr,
)
def test_an_orphan_that_remembers_what_cannot_be_is_not_taken_over(said: dict[str, Any]) -> None:
    check_worker(orphan())
    with pytest.raises(PeerError):
        check_worker(orphan(**said))


def test_what_does_not_fit_into_a_packet_is_not_told_and_nobody_is_killed(
    stage: Stage, killed: list[str]
) -> None:
    owner, _ = stage.owner()
    assert not stage.supervisor.tell(owner.worker, {"type": "quit", "reason": "x" * 70000})
    assert not killed
    assert owner.worker.pid in stage.table.workers


def test_all_that_workers_may_say_of_a_console_fits_into_its_status(stage: Stage) -> None:
    owner, _ = stage.owner()
    (number,) = owner.worker.legs
    file = "x" * (LIMITS["file"] - 2)
    record = {"outcome": "x" * (LIMITS["record"] - 14)}
    for _ in range(10):
        owner.says("quarantined", leg=number, file=file, bytes=1)
        owner.says("moved", record=record, slow=False)
    owner.says("facts", name="\x01" * 266, bios_uuid="x" * 38, location_uuid="x" * 38, line={"a": "x" * 990})
    console = stage.console
    assert (console.name, len(console.moves)) == ("\x01" * 266, 10)
    assert console.quarantined
    for client in range(1, MAX_CLIENTS + 1):
        origin = "x" * (LIMITS["from"] - 2)
        console.clients[client] = ClientRecord(
            client << 40, "x" * 18, origin, "rw", owner.channel.sock, time.time()
        )
    described = Description(stage.master.config).of(console)
    assert size_of(described) + LIMITS["facts"] < ROOM  # a lock is a part of what is told of its client
    console.clients.clear()


def test_all_that_is_told_of_a_client_is_within_its_bounds(stage: Stage) -> None:
    owner, _ = stage.owner()
    who = Who(2**32 - 2, 2**22, [2**32 - 2] * 257, "u" * 256)
    client = ClientRecord(1, "vspcctl", who.origin, "rw", owner.channel.sock, time.time(), who=who)
    stage.console.clients[1] = client
    stage.master.locks.give(stage.console, client, "exclusive", "\x01" * 200, None)
    assert size_of(facts(stage.console, client)) <= LIMITS["facts"]
    assert size_of(client.origin) <= LIMITS["from"]
    stage.console.clients.clear()
