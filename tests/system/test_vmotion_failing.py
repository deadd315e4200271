"""Moves that fail, and peers that misbehave: the console goes on, typing is never held for ever, nothing is lost."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from typing import Callable

import pytest

from tests.system import processes
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import VC_UUID, uuid_text, vmware
from tests.system.vmotion_vm import (
    AWKWARD,
    ELSEWHERE,
    SEQUENCE,
    VMOTION_ABORT,
    VMOTION_COMPLETE,
    VMOTION_NOTNOW,
    MovingVm,
    Scene,
    same,
)
from tests.system.wait import throughout

SOON = ("vmotion.timeout=2s", "vmotion.limit=1.9s")
TICKS = os.sysconf("SC_CLK_TCK")
OTHER_UUID = "ffffffff-ffff-ffff-ffff-fffffffffffe"


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def scene(daemon: Daemon, stack: ExitStack) -> Scene:
    return Scene(daemon, stack)


@pytest.fixture
def soon(start_daemon: StartDaemon, stack: ExitStack) -> Scene:
    """Moves expire within two seconds."""
    return Scene(start_daemon(*SOON), stack)


def source_of(scene: Scene) -> MovingVm:
    assert scene.guest is not None
    return scene.guest


def stays(scene: Scene) -> None:
    """The console is with the source: typing, output and the peer in the status."""
    scene.check()
    source = source_of(scene)
    assert scene.daemon.console(scene.console)["peer"] == source.address
    before = len(source.data)
    scene.turns()
    scene.until(lambda: len(source.data) > before, "typing reaches the source")
    scene.check()


def processor_time(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = (processes.read(pid, "stat") or "").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# ABORT


def test_abort_after_goahead_releases_held_typing_to_the_source(scene: Scene) -> None:
    pair = scene.goahead()
    scene.turns()
    source_of(scene).abort()
    stays(scene)
    assert scene.recorded(1, "aborted")
    assert show_until_unknown(scene, pair)


def test_abort_may_carry_a_payload(scene: Scene) -> None:
    scene.goahead()
    scene.turns()
    source_of(scene).abort(SEQUENCE)
    stays(scene)


def test_abort_drops_the_target(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    scene.turns()
    source_of(scene).abort()
    scene.until(lambda: target.closed, "the target is hung up on")
    stays(scene)
    assert target.data == b""


def test_abort_that_crosses_goahead(scene: Scene) -> None:
    source = source_of(scene)
    for number in range(10):
        source.begin(bytes([number]))
        source.abort()
        scene.turns(3)
        # The VM has taken back what this GOAHEAD answers; a real host goes on reading.
        source.runs_here = True
        source.data += source.late
        source.late.clear()
    scene.turns(20)
    source.runs_here = True
    scene.quiet = True
    scene.until(lambda: len(source.data) + len(source.late) >= len(scene.typed), "all typing arrives")
    assert len(source.data) + len(source.late) == len(scene.typed)


def test_abort_from_the_target_has_no_effect(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    target.send_raw(vmware(VMOTION_ABORT))
    scene.turns(50)
    assert not target.closed
    assert scene.moves() == []
    scene.complete(target)
    scene.check()


def test_complete_from_the_source_has_no_effect(scene: Scene) -> None:
    source = source_of(scene)
    target = scene.target(scene.goahead())
    source.send_raw(vmware(VMOTION_COMPLETE, SEQUENCE))
    scene.turns(50)
    assert target.late == b""
    assert scene.moves() == []
    scene.complete(target)
    scene.check()


@pytest.mark.parametrize("words", [vmware(VMOTION_ABORT), vmware(VMOTION_COMPLETE, SEQUENCE)])
def test_words_about_a_move_that_is_none_have_no_effect(scene: Scene, words: bytes) -> None:
    source_of(scene).send_raw(words)
    stays(scene)
    assert scene.moves() == []


def test_complete_with_another_sequence_has_no_effect(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    target.send_raw(vmware(VMOTION_COMPLETE, AWKWARD))
    scene.turns(50)
    assert target.late == b""
    scene.complete(target)
    scene.check()


# BEGIN


def test_second_begin_replaces_the_first(scene: Scene) -> None:
    first = scene.goahead(SEQUENCE)
    second = scene.goahead(AWKWARD)
    assert show_until_unknown(scene, first)
    target = scene.target(second, sequence=AWKWARD)
    scene.complete(target, AWKWARD)
    scene.check()


def test_second_begin_drops_the_target_of_the_first(scene: Scene) -> None:
    target = scene.target(scene.goahead(SEQUENCE))
    second = scene.goahead(AWKWARD)
    scene.until(lambda: target.closed, "the first target is hung up on")
    scene.complete(scene.target(second, sequence=AWKWARD), AWKWARD)
    scene.check()


def test_begin_of_a_target_that_has_not_arrived_is_not_now(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    target.begin(AWKWARD)
    scene.until(lambda: target.said(VMOTION_NOTNOW) == [AWKWARD], "NOTNOW")
    scene.complete(target)
    scene.check()


# Pairs


def show_until_unknown(scene: Scene, pair: bytes) -> bool:
    """Whether a connection that shows the pair is answered 03 2C, and nothing else comes of it."""
    stranger = scene.dial(ELSEWHERE).show(pair)
    scene.until(stranger.is_unknown, "the pair is not known")
    scene.until(lambda: "vmotion-unknown-pair" in scene.daemon.log(), "the daemon's log tells of it")
    return not stranger.admitted() and stranger.data + stranger.late == b""


@pytest.mark.parametrize(
    "wrong",
    [
        lambda pair: pair[:-1] + bytes([pair[-1] ^ 1]),
        lambda pair: pair[:-1],
        lambda pair: pair + b"\x00",
        lambda pair: SEQUENCE,
        lambda pair: pair[len(SEQUENCE) :],
        lambda pair: b"\xff" * 20,
        lambda pair: b"",
    ],
    ids=["one bit", "too short", "too long", "sequence alone", "secret alone", "all FF", "empty"],
)
def test_wrong_pair_is_answered_as_unknown_and_costs_the_right_one_nothing(
    scene: Scene, wrong: Callable[[bytes], bytes]
) -> None:
    pair = scene.goahead()
    assert show_until_unknown(scene, wrong(pair))
    scene.complete(scene.target(pair))
    scene.check()


def test_attack_replayed_pair(scene: Scene) -> None:
    """A pair is worth nothing once it was shown: before, during and after the move."""
    pair = scene.goahead()
    target = scene.target(pair)
    assert show_until_unknown(scene, pair)
    scene.complete(target)
    scene.until(scene.recorded, "it has moved")
    assert show_until_unknown(scene, pair)
    scene.check()


def test_attack_guessed_pair(scene: Scene) -> None:
    """With the sequence known, every guess of the secret is answered alike; the console and its typing stay."""
    pair = scene.goahead()
    secret = bytearray(pair[len(SEQUENCE) :])
    for at in range(0, len(secret), 4):
        guess = bytearray(secret)
        guess[at] ^= 0xFF
        assert show_until_unknown(scene, SEQUENCE + bytes(guess))
    source_of(scene).abort()
    stays(scene)


def test_expired_pair_is_answered_as_unknown(soon: Scene) -> None:
    pair = soon.goahead()
    soon.until(lambda: soon.recorded(1, "expired"), "the move expires")
    assert show_until_unknown(soon, pair)
    source_of(soon).runs_here = True
    soon.quiet = soon.mute = True
    soon.until(lambda: len(soon.heard()) + len(source_of(soon).late) >= len(soon.typed), "typing goes on")


@pytest.mark.parametrize("identity_first", [False, True])
def test_stolen_pair_with_another_uuid_does_not_get_the_console(scene: Scene, identity_first: bool) -> None:
    pair = scene.goahead()
    # A thief that is found out only after it joined is a lost target: the source has the console back at once.
    source_of(scene).runs_here = True
    thief = scene.dial(ELSEWHERE, uuid=OTHER_UUID).show(pair, identity_first)
    scene.until(lambda: thief.closed, "the thief is hung up on")
    source_of(scene).abort()
    stays(scene)
    assert thief.data + thief.late == b""
    scene.daemon.wait_log(OTHER_UUID, thief.address)


def test_stranger_may_still_ask_for_a_port_of_its_own(scene: Scene) -> None:
    stranger = scene.dial(ELSEWHERE, name="stranger", uuid=OTHER_UUID).show(b"no such pair")
    scene.until(stranger.is_unknown, "the pair is not known")
    stranger.send_raw(vmware(70, b"SvSPC.py") + vmware(VC_UUID, uuid_text(stranger.uuid)))
    scene.until(lambda: 71 in stranger.vmware_codes(), "WILL-PROXY")
    scene.daemon.wait_state(OTHER_UUID, "connected")


# Connections that end


def reset(vm: MovingVm) -> None:
    vm.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
    vm.close()


@pytest.mark.parametrize("end", [MovingVm.close, reset], ids=["closed", "reset"])
def test_lost_target_gives_the_console_back_to_the_source(
    scene: Scene, end: Callable[[MovingVm], None]
) -> None:
    target = scene.target(scene.goahead())
    scene.turns()
    end(target)
    scene.vms.remove(target)
    source_of(scene).runs_here = True
    scene.until(lambda: scene.recorded(1, "target"), "the move has failed")
    stays(scene)


def test_move_works_after_one_whose_target_was_lost(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    target.close()
    scene.vms.remove(target)
    source_of(scene).runs_here = True
    scene.until(lambda: scene.recorded(1, "target"), "the move has failed")
    scene.move()
    scene.check()


def comes_back(scene: Scene) -> None:
    """The VM starts again on another host: it has the console, and what was typed meanwhile."""
    again = scene.dial(ELSEWHERE)
    again.handshake()
    scene.guest = again
    scene.mute = False
    scene.check()
    assert again.data


def test_attack_begin_then_disconnect(soon: Scene) -> None:
    """It froze the console for ever, at 87 % CPU: now it ends by vmotion.timeout, says so, and costs nothing."""
    worker = soon.daemon.worker(soon.console)
    soon.turns()
    soon.goahead()
    soon.turns()
    soon.quiet = soon.mute = True
    source = source_of(soon)
    source.leave()
    soon.until(lambda: source.closed, "the source's connection is over")
    before = [processor_time(worker), processor_time(soon.daemon.pid)]
    throughout(lambda: True, 1.0)
    used = [processor_time(worker) - before[0], processor_time(soon.daemon.pid) - before[1]]
    assert max(used) < 0.3
    soon.until(lambda: soon.recorded(1, "expired"), "the move expires", 10)
    soon.daemon.wait_log("vm-moved", "expired")
    soon.until(lambda: any(b"expired" in text for text in soon.notices()), "people are told")
    soon.daemon.wait_state(soon.console, "waiting")
    soon.guest, soon.quiet = None, False
    soon.turns()
    comes_back(soon)


def test_vm_that_lost_source_and_target_comes_back(scene: Scene) -> None:
    source = source_of(scene)
    target = scene.target(scene.goahead())
    scene.turns()
    scene.mute = True
    source.leave()
    scene.until(lambda: source.closed, "the source's connection is over")
    scene.guest = None
    target.close()
    scene.vms.remove(target)
    scene.until(lambda: scene.recorded(1, "target"), "the move has failed")
    scene.daemon.wait_state(scene.console, "waiting")
    comes_back(scene)


def test_vm_that_dials_again_in_the_middle_of_a_move(scene: Scene) -> None:
    source = source_of(scene)
    pair = scene.goahead()
    scene.mute = True
    again = scene.dial(source.address.rpartition(":")[0])
    again.handshake()
    scene.until(lambda: source.closed, "the old connection is hung up on")
    scene.guest = again
    scene.mute = False
    scene.check()
    assert show_until_unknown(scene, pair)


def test_vm_restarted_on_its_new_host_when_the_source_vanished_politely(scene: Scene) -> None:
    """HA: GOAHEAD was given, the source closes, no target comes, and the VM boots on another host."""
    source = source_of(scene)
    scene.goahead()
    scene.mute = True
    source.leave()
    scene.until(lambda: source.closed, "the source's connection is over")
    scene.guest = None
    comes_back(scene)


def test_move_that_never_ends_expires_with_its_target(soon: Scene) -> None:
    target = soon.target(soon.goahead())
    soon.quiet = True
    soon.until(lambda: soon.recorded(1, "expired"), "the move expires", 10)
    soon.until(lambda: target.closed, "the target is hung up on")
    source = source_of(soon)
    soon.until(lambda: len(source.data) + len(source.late) >= len(soon.typed), "held typing arrives")
    assert same(bytes(source.data + source.late), bytes(soon.typed))
    assert target.data + target.late == b""


def test_target_that_says_too_much_before_complete_is_dropped(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    try:
        for _ in range(50):
            target.send_raw(b"x" * 65536, 1)
    except (TimeoutError, OSError):
        pass  # it is hung up on in the middle, which is what is wanted
    source_of(scene).runs_here = True
    scene.until(lambda: scene.recorded(1, "target"), "the target is dropped")
    stays(scene)
