"""vMotion: moves a VM's ports between hosts, in the good ways and in the bad ones.

Does: plays source and target of a move over two connections of one port, in the variants of the table at the
end; keeps VMs moving and counts what came of it.
Owns: the target's connection until the port has it.
Never: touches the guest: it runs on, and is only not read while neither host runs it.

For tests: ``outcome = await move(machine.port, "127.0.0.3", "abort")``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, deque
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Callable, NamedTuple, Optional

from vspcd.proto.vmware import VMOTION_BEGIN as BEGIN
from vspcd.simulator import vm
from vspcd.simulator.connection import Connection
from vspcd.simulator.deadline import within
from vspcd.simulator.host import SerialPort, SimulatedVm

GOAHEAD_LIMIT = 5.0
"""Seconds that a host waits for GOAHEAD; a move without it is aborted."""

STEP_LIMIT = 10.0
"""Seconds that any other step may take."""

MOVED, STAYED, LEFT, FAILED = "moved", "stayed", "left", "failed"


class Outcome(NamedTuple):
    """What came of a move. ``word``: moved, stayed (aborted, or NOTNOW), left (to expire), failed (the
    concentrator did not do its part). Times in seconds; ``goahead`` None: there was none."""

    variant: str
    word: str
    why: str
    goahead: Optional[float]
    whole: float


class _Ended(Exception):
    """A move that does not go on: the word of its outcome, and why."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(why)
        self.word = word


class Move:
    """One move of one port: the steps that variants are made of."""

    def __init__(self, port: SerialPort, source: Connection, to: Optional[str], identity_first: bool) -> None:
        self.port = port
        self.source = source
        self.to = to
        self.goahead: Optional[float] = None
        self._completed = False
        self._identity_first = identity_first
        self._targets: list[Connection] = []

    async def begin(self) -> vm.Ticket:
        """BEGIN; the ticket of its GOAHEAD."""
        clock = asyncio.get_running_loop().time
        started = clock()
        machine = self.source.machine
        self.send_begin()
        await self._until(
            lambda: bool(machine.grant or machine.sequence is None or BEGIN in machine.unknown_there),
            self.source,
            GOAHEAD_LIMIT,
            "GOAHEAD",
        )
        if BEGIN in machine.unknown_there:
            raise _Ended(FAILED, "the concentrator does not know vMotion")
        if machine.grant is None:
            raise _Ended(STAYED, "NOTNOW")
        self.goahead = clock() - started
        return machine.grant

    def send_begin(self) -> None:
        """BEGIN with a sequence of its own; one in four ends in 0xFF."""
        sequence = os.urandom(4)
        self.source.machine.begin(sequence[:3] + b"\xff" if sequence[0] < 64 else sequence)
        self.source.wake()

    async def target(self, ticket: vm.Ticket) -> Connection:
        """A connection from the new host, recognised by its ticket."""
        target = await self._show(ticket)
        if target.machine.state != vm.ADMITTED:
            raise _Ended(FAILED, "the target was not recognised")
        return target

    async def imposter(self, ticket: vm.Ticket) -> None:
        """A target that must not be recognised."""
        target = await self._show(ticket)
        if target.machine.state == vm.ADMITTED:
            raise _Ended(FAILED, "a ticket that is not valid was taken")
        await target.cut("not recognised")

    async def quiesce(self) -> None:
        """The machine runs on neither host: what it said is with the kernel."""
        await self._within(self.source.hold(), "room for the source's last bytes")

    async def settle(self) -> None:
        """The concentrator's host has all that the source sent."""
        await self._within(self.source.acknowledged(), "acknowledgement of the source's last bytes")

    def complete(self, target: Connection) -> None:
        """COMPLETE: the machine runs on the new host."""
        self._completed = True
        target.machine.complete()
        self._targets.remove(target)
        self.port.connection = target
        self.port.source = self.to
        target.wake()

    def abort(self) -> None:
        """ABORT: the machine runs on the old host, as before. Nothing when it runs on the new one already."""
        if not self._completed:
            self.source.machine.abort()
            self.source.release()

    async def end(self) -> None:
        """Close what was not used."""
        for target in tuple(self._targets):
            await target.cut("the target is not needed")

    async def _show(self, ticket: vm.Ticket) -> Connection:
        target = await self.port.open_connection(self.to, ticket, self._identity_first)
        self._targets.append(target)
        await self._until(
            lambda: target.machine.state in (vm.ADMITTED, vm.REFUSED), target, STEP_LIMIT, "answer to PEER"
        )
        return target

    async def _until(self, condition: Callable[[], bool], on: Connection, limit: float, what: str) -> None:
        await self._within(self.port.until(lambda: condition() or on.closed.done()), what, limit)
        if not condition():
            raise _Ended(FAILED, f"no {what}: {on.closed.result()}")

    @staticmethod
    async def _within(step: Coroutine[object, object, None], what: str, limit: float = STEP_LIMIT) -> None:
        try:
            await within(limit, step)
        except asyncio.TimeoutError:
            raise _Ended(FAILED, f"no {what} within {limit:g} s") from None


async def move(
    port: SerialPort, to: Optional[str], variant: str = "normal", *, identity_first: bool = False
) -> Outcome:
    """Move one port to the host at an address, in one of ``VARIANTS``, and tell what came of it.

    ``identity_first``: the target tells UUID and name before it shows its ticket. Never raises for what the
    concentrator or the network does.
    """
    clock = asyncio.get_running_loop().time
    async with port.alone():
        started, source = clock(), port.connection
        if source is None or not port.open:
            return Outcome(variant, FAILED, "the port is not connected", None, 0.0)
        step = Move(port, source, to, identity_first)
        word, why = await _outcome(step, variant)
        outcome = Outcome(variant, word, why, step.goahead, clock() - started)
        port.report(_told(outcome, source.local, to))
        return outcome


