"""The simulated host against a concentrator on real sockets."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.simulator.concentrator import Concentrator
from tests.simulator.stories import ALL_BYTES, MEGABYTE, QUICK, host_of, in_loop, poll, standstill
from vspcd.proto import vmware
from vspcd.simulator.guests import Connected, Echo, Guest, Report, Stream
from vspcd.simulator.host import HostSettings, SimulatedVm, derived_uuid


def test_the_concentrator_learns_who_the_vm_is() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01") as web01:
            await web01.connected()
            session = proxy.legs[0].session
            await proxy.until(lambda: session.line.baud == 115200)
            assert (session.uuid, session.name) == (derived_uuid("web01"), "web01")
            assert session.proxy == vmware.ProxyRequest("S", "vSPC.py", None)

    in_loop(story())


def test_all_byte_values_come_back_from_an_echo() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01", guest=Echo) as web01:
            await web01.connected()
            await proxy.console.send(ALL_BYTES)
            await proxy.until(lambda: len(proxy.console.journal) >= len(ALL_BYTES))
            assert proxy.console.journal == ALL_BYTES
            assert web01.port.misplaced == 0

    in_loop(story())


def test_each_label_is_a_port_with_a_guest_of_its_own() -> None:
    async def story() -> None:
        async with (
            Concentrator() as proxy,
            SimulatedVm(host_of(proxy), "web01", guest=Echo, labels=("a", "b")) as web01,
        ):
            await web01.connected()
            await proxy.consoles[derived_uuid("web01"), "a"].send(b"one")
            await proxy.consoles[derived_uuid("web01"), "b"].send(b"two")
            await proxy.until(lambda: all(len(it.journal) == 3 for it in proxy.consoles.values()))
            assert proxy.consoles[derived_uuid("web01"), "a"].journal == b"one"

    in_loop(story())


def test_the_host_dials_from_its_own_address() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy, source="127.0.0.7"), "web01") as web01:
            await web01.connected()
            assert proxy.legs[0].peer == "127.0.0.7"

    in_loop(story())


def test_a_concentrator_that_reads_nothing_stops_the_guest_and_loses_nothing() -> None:
    async def story() -> None:
        lines = 16 * MEGABYTE // Stream.LINE
        async with Concentrator() as proxy:
            guest = partial(Stream, rate=0, lines=lines)
            async with SimulatedVm(host_of(proxy), "web01", guest=guest) as web01:
                await web01.connected()
                proxy.legs[0].reading.clear()
                await standstill(lambda: web01.port.sent)
                assert web01.port.sent < lines * Stream.LINE
                proxy.legs[0].reading.set()
                await proxy.until(lambda: len(proxy.console.journal) >= lines * Stream.LINE)
                assert proxy.console.journal == Stream.text(lines)

    in_loop(story())


class Deaf(Guest):
    """Takes nothing until it is told to."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.awake = asyncio.Event()
        self.heard = bytearray()

    async def run(self) -> None:
        await self.awake.wait()
        while True:
            await self.input.ready()
            self.heard += self.input.peek()
            self.input.consume(len(self.input.peek()))
            self.report("heard")


def test_a_guest_that_takes_nothing_stops_the_concentrator_and_loses_nothing() -> None:
    async def story() -> None:
        typed = ALL_BYTES * 256
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01", guest=Deaf) as web01:
            await web01.connected()
            guest = web01.port.guest
            assert isinstance(guest, Deaf)
            typing = asyncio.ensure_future(proxy.console.send(typed))
            await standstill(lambda: web01.port.received)
            assert not typing.done()
            guest.awake.set()
            await typing
            await poll(lambda: len(guest.heard) >= len(typed))
            assert guest.heard == typed

    in_loop(story())


def test_a_vm_dials_again_when_the_concentrator_hangs_up() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01", guest=Echo) as web01:
            await web01.connected()
            await proxy.legs[0].close()
            await proxy.until(lambda: len(proxy.legs) == 2 and proxy.console.leg is proxy.legs[1])
            await proxy.console.send(b"again")
            await proxy.until(lambda: proxy.console.journal == b"again")

    in_loop(story())


def test_a_vm_dials_until_there_is_a_concentrator() -> None:
    async def story() -> None:
        async with Concentrator() as proxy:
            address = proxy.address
        log: list[str] = []
        async with SimulatedVm(HostSettings(address, backoff=QUICK), "web01", log=log.append) as web01:
            await poll(lambda: bool(log))
            async with Concentrator(port=address[1]):
                await web01.connected()
        assert log[0] == "web01: cannot dial: Connection refused; trying again"
        assert sum("cannot dial" in line for line in log) == 1

    in_loop(story())


def test_without_reconnect_a_vm_ends_with_its_connection() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy, reconnect=False), "web01") as web01:
            await web01.connected()
            await proxy.legs[0].close()
            await web01.ended()
            assert len(proxy.legs) == 1

    in_loop(story())


def test_drop_after_closes_with_everything_sent() -> None:
    async def story() -> None:
        async with Concentrator() as proxy:
            host = host_of(proxy, drop_after=0.2, reconnect=False)
            async with SimulatedVm(host, "web01", guest=partial(Stream, rate=0)) as web01:
                await web01.ended()
                await proxy.legs[0].ended.wait()
                sent = web01.port.sent
                assert proxy.console.journal == Stream.text(sent // Stream.LINE + 1)[:sent]
                assert sent > 0

    in_loop(story())


def test_a_stream_goes_on_where_it_was_when_the_connection_is_made_again() -> None:
    async def story() -> None:
        lines = 4 * MEGABYTE // Stream.LINE
        async with Concentrator() as proxy:
            guest = partial(Stream, rate=0, lines=lines)
            async with SimulatedVm(host_of(proxy), "web01", guest=guest) as web01:
                await proxy.until(lambda: bool(proxy.consoles) and len(proxy.console.journal) > MEGABYTE)
                await web01.port.disconnect()
                await proxy.until(lambda: len(proxy.console.journal) >= lines * Stream.LINE)
                assert proxy.console.journal == Stream.text(lines)
                assert len(proxy.legs) == 2

    in_loop(story())


def test_a_refused_vm_says_so_and_comes_again() -> None:
    async def story() -> None:
        log: list[str] = []
        async with (
            Concentrator(accept=False) as proxy,
            SimulatedVm(host_of(proxy), "web01", log=log.append) as web01,
        ):
            await poll(lambda: web01.port.refused >= 2)
            assert not web01.port.open
        assert "web01: refused: WONT-PROXY" in log

    in_loop(story())


def test_a_new_name_is_told_on_the_connection() -> None:
    async def story() -> None:
        async with Concentrator() as proxy, SimulatedVm(host_of(proxy), "web01") as web01:
            await web01.connected()
            web01.rename("db01 é")
            await proxy.until(lambda: proxy.legs[0].session.name == "db01 é")

    in_loop(story())


def test_a_unix_socket_is_the_serial_port(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def story() -> None:
        path = tmp_path / "serial"
        async with await asyncio.start_unix_server(echo, path), Concentrator() as proxy:
            guest = partial(Connected, address=f"unix:{path}")
            async with SimulatedVm(host_of(proxy), "web01", guest=guest) as web01:
                await web01.connected()
                await proxy.console.send(ALL_BYTES)
                await proxy.until(lambda: len(proxy.console.journal) >= len(ALL_BYTES))
                assert proxy.console.journal == ALL_BYTES

    in_loop(story())
