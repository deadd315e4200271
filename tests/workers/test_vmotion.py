"""A worker whose VM moves: what it says to whom, where typing goes, whose bytes come first."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.bench import HOST, OTHER_HOST, Bench, Far, Vm
from tests.workers.conftest import Benches
from tests.workers.moving import SECRET_AT_LEAST, SEQUENCE, Moving, identity, payloads
from vspcd.proto import attach
from vspcd.proto.vmware import (
    VM_NAME,
    VMOTION_GOAHEAD,
    frame,
)
from workers import vmotion


@pytest.fixture
def moving(bench: Bench) -> Moving:
    return Moving(bench)


@pytest.fixture
def soon(benches: Benches) -> Moving:
    """Moves that expire within half a second."""
    bench = benches()
    bench.settings["vmotion"] = {"timeout": 0.4, "limit": 5.0}
    bench.own()
    return Moving(bench)


@pytest.fixture
def hurried(benches: Benches) -> Moving:
    """NOTNOW after 0.3 s; a VM that takes little at a time."""
    bench = benches()
    bench.settings["vmotion"] = {"timeout": 60.0, "limit": vmotion.ANSWER_MARGIN + 0.3}
    bench.own()
    return Moving(bench, small=True)


def fill(bench: Bench, client: Far) -> int:
    """Type until nothing more is taken; how much that was."""
    size, still = 0, 0
    while still < 5:
        sent = client.offer(b"x" * 4096)
        size += sent
        still = 0 if sent else still + 1
        bench.settle()
    return size


# GOAHEAD and NOTNOW


def test_goahead_is_the_sequence_and_a_secret_that_the_master_knows_too(moving: Moving) -> None:
    pair = moving.goahead()
    moving.bench.until(lambda: moving.bench.told("moving"))
    assert len(pair) >= len(SEQUENCE) + SECRET_AT_LEAST
    (told,) = moving.bench.told("moving")
    assert (told["pair"], told["seconds"]) == (pair.hex(), moving.bench.settings["vmotion"]["timeout"])


def test_secrets_never_repeat(moving: Moving) -> None:
    assert len({moving.goahead() for _ in range(50)}) == 50


def test_goahead_comes_behind_all_that_was_typed_and_read(hurried: Moving) -> None:
    bench, source = hurried.bench, hurried.source
    bench.settings["vmotion"]["limit"] = 60.0
    typed = fill(bench, hurried.raw)
    hurried.begin()
    for _ in range(20):
        bench.settle()
    assert not bench.told("moving")
    bench.until(lambda: payloads(source, VMOTION_GOAHEAD))
    arrived = len(source.typed())
    assert 0 < arrived <= typed
    wire = source.heard()
    assert wire.endswith(b"\xff\xf0")
    bench.settle()
    assert source.heard() == wire


@pytest.mark.parametrize("sequence", [SEQUENCE, b"\xff" * 4, b"", b"\xff\xf0\xff\xfa"])
def test_notnow_carries_the_sequence_alone(hurried: Moving, sequence: bytes) -> None:
    bench = hurried.bench
    fill(bench, hurried.raw)
    hurried.begin(sequence)
    record = hurried.ended("not now")
    bench.until(hurried.notnow)
    assert hurried.notnow() == [sequence]
    assert payloads(hurried.source, VMOTION_GOAHEAD) == []
    assert "goahead_ms" not in record
    assert not bench.told("moving")


def test_typing_goes_on_after_notnow(hurried: Moving) -> None:
    bench = hurried.bench
    typed = fill(bench, hurried.raw)
    hurried.begin()
    hurried.ended("not now")
    bench.until(lambda: len(hurried.source.typed()) == typed)
    hurried.raw.say(b"more")
    bench.until(lambda: hurried.source.typed().endswith(b"more"))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequence=st.binary(max_size=40) | st.lists(st.sampled_from(b"\xff\xf0\xfa\x00")).map(bytes))
def test_any_sequence_comes_back_as_it_was(moving: Moving, sequence: bytes) -> None:
    pair = moving.goahead(sequence)
    assert pair[: len(sequence)] == sequence
    moving.abort()


# Typing


def test_typing_is_held_in_the_clients_socket_from_goahead_on(moving: Moving) -> None:
    moving.raw.say(b"before")
    moving.bench.until(lambda: moving.source.typed() == b"before")
    moving.goahead()
    held = fill(moving.bench, moving.raw)
    assert held < 1 << 20
    assert moving.typed_at_rest(moving.source) == b"before"
    assert moving.bench.worker.console_of_ours.keyboard.held_bytes <= 2 << 17


def test_held_typing_goes_to_the_target_first_and_in_order(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held \xff|")
    assert moving.typed_at_rest(target) == b""
    moving.moved(target)
    moving.raw.say(b"later")
    moving.bench.until(lambda: target.typed() == b"held \xff|later")
    assert moving.source.typed() == b""


def test_all_that_was_held_reaches_the_target(moving: Moving) -> None:
    target = moving.joined()
    size = fill(moving.bench, moving.raw)
    moving.complete(target)
    moving.source.finish()
    moving.bench.until(lambda: len(target.typed()) == size)


def test_nothing_is_typed_to_a_target_before_complete(moving: Moving) -> None:
    target = moving.joined()
    moving.source.finish()
    moving.raw.say(b"held")
    assert moving.typed_at_rest(target) == b""


def test_abort_releases_what_was_held_to_the_source(moving: Moving) -> None:
    pair = moving.goahead()
    moving.raw.say(b"held")
    assert moving.typed_at_rest(moving.source) == b""
    moving.abort(b"some payload")
    moving.bench.until(lambda: moving.source.typed() == b"held")
    moving.ended("aborted")
    assert [told["pair"] for told in moving.bench.told("revoke")] == [pair.hex()]


def test_abort_drops_the_target(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    moving.abort()
    moving.bench.until(lambda: target.ended() and moving.source.typed() == b"held")
    assert target.typed() == b""
    moving.bench.until(lambda: moving.bench.told("closed"))


# Whose bytes come first


def test_the_source_is_heard_until_the_end(moving: Moving) -> None:
    target = moving.joined()
    moving.source.speak(b"running \xff|")
    moving.bench.until(lambda: moving.raw.heard() == b"running \xff|")
    moving.complete(target)
    moving.source.speak(b"last|")
    moving.source.finish()
    target.speak(b"first")
    moving.bench.until(lambda: moving.raw.heard() == b"running \xff|last|first")
    assert moving.bench.log() == moving.raw.heard() == moving.tool.seen()


def test_bytes_of_the_target_before_complete_come_behind_the_last_of_the_source(moving: Moving) -> None:
    target = moving.target(moving.goahead(), early=b"early|".hex())
    target.speak(b"too early|")
    moving.bench.settle()
    moving.source.speak(b"running|")
    moving.bench.until(lambda: moving.raw.heard() == b"running|")
    moving.moved(target)
    target.speak(b"then")
    moving.bench.until(lambda: moving.raw.heard() == b"running|early|too early|then")
    assert moving.bench.log() == moving.raw.heard()


def test_source_that_does_not_close_is_not_waited_for_longer_than_a_moment(moving: Moving) -> None:
    target = moving.joined()
    moving.source.speak(b"last|")
    moving.complete(target)
    target.speak(b"first")
    moving.bench.until(lambda: moving.raw.heard() == b"last|first", vmotion.FLUSH_WITHIN + 5)
    moving.bench.until(moving.source.ended)


def test_target_with_too_much_to_say_before_complete_is_dropped(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    moving.bench.pour(target, b"x" * (2 * vmotion.EARLY_LIMIT), target.ended)
    moving.bench.until(lambda: moving.source.typed() == b"held")
    moving.ended("target")
    assert moving.bench.log() == b""


# Connections that end


def test_end_of_the_source_before_complete_is_not_the_end_of_the_vm(moving: Moving) -> None:
    pair = moving.goahead()
    moving.source.speak(b"last|")
    moving.source.finish()
    moving.bench.until(lambda: moving.bench.told("closed"))
    target = moving.target(pair)
    moving.raw.say(b"held")
    moving.complete(target)
    target.speak(b"first")
    moving.bench.until(lambda: target.typed() == b"held" and moving.raw.heard() == b"last|first")
    assert not moving.bench.told("disconnected")
    assert [text for text in moving.tool.payloads(attach.NOTICE) if b"disconnected" in text] == []


def test_source_that_leaves_before_goahead_is_gone(hurried: Moving) -> None:
    bench = hurried.bench
    bench.settings["vmotion"]["limit"] = 60.0
    fill(bench, hurried.raw)
    hurried.begin()
    bench.settle()
    hurried.source.reset()
    hurried.ended("source")
    bench.until(lambda: bench.told("disconnected"))


def test_lost_target_gives_the_console_back_to_the_source(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    target.close()
    moving.ended("target")
    moving.bench.until(lambda: moving.source.typed() == b"held")
    moving.source.speak(b"still here")
    moving.bench.until(lambda: moving.raw.heard() == b"still here")


def next_vm_gets(moving: Moving, typed: bytes) -> None:
    """The VM starts again somewhere: what was held is for it."""
    vm = moving.bench.connect(OTHER_HOST)
    moving.bench.until(lambda: vm.typed() == typed)
    moving.raw.say(b" more")
    moving.bench.until(lambda: vm.typed() == typed + b" more")
    vm.speak(b"hello")
    moving.bench.until(lambda: moving.raw.heard().endswith(b"hello"))


def test_vm_that_lost_source_and_target_is_gone_and_typing_waits_for_its_return(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    moving.source.finish()
    moving.bench.until(lambda: moving.bench.told("closed"))
    target.close()
    moving.ended("target")
    moving.bench.until(lambda: moving.bench.told("disconnected"))
    next_vm_gets(moving, b"held")


def test_target_that_is_lost_while_the_last_bytes_of_the_source_are_awaited(moving: Moving) -> None:
    target = moving.joined()
    moving.complete(target)
    moving.source.speak(b"last")
    target.reset()
    moving.bench.until(lambda: moving.bench.told("disconnected"), 5)
    assert moving.bench.log() == b"last"
    moving.raw.say(b"held")
    next_vm_gets(moving, b"held")


def test_vm_that_dials_again_in_the_middle_of_a_move_ends_it(moving: Moving) -> None:
    pair = moving.goahead()
    moving.raw.say(b"held")
    new = moving.bench.connect(HOST)
    moving.bench.until(lambda: new.typed() == b"held")
    assert [told["pair"] for told in moving.bench.told("revoke")] == [pair.hex()]
    assert moving.source.ended()


def test_vm_that_dials_again_after_its_target_came_ends_the_move(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"held")
    new = moving.bench.connect(HOST)
    moving.bench.until(lambda: new.typed() == b"held" and target.ended())


# Time


def test_move_that_never_ends_expires_and_lets_them_type_again(soon: Moving) -> None:
    pair = soon.goahead()
    soon.raw.say(b"held")
    soon.ended("expired")
    soon.bench.until(lambda: soon.source.typed() == b"held")
    assert [told["pair"] for told in soon.bench.told("revoke")] == [pair.hex()]
    soon.bench.until(lambda: any(b"expired" in text for text in soon.tool.payloads(attach.NOTICE)))


def test_target_that_never_completes_expires_too(soon: Moving) -> None:
    target = soon.joined()
    soon.raw.say(b"held")
    soon.ended("expired")
    soon.bench.until(lambda: target.ended() and soon.source.typed() == b"held")


@pytest.mark.parametrize("with_target", [False, True])
def test_source_that_left_and_never_came_is_gone_and_typing_waits_for_its_return(
    soon: Moving, with_target: bool
) -> None:
    pair = soon.goahead()
    target = soon.target(pair) if with_target else None
    soon.source.finish()
    soon.raw.say(b"held")
    soon.ended("expired")
    soon.bench.until(lambda: soon.bench.told("disconnected"))
    assert target is None or target.ended()
    next_vm_gets(soon, b"held")


def test_nothing_wakes_the_worker_while_a_move_is_awaited(moving: Moving) -> None:
    moving.goahead()
    moving.raw.say(b"held")
    moving.bench.settle()
    assert moving.bench.settle() == 0
    moving.source.finish()
    moving.bench.settle()
    assert moving.bench.settle() == 0


# Over and over


def test_vm_moves_back_and_forth(moving: Moving) -> None:
    typed = said = b""
    vms: list[Vm] = [moving.source]
    for number in range(10):
        target = moving.joined()
        moving.raw.say(b"typed %d|" % number)
        vms[-1].speak(b"last %d|" % number)
        moving.complete(target)
        moving.source.finish()
        target.speak(b"first %d|" % number)
        typed += b"typed %d|" % number
        said += b"last %d|first %d|" % (number, number)
        moving.ended("moved", number + 1)
        moving.source = target
        vms.append(target)
    moving.bench.until(lambda: b"".join(vm.typed() for vm in vms) == typed)
    moving.bench.until(lambda: moving.raw.heard() == said)
    assert moving.bench.log() == said
    assert len(moving.bench.told("closed")) == 10
    assert not moving.bench.told("disconnected")


def test_new_name_that_the_target_brings_is_taken(moving: Moving) -> None:
    target = moving.joined()
    target.say(identity(name="web02"))
    moving.moved(target)
    moving.bench.until(lambda: moving.bench.told("facts")[-1]["name"] == "web02")
    target.say(frame(VM_NAME, b"web03"))
    moving.bench.until(lambda: moving.bench.told("facts")[-1]["name"] == "web03")


# The record


def test_record_tells_hosts_steps_bytes_and_outcome(moving: Moving) -> None:
    target = moving.joined()
    moving.raw.say(b"0123456789")
    moving.bench.settle()
    moving.complete(target)
    moving.source.finish()
    record = moving.ended("moved")
    assert str(record["from"]).startswith(HOST)
    assert str(record["to"]).startswith(OTHER_HOST)
    steps = [float(str(record[f"{step}_ms"])) for step in ("goahead", "peer", "complete", "done")]
    assert steps == sorted(steps)
    assert (record["held"], record["outcome"]) == (10, "moved")
    assert moving.bench.index("vmotion") == [record]


def test_goahead_near_the_limit_is_marked(hurried: Moving) -> None:
    bench = hurried.bench
    fill(bench, hurried.raw)
    bench.settings["vmotion"]["limit"] = 3.0
    hurried.begin()
    late: list[bool] = []
    bench.loop.call_later(1.6, lambda: late.append(True))
    bench.until(lambda: late)
    bench.until(lambda: payloads(hurried.source, VMOTION_GOAHEAD))
    hurried.abort()
    hurried.ended("aborted")
    assert bench.told("moved")[0]["slow"] is True


def test_quick_goahead_is_not_marked(moving: Moving) -> None:
    moving.moved(moving.joined())
    assert moving.bench.told("moved")[0]["slow"] is False