async def _outcome(step: Move, variant: str) -> tuple[str, str]:
    try:
        return await VARIANTS[variant](step), ""
    except _Ended as error:
        step.abort()
        return error.word, str(error)
    except OSError as error:
        step.abort()
        return FAILED, f"the target cannot dial: {error.strerror or error}"
    finally:
        await step.end()


def _told(outcome: Outcome, before: str, to: Optional[str]) -> str:
    why = f" ({outcome.why})" if outcome.why else ""
    goahead = "" if outcome.goahead is None else f", GOAHEAD after {outcome.goahead * 1000:.1f} ms"
    way = f"vMotion {outcome.variant} from {before} to {to or 'the same host'}"
    return f"{way}: {outcome.word}{why}{goahead}, {outcome.whole * 1000:.1f} ms in all"


class Tally:
    """What came of many moves."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.goaheads: deque[float] = deque(maxlen=100_000)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.variant, outcome.word] += 1
        if outcome.goahead is not None:
            self.goaheads.append(outcome.goahead)

    @property
    def failed(self) -> int:
        """Moves in which the concentrator did not do its part."""
        return sum(count for (_, word), count in self.counts.items() if word == FAILED)

    def lines(self) -> list[str]:
        """The counts per variant, and how long GOAHEAD took."""
        lines = [f"{variant}: {count} {word}" for (variant, word), count in sorted(self.counts.items())]
        if self.goaheads:
            waits = sorted(wait * 1000 for wait in self.goaheads)
            p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
            lines.append(
                f"GOAHEAD after {p50:.1f} ms (median), {p99:.1f} ms (p99), {waits[-1]:.1f} ms (longest)"
            )
        return lines


async def keep_moving(
    machine: SimulatedVm, hosts: Sequence[str], every: float, variants: Sequence[str], tally: Tally
) -> None:
    """Move a VM about every so many seconds, all its ports at once, from host to host; until cancelled."""
    while True:
        await asyncio.sleep(every * random.uniform(0.5, 1.5))
        await asyncio.gather(*(port.connected() for port in machine.ports))
        to = random.choice([host for host in hosts if host != machine.port.source] or list(hosts))
        variant, identity_first = random.choice(variants), random.random() < 0.5
        moves = (move(port, to, variant, identity_first=identity_first) for port in machine.ports)
        for outcome in await asyncio.gather(*moves):
            tally.add(outcome)


# -- the variants: each tells what came of it


async def _normal(move: Move) -> str:
    """The source runs until the target is recognised, and closes after COMPLETE."""
    return await _go_on(move, await move.begin())


async def _go_on(move: Move, ticket: vm.Ticket) -> str:
    target = await move.target(ticket)
    await move.quiesce()
    await move.settle()
    move.complete(target)
    move.source.shut()
    return MOVED


async def _source_closes_early(move: Move) -> str:
    """The source closes before the target is even dialled."""
    ticket = await move.begin()
    await move.quiesce()
    move.source.shut()
    move.complete(await move.target(ticket))
    return MOVED


async def _crossing(move: Move) -> str:
    """The source's last bytes, its end and the target's COMPLETE are under way at the same time."""
    target = await move.target(await move.begin())
    await move.quiesce()
    move.source.shut()
    move.complete(target)
    return MOVED


async def _begin_twice(move: Move) -> str:
    """The second BEGIN replaces the first, whose ticket is worth nothing then."""
    first = await move.begin()
    second = await move.begin()
    await move.imposter(first)
    return await _go_on(move, second)


async def _replay(move: Move) -> str:
    """A ticket is shown again after the move."""
    ticket = await move.begin()
    word = await _go_on(move, ticket)
    await move.imposter(ticket)
    return word


async def _stranger(move: Move) -> str:
    """Somebody shows a guessed ticket while a move is under way."""
    ticket = await move.begin()
    guessed = ticket.pair[:-1] + bytes([ticket.pair[-1] ^ 1])
    await move.imposter(ticket._replace(pair=guessed))
    return await _go_on(move, ticket)


async def _abort(move: Move) -> str:
    """The source takes it back when the target was recognised already."""
    await move.target(await move.begin())
    move.abort()
    return STAYED


async def _abort_at_once(move: Move) -> str:
    """ABORT crosses GOAHEAD."""
    move.send_begin()
    move.abort()
    return STAYED


async def _timeout(move: Move) -> str:
    """No target ever comes and the source says nothing more about it."""
    await move.begin()
    move.source.machine.forget()
    return LEFT


async def _stall(move: Move) -> str:
    """The target is recognised and goes away without a word, and the source says nothing either."""
    await move.target(await move.begin())
    move.source.machine.forget()
    return LEFT


async def _lost(move: Move) -> str:
    """The source is gone after GOAHEAD and no target comes; the VM starts again on the new host."""
    await move.begin()
    await move.quiesce()
    move.source.shut()
    move.port.source = move.to
    return LEFT


VARIANTS: Mapping[str, Callable[[Move], Awaitable[str]]] = {
    "normal": _normal,
    "source-closes-early": _source_closes_early,
    "crossing": _crossing,
    "begin-twice": _begin_twice,
    "replay": _replay,
    "stranger": _stranger,
    "abort": _abort,
    "abort-at-once": _abort_at_once,
    "timeout": _timeout,
    "stall": _stall,
    "lost": _lost,
}
