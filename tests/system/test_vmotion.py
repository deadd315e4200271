"""VMs that move between hosts while people type: nothing is lost, doubled or out of order at any end.

Every test that ends with ``check`` compares all bytes: the log, a raw client, a telnet client, and what the VM was
given over all its connections.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.vmotion_vm import (
    AWKWARD,
    ELSEWHERE,
    HERE,
    SEQUENCE,
    THERE,
    VMOTION_GOAHEAD,
    VMOTION_NOTNOW,
    VMOTION_PEER_OK,
    Scene,
    run,
    same,
)
from tests.system.wait import throughout, until

SECRET_AT_LEAST = 8


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def scene(daemon: Daemon, stack: ExitStack) -> Scene:
    return Scene(daemon, stack)


@pytest.mark.parametrize("identity_first", [False, True], ids=["pair first", "identity first"])
def test_move_under_traffic_is_exact(scene: Scene, identity_first: bool) -> None:
    source = scene.guest
    scene.turns()
    target = scene.move(identity_first=identity_first)
    scene.check()
    assert source is not None
    assert source.data
    assert target.data
    assert scene.daemon.console(scene.console)["peer"] == target.address


def test_goahead_is_the_sequence_and_a_secret_and_peer_ok_the_sequence_alone(scene: Scene) -> None:
    pair = scene.goahead()
    target = scene.target(pair)
    assert len(pair) >= len(SEQUENCE) + SECRET_AT_LEAST
    assert target.said(VMOTION_PEER_OK) == [SEQUENCE]


@pytest.mark.parametrize("sequence", [AWKWARD, b"\xff" * 4, b"\x00\x00\x00\x00", b"\xff", b"0123456789" * 4])
def test_any_sequence_moves_a_vm(scene: Scene, sequence: bytes) -> None:
    scene.move(sequence=sequence)
    scene.check()


def test_secret_that_holds_ff_moves_a_vm(scene: Scene) -> None:
    """Each BEGIN replaces the one before it, so that secrets can be drawn until one holds the escape byte."""
    scene.turns()
    for _ in range(1000):
        pair = scene.goahead(AWKWARD)
        if b"\xff" in pair[len(AWKWARD) :]:
            break
    assert b"\xff" in pair[len(AWKWARD) :]
    scene.complete(scene.target(pair, sequence=AWKWARD), AWKWARD)
    scene.until(scene.recorded, "the move is recorded")
    scene.check()


def test_goahead_comes_after_all_that_was_typed_before(scene: Scene) -> None:
    """The VM's host reads nothing for a moment: GOAHEAD waits behind every byte that was on its way."""
    source = scene.guest
    assert source is not None
    source.deaf = scene.mute = scene.quiet = True
    scene.fill()
    source.begin()
    assert throughout(lambda: not scene.moves(), 0.3)
    source.deaf = False
    scene.until(lambda: bool(source.pair()), "GOAHEAD")
    scene.turns()
    arrived = len(source.data)
    assert 0 < arrived <= len(scene.typed)
    target = scene.target(source.pair() or b"")
    scene.complete(target)
    scene.check()
    assert len(source.data) == arrived


def test_typing_is_held_between_goahead_and_complete(scene: Scene) -> None:
    scene.turns()
    pair = scene.goahead()
    source = scene.guest
    assert source is not None
    scene.turns()
    arrived = len(source.data)
    target = scene.target(pair)
    before = len(scene.typed)
    scene.turns(100)
    assert len(source.data) == arrived
    assert target.data == b""
    assert len(scene.typed) > before
    scene.complete(target)
    scene.check()


