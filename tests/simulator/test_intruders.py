"""Hosts that vanish, clones and impostors."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import struct
import termios

import pytest

from tests.simulator.concentrator import Concentrator, Leg
from tests.simulator.stories import QUICK, STILL_FOR, host_of, in_loop, poll
from vspcd.simulator import main
from vspcd.simulator.guests import Echo
from vspcd.simulator.host import SimulatedVm, derived_uuid, quiet
from vspcd.simulator.impostor import ImpostorPort, Login
from vspcd.simulator.options import add_arguments

GREETING = b"is anybody there?"


def unacknowledged(leg: Leg) -> int:
    """Bytes that the host's kernel has not acknowledged."""
    size: int = struct.unpack("i", fcntl.ioctl(leg.socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return size


def machines(*options: str) -> list[SimulatedVm]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main.machines_of(parser.parse_args(options), quiet)


def test_a_host_that_vanishes_acknowledges_nothing_and_closes_nothing() -> None:
    async def story() -> None:
        async with Concentrator() as proxy:
            async with SimulatedVm(host_of(proxy, vanish_after=0.05), "web01", guest=Echo) as web01:
                await web01.connected()
                await poll(lambda: web01.port.connection is None)
                leg = proxy.legs[0]
                await leg.send(GREETING)
                await asyncio.sleep(STILL_FOR)
                assert unacknowledged(leg) == len(GREETING)
                assert not leg.ended.is_set()
                assert leg.data == b""
                assert web01.port.received == 0
            await leg.ended.wait()

    in_loop(story())


def test_a_host_that_vanished_does_not_dial_again() -> None:
    async def story() -> None:
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy, vanish_after=0.0), "web01") as web01,
        ):
            await poll(lambda: web01.port.accepted == 1 and web01.port.connection is None)
            await asyncio.sleep(QUICK.limit * 4)
            assert len(proxy.legs) == 1

    in_loop(story())


def test_what_was_said_before_is_not_lost() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01", guest=Echo) as web01:
            await web01.connected()
            web01.port.guest.output.append(b"last words")
            await web01.port.vanish()
            await proxy.until(lambda: proxy.console.journal == b"last words")

    in_loop(story())


def test_a_clone_has_the_uuid_and_the_name() -> None:
    (clone,) = machines("--clone-of", "web01", "--source", "127.0.0.9")
    assert (clone.identity.uuid, clone.identity.name) == (derived_uuid("web01"), "web01")
    assert clone.port.source == "127.0.0.9"


def test_a_clone_may_have_a_name_of_its_own() -> None:
    (clone,) = machines("--clone-of", "web01", "--name", "web01-copy")
    assert (clone.identity.uuid, clone.identity.name) == (derived_uuid("web01"), "web01-copy")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--impostor"], "somebody to play"),
        (["--clone-of", "a", "--vms", "2", "--name", "b%d"], "--clone-of is for one VM"),
        (["--thumbprint", "ab" * 20], "need --tls"),
        (["--tls", "--key", "/k"], "--key needs --cert"),
        (["--tls", "--ca", "/nowhere"], "/nowhere: No such file"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert main.run(parser.parse_args(options)) == 2
    assert complaint in capsys.readouterr().err


def test_an_impostor_tries_both_ways_in_turn() -> None:
    async def story() -> None:
        said: list[str] = []
        async with (
            Concentrator(accept=False) as proxy,
            SimulatedVm(host_of(proxy), "web01", log=said.append, guest=Login, port=ImpostorPort) as impostor,
        ):
            await poll(lambda: impostor.port.refused >= 4)
            assert impostor.port.accepted == 0
            assert {"web01: refused: WONT-PROXY", "web01: refused: a guessed vMotion ticket"} <= set(said)
            assert not proxy.consoles

    in_loop(story())


def test_an_impostor_tells_what_it_was_told() -> None:
    async def story() -> None:
        said: list[str] = []
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy), "web01", log=said.append, guest=Login, port=ImpostorPort) as impostor,
        ):
            await impostor.connected()
            await proxy.until(lambda: proxy.console.journal == Login.PROMPT)
            await proxy.console.send(b"secret\r")
            await poll(lambda: r"web01: somebody typed 7 bytes: secret\r" in said)

    in_loop(story())


def test_an_impostor_goes_on_when_a_guessed_ticket_is_taken() -> None:
    class Gullible(Concentrator):
        def peer(self, leg: Leg, pair: bytes) -> None:
            leg.session.peer_ok(pair[:4])

        async def _complete(self, leg: Leg) -> None:
            """It was nobody's move."""

    async def story() -> None:
        async with (
            Gullible(accept=False) as proxy,
            SimulatedVm(host_of(proxy), "web01", guest=Login, port=ImpostorPort) as impostor,
        ):
            await poll(lambda: impostor.port.accepted == 1)
            assert impostor.port.open

    in_loop(story())
