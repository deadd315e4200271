"""Fifty moves a second over 200 VMs for half a minute, with aborts, timeouts and crossings, and everybody typing;
and the same while workers are killed.

All bytes are compared at the end: what each VM was given, what each client saw, each log. Times are printed and
recorded beside the demand; only what does not depend on the machine fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.vmotion_vm import same
from vspcd.simulator.guests import Guest, Report
from vspcd.simulator.host import HostSettings, SerialPort, SimulatedVm
from vspcd.simulator.vmotion import Outcome, Tally, move

DEMAND_MS = 200.0
LONG = [pytest.mark.long, pytest.mark.timeout(300)]
AT_ONCE = 50  # moves under way; a machine that is too slow for the pace gets no more than that to do
PATIENT = "proxy.handshake_timeout=60s"
TALK_EVERY = TYPE_EVERY = 0.4
HOSTS = [f"127.0.1.{number}" for number in range(1, 11)]
SETTLED = 60.0
TOO_SLOW = " within "  # how the simulator tells of a deadline that has passed

# How often each variant is chosen, in percent.
MIX = {
    "normal": 46,
    "crossing": 14,
    "source-closes-early": 10,
    "begin-twice": 6,
    "replay": 4,
    "stranger": 4,
    "abort": 6,
    "abort-at-once": 5,
    "timeout": 2,
    "stall": 2,
    "lost": 1,
}


class Size(NamedTuple):
    vms: int
    rate: float
    seconds: float
    expires: str
    kills: float = 0.0  # of workers, a second


class Talker(Guest):
    """A machine that talks a little all the time, and remembers what it said and heard."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.heard = bytearray()
        self.said = bytearray()
        self.begun = asyncio.Event()
        self.talks = True

    async def run(self) -> None:
        await asyncio.gather(self._listen(), self._talk())

    async def _listen(self) -> None:
        while True:
            await self.input.ready()
            data = bytes(self.input.peek(len(self.input)))
            self.heard += data
            self.input.consume(len(data))

    async def _talk(self) -> None:
        await self.begun.wait()
        while self.talks:
            line = b"said at %09d \xff\x00\r\n" % len(self.said)
            self.said += line
            self.output.append(line)
            await asyncio.sleep(random.uniform(0.5, 1.5) * TALK_EVERY)


