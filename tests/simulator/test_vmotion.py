"""Moves of simulated VMs, with typing and output under way, against a concentrator that does its part."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.simulator.concentrator import Concentrator, Console, Leg
from tests.simulator.stories import host_of, in_loop
from vspcd.proto import vmware
from vspcd.simulator import vmotion
from vspcd.simulator.guests import Echo, Stream
from vspcd.simulator.host import SimulatedVm
from vspcd.simulator.vmotion import FAILED, LEFT, MOVED, STAYED, VARIANTS, move

HERE, THERE = "127.0.0.2", "127.0.0.3"

WORDS = {
    "normal": MOVED,
    "source-closes-early": MOVED,
    "crossing": MOVED,
    "begin-twice": MOVED,
    "replay": MOVED,
    "stranger": MOVED,
    "abort": STAYED,
    "abort-at-once": STAYED,
    "timeout": LEFT,
    "stall": LEFT,
    "lost": LEFT,
}


@contextlib.asynccontextmanager
async def typing(console: Console) -> AsyncIterator[bytearray]:
    """Type without a pause; what was typed so far."""
    typed = bytearray()

    async def type_on() -> None:
        while True:
            piece = b"%d\xff\x00" % len(typed)
            typed.extend(piece)
            await console.send(piece)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(type_on())
    try:
        yield typed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_words_cover_every_variant() -> None:
    assert WORDS.keys() == VARIANTS.keys()


@pytest.mark.parametrize("variant", [name for name in WORDS if name != "lost"])
@pytest.mark.parametrize("identity_first", [False, True])
def test_nothing_is_lost_whichever_way_a_move_goes(variant: str, identity_first: bool) -> None:
    async def story() -> None:
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01", guest=Echo) as web01,
        ):
            await web01.connected()
            async with typing(proxy.console) as typed:
                for to in (THERE, HERE):
                    outcome = await move(web01.port, to, variant, identity_first=identity_first)
                    assert outcome.word == WORDS[variant], outcome
                    if outcome.word == LEFT:
                        await proxy.console.release()
            await proxy.until(lambda: len(proxy.console.journal) >= len(typed))
            assert proxy.console.journal == typed
            assert web01.port.misplaced == 0

    in_loop(story())


def test_a_stream_is_exact_over_many_moves() -> None:
    async def story() -> None:
        guest = partial(Stream, rate=0)
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01", guest=guest) as web01,
        ):
            await web01.connected()
            for number in range(12):
                variant = ("normal", "crossing", "source-closes-early")[number % 3]
                outcome = await move(web01.port, (THERE, HERE)[number % 2], variant)
                assert outcome.word == MOVED, outcome
            await web01.port.disconnect()
            sent = web01.port.sent
            journal = proxy.console.journal
            await proxy.until(lambda: len(journal) >= sent)
            assert journal[:sent] == Stream.text(sent // Stream.LINE + 1)[:sent]

    in_loop(story(), 60)


def test_a_moved_vm_dials_again_from_where_it_is() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy, source=HERE), "web01") as web01:
            await web01.connected()
            await move(web01.port, THERE)
            await web01.port.disconnect()
            await proxy.until(lambda: len(proxy.legs) == 3)
            assert [leg.peer for leg in proxy.legs] == [HERE, THERE, THERE]

    in_loop(story())


def test_a_lost_vm_starts_again_on_the_other_host() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy, source=HERE), "web01") as web01:
            await web01.connected()
            assert (await move(web01.port, THERE, "lost")).word == LEFT
            await proxy.until(lambda: len(proxy.legs) == 2)
            assert proxy.legs[1].peer == THERE
            await web01.connected()

    in_loop(story())


def test_all_ports_of_a_vm_move_at_once() -> None:
    async def story() -> None:
        labels = ("a", "b", "c", "d")
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01", guest=Echo, labels=labels) as web01,
        ):
            await web01.connected()
            outcomes = await asyncio.gather(*(move(port, THERE) for port in web01.ports))
            assert [outcome.word for outcome in outcomes] == [MOVED] * 4
            for (_, label), console in proxy.consoles.items():
                await console.send(str(label).encode())
            await proxy.until(lambda: all(console.journal for console in proxy.consoles.values()))
            said = {label: bytes(console.journal) for (_, label), console in proxy.consoles.items()}
            assert said == {label: label.encode() for label in labels}

    in_loop(story())


def test_notnow_leaves_the_vm_where_it_is() -> None:
    async def story() -> None:
        async with (
            Concentrator(vmotion="notnow") as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01", guest=Echo) as web01,
        ):
            await web01.connected()
            outcome = await move(web01.port, THERE)
            assert (outcome.word, outcome.why) == (STAYED, "NOTNOW")
            await proxy.console.send(b"here")
            await proxy.until(lambda: proxy.console.journal == b"here")

    in_loop(story())


def test_a_concentrator_that_never_says_goahead_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmotion, "GOAHEAD_LIMIT", 0.1)

    async def story() -> None:
        async with (
            Concentrator(vmotion="silence") as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01") as web01,
        ):
            await web01.connected()
            outcome = await move(web01.port, THERE)
            assert (outcome.word, outcome.why) == (FAILED, "no GOAHEAD within 0.1 s")
            await proxy.until(lambda: proxy.legs[0].heard(vmware.VmotionAbort))

    in_loop(story())


@pytest.mark.parametrize("variant", ["begin-twice", "replay", "stranger"])
def test_a_concentrator_that_takes_any_ticket_has_failed(variant: str) -> None:
    class Gullible(Concentrator):
        def peer(self, leg: Leg, pair: bytes) -> None:
            self.console.target = leg
            leg.session.peer_ok(pair[:4])

    async def story() -> None:
        async with Gullible() as proxy, SimulatedVm(host_of(proxy, source=HERE), "web01") as web01:
            await web01.connected()
            outcome = await move(web01.port, THERE, variant)
            assert (outcome.word, outcome.why) == (FAILED, "a ticket that is not valid was taken")

    in_loop(story())


def test_typing_that_comes_after_goahead_is_told_as_lost() -> None:
    async def story() -> None:
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy, source=HERE), "web01", guest=Echo) as web01,
        ):
            await web01.connected()
            web01.port.connection.machine.begin(b"1234")  # type: ignore[union-attr]
            web01.port.connection.wake()  # type: ignore[union-attr]
            await proxy.until(lambda: proxy.legs[0].heard(vmware.VmotionBegin))
            await proxy.legs[0].send(b"oops")
            await asyncio.wait_for(web01.port.until(lambda: web01.port.misplaced == 4), 10)

    in_loop(story())


def test_the_tally_counts_and_knows_how_long_goahead_took() -> None:
    tally = vmotion.Tally()
    for milliseconds in range(1, 101):
        tally.add(vmotion.Outcome("normal", MOVED, "", milliseconds / 1000, 1.0))
    tally.add(vmotion.Outcome("abort", FAILED, "why", None, 1.0))
    assert tally.failed == 1
    assert tally.lines() == [
        "abort: 1 failed",
        "normal: 100 moved",
        "GOAHEAD after 51.0 ms (median), 100.0 ms (p99), 100.0 ms (longest)",
    ]


def test_a_concentrator_without_vmotion_is_told_as_such() -> None:
    class Old(Concentrator):
        async def on_event(self, leg: Leg, event: vmware.Event) -> None:
            if isinstance(event, vmware.VmotionBegin):
                leg.session.unknown(vmware.VMOTION_BEGIN)
            else:
                await super().on_event(leg, event)

    async def story() -> None:
        async with Old() as proxy, SimulatedVm(host_of(proxy, source=HERE), "web01") as web01:
            await web01.connected()
            outcome = await move(web01.port, THERE)
            assert (outcome.word, outcome.why) == (FAILED, "the concentrator does not know vMotion")
            assert web01.port.open

    in_loop(story())
