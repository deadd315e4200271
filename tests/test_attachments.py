"""Clients and doors, as the master deals with them: limits hold, and nobody's end harms another."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.stage import HOST, Player, Stage, ended
from tests.unix.turning import descriptors_left, settle, turn
from tests.workers.bench import UUID, Far, tcp_pair
from vspcd import config as configuration
from vspcd.attachments import Objection, Wish
from vspcd.core.rights import Who
from vspcd.proto.control import LEAVING, NEGOTIATING, OWNER
from vspcd.table import Console
from vspcd.unix.page import MAX_CLIENTS


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    """Sets a stage; settings as on the command line."""
    made: list[Stage] = []

    def make(*overrides: str) -> Stage:
        made.append(Stage(tmp_path, monkeypatch, *overrides))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stage(stages: Callable[..., Stage]) -> Stage:
    return stages()


# Clients


def attach(stage: Stage, console: Console) -> tuple[Optional[str], socket.socket]:
    near, far = socket.socketpair()
    far.settimeout(10)
    number = next(stage.table.numbers)
    found = stage.master.attachments.attach(console, Wish("raw", Who(uid=1000)), near, number)
    return found.text if isinstance(found, Objection) else None, far


def test_a_client_of_a_console_that_nobody_serves_gets_a_worker(stage: Stage) -> None:
    console = stage.table.add(Console(UUID, ""))
    objection, far = attach(stage, console)
    player = stage.cradle.players[-1]
    stage.until(lambda: player.was_told("own") and player.was_told("client"))
    assert objection is None
    assert player.worker.state == OWNER
    far.close()


def test_no_more_clients_than_allowed_and_the_refused_one_is_closed(stage: Stage) -> None:
    stage.owner()
    fars = [attach(stage, stage.console)[1] for _ in range(stage.supervisor.config.clients.max)]
    objection, far = attach(stage, stage.console)
    assert "clients.max" in str(objection)
    assert far.recv(1) == b""
    for each in (*fars, far):
        each.close()


def test_no_configuration_allows_more_clients_than_a_page_holds(stage: Stage) -> None:
    with pytest.raises(configuration.ConfigError):
        configuration.load(None, [f"clients.max={MAX_CLIENTS + 1}"], None)


def test_clients_of_a_worker_that_dies_stay_with_its_successor(stage: Stage) -> None:
    owner, _ = stage.owner()
    _, far = attach(stage, stage.console)
    stage.until(lambda: owner.was_told("client"))
    stage.dies(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("resumed"))
    assert [each["client"] for each in successor.was_told("resume-client")] == list(stage.console.clients)
    far.send(b"typed")
    assert os.read(successor.fds[-1], 10) == b"typed"
    far.close()


def unburied(stage: Stage) -> Player:
    """The console's worker is dead, and the master does not know it yet."""
    owner, _ = stage.owner()
    os.kill(owner.worker.pid, signal.SIGKILL)
    owner.close()
    return owner


def test_a_client_that_comes_between_a_death_and_its_notice_is_the_successors(stage: Stage) -> None:
    owner = unburied(stage)
    objection, far = attach(stage, stage.console)
    assert objection is None
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("resume-client"))
    far.send(b"typed")
    assert os.read(successor.fds[-1], 10) == b"typed"
    far.close()


def test_a_vm_that_comes_between_a_death_and_its_notice_is_judged_by_the_successor(stage: Stage) -> None:
    owner = unburied(stage)
    newcomer, _ = stage.dial()
    newcomer.claims()
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("leg"))
    assert not newcomer.was_told("refuse")


def test_a_target_that_comes_between_a_death_and_its_notice_is_the_successors(stage: Stage) -> None:
    owner, _ = stage.owner()
    pair = "00112233445566778899"
    owner.says("moving", pair=pair, seconds=60.0)
    os.kill(owner.worker.pid, signal.SIGKILL)
    owner.close()
    target, _ = stage.dial("192.0.2.2")
    target.says("peer", pair=pair, session={})
    stage.reap(owner)
    successor = stage.serving()
    stage.until(lambda: successor.was_told("target"))
    assert not target.was_told("refuse")