def test_source_is_heard_until_it_has_said_its_last(scene: Scene) -> None:
    pair = scene.goahead()
    scene.turns()
    scene.until(lambda: len(scene.typist.seen) > len(scene.sent) // 2, "the source is heard after GOAHEAD")
    scene.complete(scene.target(pair))
    scene.check()


def test_end_of_the_source_before_complete_is_not_the_end_of_the_vm(scene: Scene) -> None:
    scene.turns()
    pair = scene.goahead()
    source = scene.guest
    assert source is not None
    scene.mute = True
    source.leave()
    scene.until(lambda: source.closed, "the source's connection is over")
    target = scene.target(pair)
    assert throughout(lambda: scene.daemon.console(scene.console)["state"] == "connected", 0.5)
    scene.guest = target
    target.complete()
    scene.mute = False
    scene.check()
    assert [text for text in scene.notices() if b"disconnected" in text] == []
    assert "vm-disconnected" not in scene.daemon.log()


def test_what_the_target_says_before_complete_comes_after_the_last_of_the_source(scene: Scene) -> None:
    pair = scene.goahead()
    target = scene.target(pair)
    scene.mute = True
    target.send(b"<first of the target>")
    scene.mute_turn()
    scene.say(5000)
    scene.until(lambda: len(scene.typist.seen) >= len(scene.sent), "the source goes on being heard")
    scene.say(1000)
    scene.sent += b"<first of the target>"
    target.complete()
    assert scene.guest is not None
    scene.guest.leave()
    scene.guest = target
    scene.check()


def test_last_of_the_source_and_first_of_the_target_are_under_way_at_once(scene: Scene) -> None:
    for to in (THERE, HERE, THERE, HERE):
        count = len(scene.moves())
        target = scene.target(scene.goahead(), to)
        source = scene.guest
        assert source is not None
        scene.say(200000, source)
        target.complete()
        scene.guest = target
        scene.say(5000)
        source.leave()
        scene.until(lambda count=count: scene.recorded(count + 1), "it has moved")  # type: ignore[misc]
    scene.check()


def test_source_that_never_closes_does_not_hold_up_the_target(scene: Scene) -> None:
    target = scene.target(scene.goahead())
    source = scene.guest
    assert source is not None
    scene.say(5000)
    target.complete()
    scene.guest = target
    scene.until(scene.recorded, "it has moved", 10)
    scene.check()
    scene.until(lambda: source.closed, "the source is hung up on")


def test_back_and_forth_twenty_times(scene: Scene) -> None:
    for number in range(20):
        sequence = number.to_bytes(3, "big") + b"\xff"
        scene.move((THERE, HERE)[number % 2], sequence, identity_first=bool(number % 3))
    scene.check()
    moves = scene.moves()
    assert [move["outcome"] for move in moves] == ["moved"] * len(moves)
    assert scene.daemon.console(scene.console)["state"] == "connected"
    assert len([title for title in scene.daemon.titles().values() if scene.console in title]) == 1


def test_vm_that_moved_reconnects_from_its_new_host_at_once(scene: Scene) -> None:
    scene.move()
    scene.mute = scene.quiet = True
    again = scene.dial(THERE)
    again.handshake()
    scene.guest = again
    scene.mute = scene.quiet = False
    scene.check()


def test_target_renames_the_vm(scene: Scene) -> None:
    scene.turns()
    pair = scene.goahead()
    target = scene.dial(THERE, name="web02").show(pair)
    scene.until(target.admitted, "PEER-OK")
    scene.complete(target)
    scene.daemon.wait_state("web02", "connected")
    target.rename("web03")
    scene.daemon.wait_state("web03", "connected")
    scene.check()


def test_four_labelled_ports_of_one_vm_move_together(daemon: Daemon, stack: ExitStack) -> None:
    scenes = [Scene(daemon, stack, uri="vSPC.py?port=a", seed=10)]
    uuid = scenes[0].vms[0].uuid
    for number, label in enumerate("bcd"):
        scenes.append(Scene(daemon, stack, uri=f"vSPC.py?port={label}", uuid=uuid, seed=number))
    for to in (THERE, HERE):
        sources = [scene.guest for scene in scenes]
        for source in sources:
            assert source is not None
            source.begin()
        run(scenes, lambda sources=sources: all(s.pair() for s in sources), "all hear GOAHEAD")  # type: ignore[misc]
        pairs = [source.pair() or b"" for source in sources if source is not None]
        assert len(set(pairs)) == 4
        targets = [scene.dial(to) for scene in scenes]
        for target, pair in reversed(list(zip(targets, pairs))):
            target.show(pair)
        run(scenes, lambda targets=targets: all(t.admitted() for t in targets), "all are let in")  # type: ignore[misc]
        for scene, target in zip(scenes, targets):
            scene.complete(target)
        run(scenes, lambda: all(scene.recorded(1, "moved") for scene in scenes), "all have moved")
    for scene in scenes:
        scene.check()


def test_move_during_a_flood_from_another_vm(scene: Scene, stack: ExitStack) -> None:
    """The other VM's console has a reader, so that it is as busy as can be."""
    daemon = scene.daemon
    flood = stack.enter_context(daemon.dial(name="flood"))
    reader = stack.enter_context(UnixClient(daemon.socket_path("flood")))
    piece = b"flood " * 10000

    def pour() -> bool:
        flood.socket.setblocking(False)
        reader.socket.setblocking(False)
        try:
            flood.socket.send(piece)
        except BlockingIOError:
            pass
        try:
            reader.socket.recv(1 << 20)
        except BlockingIOError:
            pass
        return False

    for to in (THERE, HERE, THERE, HERE):
        for _ in range(200):
            pour()
        source = scene.guest
        assert source is not None
        source.begin()
        scene.until(lambda source=source: pour() or bool(source.pair()), "GOAHEAD")  # type: ignore[misc]
        target = scene.dial(to).show(source.pair() or b"")
        scene.until(lambda target=target: pour() or target.admitted(), "PEER-OK")  # type: ignore[misc]
        scene.complete(target)
    until(lambda: daemon.console("flood")["bytes_in"] > 100 * len(piece), "the flood has flooded")
    scene.check()


def test_move_does_not_wait_behind_a_storm_of_connections(scene: Scene, stack: ExitStack) -> None:
    storm = [stack.enter_context(FakeVm(scene.daemon.proxy, source=ELSEWHERE)) for _ in range(150)]
    for vm in storm:
        vm.send_raw(vm.steps()[0].says)
    target = scene.move()
    scene.check()
    record = scene.moves()[-1]
    assert record["goahead_ms"] < 4000
    assert scene.daemon.console(scene.console)["peer"] == target.address


# NOTNOW


def test_vm_that_does_not_read_is_told_not_now(start_daemon: StartDaemon, stack: ExitStack) -> None:
    scene = Scene(start_daemon("vmotion.limit=2s"), stack)
    source = scene.guest
    assert source is not None
    source.deaf = scene.quiet = True
    scene.fill()
    for sequence in (SEQUENCE, AWKWARD):
        count = len(scene.moves())
        source.begin(sequence)
        scene.until(lambda count=count: scene.recorded(count + 1, "not now"), "it is too late", 10)  # type: ignore[misc]
    source.deaf = scene.quiet = False
    scene.until(lambda: len(source.said(VMOTION_NOTNOW)) == 2, "NOTNOW")
    assert source.said(VMOTION_NOTNOW) == [SEQUENCE, AWKWARD]
    assert source.said(VMOTION_GOAHEAD) == []
    scene.check()


def test_vm_that_was_told_not_now_can_move_later(start_daemon: StartDaemon, stack: ExitStack) -> None:
    scene = Scene(start_daemon("vmotion.limit=2s"), stack)
    source = scene.guest
    assert source is not None
    source.deaf = scene.quiet = True
    scene.fill()
    source.begin()
    scene.until(lambda: scene.recorded(1, "not now"), "it is too late", 10)
    source.deaf = scene.quiet = False
    scene.turns(100)
    scene.move()
    scene.check()


# Back-pressure


def test_held_typing_is_bounded_by_back_pressure(scene: Scene) -> None:
    pair = scene.goahead()
    scene.quiet = True
    held = scene.fill()
    assert 0 < held < 4 << 20
    assert throughout(lambda: scene._type(1) == 0, 0.5)
    target = scene.target(pair)
    scene.complete(target)
    scene.until(lambda: len(target.data) >= held, "all that was held arrives")
    scene.check()


def test_held_typing_on_a_tcp_port_is_bounded_by_back_pressure(scene: Scene, stack: ExitStack) -> None:
    scene.quiet = True
    client = stack.enter_context(TcpClient(scene.daemon.port(scene.console)))
    client.send(b"plain text decides that this is no telnet")
    source = scene.guest
    assert source is not None
    scene.until(lambda: source.data.endswith(b"no telnet"), "typing arrives")
    pair = scene.goahead()
    typed = bytearray()
    client.socket.setblocking(False)

    def type_on() -> bool:
        piece = numbered(len(typed) // 64, 4096)[len(typed) % 64 :]
        try:
            typed.extend(piece[: client.socket.send(piece)])
        except BlockingIOError:
            return False
        return True

    until(lambda: not throughout(type_on, 0.2) and throughout(lambda: not type_on(), 0.5), "it is stopped")
    assert len(typed) < 64 << 20
    target = scene.target(pair)
    assert target.data == b""
    scene.complete(target)
    scene.until(lambda: len(target.data) >= len(typed), "all that was held arrives")
    assert same(bytes(target.data), bytes(typed))


def test_worker_does_not_grow_with_what_is_held(scene: Scene) -> None:
    pid = scene.daemon.worker(scene.console)
    scene.goahead()
    scene.quiet = scene.mute = True
    before = processes.private_bytes(pid)
    assert scene.fill() > 0
    assert processes.private_bytes(pid) - before < 1 << 20
