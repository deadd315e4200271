"""What a worker remembers for the next master: bounded, and nothing of those who are gone."""

from __future__ import annotations

import json
import time

import pytest

from vspcd.consoles import recall
from vspcd.proto.errors import PeerError
from vspcd.table import Console
from workers.memory import MOVES_KEPT, Memory


def test_an_heir_remembers_what_the_dead_worker_did() -> None:
    first, heir = Memory(), Memory()
    first.client_came(7)
    first.moved({"from": "a", "to": "b"})
    told = json.loads(json.dumps(first.told([7])))
    heir.restore(told)
    assert json.loads(json.dumps(heir.told([7]))) == told


def test_clients_that_are_gone_and_old_moves_are_forgotten() -> None:
    memory = Memory()
    for number in range(100):
        memory.client_came(number)
        memory.moved({"when": number})
    told = memory.told([99])
    assert [number for number, _ in told["clients"]] == [99]
    assert [move["when"] for move in told["moves"]] == list(range(100 - MOVES_KEPT, 100))


def test_a_vm_that_comes_or_goes_begins_a_new_time() -> None:
    memory = Memory()
    memory.restore({"since": 5.0, "clients": [], "moves": []})
    before = time.time()
    memory.vm_changed()
    assert memory.told([])["since"] >= before


@pytest.mark.parametrize(
    "known",
    [
        *({}, {"since": 1.0}, {"since": "x", "clients": [], "moves": []}),
        *({"since": 1.0, "clients": [5], "moves": []}, {"since": 1.0, "clients": [], "moves": [7]}),
        {"since": 1.0, "clients": [], "moves": [{"outcome": "x" * 2000}]},
    ],
)
def test_what_cannot_be_is_not_believed(known: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        recall(Console("", ""), known)


def test_nothing_has_been_since_tomorrow() -> None:
    console = Console("", "")
    recall(console, {"since": time.time() + 86400, "clients": [], "moves": []})
    assert console.since <= time.time()