class Desk:
    """Somebody on a console, who types and looks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.seen = bytearray()
        self.typed = bytearray()

    async def look(self) -> None:
        while data := await self._reader.read(65536):
            self.seen += data

    def type(self, data: bytes) -> None:
        self.typed += data
        self.writer.write(data)

    async def type_on(self) -> None:
        while True:
            self.type(b"typed at %09d \xff\x00\r" % len(self.typed))
            await self.writer.drain()
            await asyncio.sleep(random.uniform(0.5, 1.5) * TYPE_EVERY)


class Estate:
    """VMs, somebody at each console, and what came of the moves."""

    def __init__(self, daemon: Daemon, size: Size) -> None:
        self.daemon = daemon
        self.size = size
        self.tally = Tally()
        self.whole: list[float] = []  # milliseconds from BEGIN to the end
        self.wrong: list[str] = []
        self.slow: list[str] = []  # a host would have waited no longer
        self.machines: list[SimulatedVm] = []
        self.desks: list[Desk] = []
        self.killed = 0
        self._moving: set[SerialPort] = set()

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            await self._dial(stack)
            tasks = [asyncio.ensure_future(desk.look()) for desk in self.desks]
            typing = [asyncio.ensure_future(desk.type_on()) for desk in self.desks]
            killing = asyncio.ensure_future(self._kill())
            await self._move()
            for task in (*typing, killing):
                task.cancel()
            await asyncio.gather(*typing, return_exceptions=True)
            with suppress(asyncio.CancelledError):
                await killing
            await self._settle()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _dial(self, stack: AsyncExitStack) -> None:
        for number in range(self.size.vms):
            host = HostSettings(self.daemon.proxy, source=HOSTS[number % len(HOSTS)])
            machine = SimulatedVm(host, f"vm{number:03}", guest=Talker)
            self.machines.append(await stack.enter_async_context(machine))
        for machine in self.machines:
            await machine.connected(60.0)
        await self._until(lambda: len(self._open()) == self.size.vms)
        consoles = self._open()
        for machine in self.machines:
            desk = await self._attach(consoles[machine.identity.name])
            stack.callback(desk.writer.close)
            self.desks.append(desk)

        def attached() -> bool:
            return sum(len(console["clients"]) for console in self.daemon.consoles()) == self.size.vms

        await self._until(attached)
        for guest in self.guests:
            guest.begun.set()

    async def _attach(self, console: dict[str, Any]) -> Desk:
        """By Unix socket; where workers die by TCP, which has a counter of bytes, so that nothing comes twice."""
        if not self.size.kills:
            return Desk(*await asyncio.open_unix_connection(console["socket"]))
        desk = Desk(*await asyncio.open_connection("127.0.0.1", console["port"]))
        desk.type(b"here ")  # who speaks first is not offered telnet
        return desk

    def _open(self) -> dict[str, dict[str, Any]]:
        return {c["name"]: c for c in self.daemon.consoles() if c["socket"] and c["port"] and c["name"]}

    async def _until(self, test: Callable[[], bool], seconds: float = SETTLED) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while not test():
            assert clock() < end, f"waited {seconds:g} s in vain; {self.behind()[:5]}"
            await asyncio.sleep(0.1)

    # Moving

    async def _move(self) -> None:
        """Begin moves at an even pace, whatever becomes of those before."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        under_way: set[asyncio.Future[None]] = set()
        for number in range(int(self.size.rate * self.size.seconds)):
            await asyncio.sleep(max(0.0, begun + number / self.size.rate - clock()))
            free = [m.port for m in self.machines if m.port.open and m.port not in self._moving]
            if free and len(under_way) < AT_ONCE:
                task = asyncio.ensure_future(self._move_one(random.choice(free)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        self.took = clock() - begun
        while under_way:
            await asyncio.wait(set(under_way), timeout=SETTLED)

    async def _move_one(self, port: SerialPort) -> None:
        self._moving.add(port)
        try:
            (variant,) = random.choices(list(MIX), list(MIX.values()))
            to = random.choice([host for host in HOSTS if host != port.source])
            self._count(await move(port, to, variant, identity_first=random.random() < 0.5))
        finally:
            self._moving.discard(port)

    def _count(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        self.whole.append(outcome.whole * 1000)
        if outcome.word == "failed":
            where = self.slow if TOO_SLOW in outcome.why else self.wrong
            where.append(f"{outcome.variant}: {outcome.why}")

    async def _kill(self) -> None:
        """Kill workers, no matter what they are at."""
        while self.size.kills:
            await asyncio.sleep(random.uniform(0.5, 1.5) / self.size.kills)
            worker = random.choice(self.daemon.consoles())["worker"]
            if worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker["pid"], signal.SIGKILL)
                    self.killed += 1

    # The end

    async def _settle(self) -> None:
        """The last moves end or expire, and everything that was typed and said arrives."""
        for guest in self.guests:
            guest.talks = False
        await self._until(lambda: not self.behind())

    @property
    def guests(self) -> list[Talker]:
        guests = [machine.port.guest for machine in self.machines]
        return [guest for guest in guests if isinstance(guest, Talker)]

    def behind(self) -> list[str]:
        """Whose bytes have not all arrived."""
        found = []
        for machine, guest, desk in zip(self.machines, self.guests, self.desks):
            if len(guest.heard) < len(desk.typed) or len(desk.seen) < len(guest.said):
                typed = f"{len(guest.heard)} of {len(desk.typed)} typed"
                found.append(
                    f"{machine.identity.name}: {typed}, {len(desk.seen)} of {len(guest.said)} bytes seen"
                )
        return found

    def check(self) -> None:
        """Nothing lost, doubled or out of order, at the VM, at the client, in the log."""
        logs = {console["name"]: Path(console["log"]) for console in self.daemon.consoles()}
        for machine, guest, desk in zip(self.machines, self.guests, self.desks):
            assert machine.port.misplaced == 0, machine.identity.name
            assert same(bytes(guest.heard), bytes(desk.typed))
            assert same(bytes(desk.seen), bytes(guest.said))
            assert same(logs[machine.identity.name].read_bytes(), bytes(guest.said))


def recorded(daemon: Daemon) -> list[dict[str, Any]]:
    """The records of all moves, from the indexes."""
    found = []
    for path in (daemon.root / "log").glob("*.idx"):
        lines = [line.split(" ", 3) for line in path.read_text().splitlines()]
        found += [json.loads(line[3]) for line in lines if line[2] == "vmotion"]
    return found


def p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(10, 10, 3, "6s"), id="a few"),
        pytest.param(Size(10, 10, 3, "6s", kills=8), id="a few, with deaths"),
        pytest.param(Size(200, 50, 30, "25s"), id="all", marks=LONG),
        pytest.param(Size(200, 50, 30, "25s", kills=10), id="all, with deaths", marks=LONG),
    ],
)
def test_many_moves_of_all_sorts_lose_nothing(
    size: Size,
    start_daemon: StartDaemon,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    daemon = start_daemon(f"vmotion.timeout={size.expires}", PATIENT)
    estate = Estate(daemon, size)
    asyncio.run(estate.run())
    there = [record["goahead_ms"] for record in recorded(daemon) if "goahead_ms" in record]
    seen = [seconds * 1000 for seconds in estate.tally.goaheads]
    count = sum(estate.tally.counts.values())
    facts = {
        "vms": size.vms,
        "moves": count,
        "moves_per_second": round(count / estate.took, 1),
        "goahead_p99_ms_as_the_hosts_saw_it": round(p99(seen), 1),
        "goahead_p99_ms_as_recorded": round(p99(there), 1),
        "goahead_demand_ms": DEMAND_MS,
        "whole_move_median_ms": round(sorted(estate.whole)[count // 2], 1),
        "whole_move_p99_ms": round(p99(estate.whole), 1),
        "too_slow_for_a_host": len(estate.slow),
        "workers_killed": estate.killed,
    }
    for name, value in facts.items():
        record_property(name, value)
    with capsys.disabled():
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        sys.stderr.write("\n" + "\n".join([told, *estate.tally.lines()]) + "\n")
    estate.check()
    assert estate.wrong == []
    assert estate.killed >= size.kills
    assert count - len(estate.slow) > size.vms