def test_clients_of_a_console_that_is_given_up_are_closed(stage: Stage) -> None:
    owner, _ = stage.owner()
    _, far = attach(stage, stage.console)
    stage.until(lambda: owner.was_told("client"))
    stage.dies_for_good(owner)
    assert far.recv(1) == b""
    assert stage.console.clients == {}
    far.close()


def test_an_idle_worker_goes_but_not_while_a_vm_is_on_its_way(stage: Stage) -> None:
    owner, _ = stage.owner()
    assert stage.console.leg is not None
    owner.says("disconnected", leg=stage.console.leg.number, reason="gone")
    second, _ = stage.dial()
    second.claims()
    stage.until(lambda: owner.was_told("leg"))
    owner.says("idle")
    assert not owner.was_told("quit")
    owner.says("rejected", leg=owner.was_told("leg")[0]["leg"], reason="no")
    owner.says("idle")
    stage.until(lambda: owner.was_told("quit"))
    assert stage.console.worker is None


# Admission


def test_a_vm_that_is_not_welcome_gets_no_worker(stages: Callable[..., Stage]) -> None:
    stage = stages("proxy.allow=[198.51.100.0/24]")
    near, far = tcp_pair()
    stage.claims.vm_connected(near, f"{HOST}:1")
    stage.claims.vms_connected()
    assert ended(far)
    assert stage.cradle.players == []
    assert "proxy.allow" in stage.admission.refusals()[0]["reason"]
    far.close()


@pytest.mark.parametrize(
    "peer", ["", "nonsense", "192.0.2.7", "[::1]", "\x1b:1", "x" * 1000], ids=lambda peer: ascii(peer[:9])
)
def test_a_balancers_worker_that_names_no_address_is_the_end_of_it_alone(
    stages: Callable[..., Stage], peer: str
) -> None:
    stage = stages(f"proxy.balancers=[{HOST}]", "proxy.allow=[198.51.100.0/24]")
    player, _ = stage.dial()
    player.says("source", peer=peer)
    assert player.worker.state in (NEGOTIATING, LEAVING)


def test_pending_vms_are_counted_down_however_they_end(stage: Stage) -> None:
    failing, _ = stage.dial()
    claiming, _ = stage.dial()
    dying, _ = stage.dial()
    assert stage.admission.pending == 3
    failing.says("failed", reason="x")
    claiming.claims()
    stage.dies(dying)
    heir = stage.cradle.players[-1]
    stage.dies(failing)
    stage.dies(claiming)
    assert stage.admission.pending == 1
    heir.says("failed", reason="x")
    stage.dies(heir)
    assert stage.admission.pending == 0


# The master's other doors


def test_a_peer_of_the_admin_port_that_resets_its_connection_harms_nobody(stage: Stage) -> None:
    address = stage.master.doors.sockets("admin")[0].getsockname()
    for _ in range(10):
        peer = Far(socket.create_connection(address, timeout=10))
        peer.reset()
        turn(stage.loop)
    player, _ = stage.dial()
    player.claims()
    stage.until(lambda: player.was_told("own"))


@pytest.mark.parametrize("door", ["proxy", "admin"])
def test_without_a_free_descriptor_a_door_waits_without_a_spin_and_opens_again(
    stage: Stage, door: str
) -> None:
    address = stage.master.doors.sockets(door)[0].getsockname()
    peer = socket.socket()
    peer.settimeout(10)
    with descriptors_left(0, 2):
        peer.connect(address)
        peer.send(b"I3\n.")  # the admin port answers who asks
        assert settle(stage.loop) < 10
    peer.setblocking(False)
    far = Far(peer)
    stage.until(lambda: stage.cradle.players or far.heard())
    peer.close()
