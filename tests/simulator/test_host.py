"""The simulated host against a concentrator on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from tests.simulator.concentrator import Concentrator
from vspcd.simulator.guests import Echo
from vspcd.simulator.host import HostSettings, SimulatedVm

ALL_BYTES = bytes(range(256)) * 256


def in_loop(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_all_byte_values_come_back_from_an_echo() -> None:
    async def story() -> None:
        async with (
            Concentrator() as proxy,
            SimulatedVm(HostSettings(proxy.address), "web01", guest=Echo) as web01,
        ):
            await web01.connected()
            await proxy.legs[0].type(ALL_BYTES)
            await proxy.until(lambda: len(proxy.legs[0].data) >= len(ALL_BYTES))
            assert proxy.legs[0].data == ALL_BYTES
            assert web01.port.misplaced == 0

    in_loop(story())
