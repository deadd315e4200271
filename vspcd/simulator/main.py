"""``vspcctl simulate``: the simulated ESXi hosts of a command line.

Does: starts the VMs, prints one line per event, ends everything on SIGINT and SIGTERM.
Owns: the event loop.
Never: leaves a child behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import resource
import signal
import sys
from typing import Any, Optional

from vspcd.simulator import script, tls, vmotion
from vspcd.simulator.guests import Connected, Echo, GuestFactory, Stream
from vspcd.simulator.host import HostSettings, Log, SerialPort, SimulatedVm, derived_uuid, quiet
from vspcd.simulator.impostor import ImpostorPort, Login
from vspcd.simulator.line import SerialLine
from vspcd.simulator.shell import Shell

OK, FAILED = 0, 1


def run(args: argparse.Namespace) -> int:
    """Play the hosts until a signal comes, or with ``--once`` until all has ended; the exit status."""
    problem = _problem(args)
    if problem:
        print(f"simulate: {problem}", file=sys.stderr)
        return 2
    _raise_descriptor_limit()
    try:
        return asyncio.run(_run(args, quiet if args.quiet else _print))
    except (OSError, BrokenPipeError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return FAILED


async def _run(args: argparse.Namespace, log: Log) -> int:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, main.cancel)
    machines, tally = machines_of(args, log), vmotion.Tally()
    status = OK
    with contextlib.suppress(asyncio.CancelledError):
        await _play(args, machines, tally)
        status = OK if all(port.accepted for machine in machines for port in machine.ports) else FAILED
    if args.impostor:
        status = FAILED if any(port.accepted for machine in machines for port in machine.ports) else OK
    for line in tally.lines():
        print(line, flush=True)
    return FAILED if tally.failed else status


async def _play(args: argparse.Namespace, machines: list[SimulatedVm], tally: vmotion.Tally) -> None:
    """Run the VMs until all have ended, which they do only with ``--once``."""
    async with contextlib.AsyncExitStack() as stack:
        for machine in machines:
            await stack.enter_async_context(machine)
        tasks: list[asyncio.Future[Any]] = [asyncio.gather(*(machine.ended() for machine in machines))]
        if args.vmotion_every is not None:
            tasks += [
                asyncio.ensure_future(
                    vmotion.keep_moving(machine, args.hosts, args.vmotion_every, args.vmotion, tally)
                )
                for machine in machines
            ]
        try:
            await _first_of(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _first_of(*tasks: asyncio.Future[Any]) -> None:
    """Wait until one has ended; raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def machines_of(args: argparse.Namespace, log: Log) -> list[SimulatedVm]:
    """The VMs that the options describe."""
    sources = args.hosts or [args.source]
    host = HostSettings(
        proxy=args.proxy.address,
        service=args.service,
        line=SerialLine(args.baud) if args.com_port else None,
        reconnect=args.reconnect,
        drop_after=args.drop_after,
        vanish_after=args.vanish_after,
        tls=_tls_of(args),
    )
    labels = tuple(args.label or (None,))
    return [
        SimulatedVm(
            dataclasses.replace(host, source=sources[number % len(sources)]),
            name,
            guest=guest_of(args),
            uuid=args.uuid or (args.clone_of and derived_uuid(args.clone_of)),
            labels=labels,
            log=log,
            port=ImpostorPort if args.impostor else SerialPort,
        )
        for number, name in enumerate(names_of(args.name or args.clone_of, args.vms))
    ]


def _tls_of(args: argparse.Namespace) -> Optional[tls.Tls]:
    if not args.tls:
        return None
    return tls.settings(args.proxy.name, args.ca, args.thumbprint or "", args.cert, args.key)


def names_of(pattern: Optional[str], count: int) -> list[str]:
    """The names of so many VMs. Raises ValueError when the pattern gives no names, or twice the same."""
    if pattern is None:
        pattern = "vm" if count == 1 else "vm%d"
    try:
        names = [pattern % number for number in range(1, count + 1)]
    except (TypeError, ValueError):
        if count == 1:
            return [pattern]
        raise ValueError(f"--name {pattern!r} is no pattern such as web%02d") from None
    if len(set(names)) < count:
        raise ValueError(f"--name {pattern!r} names several VMs alike")
    return names


def guest_of(args: argparse.Namespace) -> GuestFactory:
    """The factory of what is behind each port."""
    if args.shell is not None:
        return functools.partial(Shell, command=args.shell or None)
    if args.stream is not None:
        return functools.partial(Stream, rate=args.stream)
    if args.script is not None:
        return functools.partial(script.Script, steps=args.script)
    if args.connect is not None:
        return functools.partial(Connected, address=args.connect)
    return Login if args.impostor and not args.echo else Echo


def _problem(args: argparse.Namespace) -> str:
    try:
        names_of(args.name or args.clone_of, args.vms)
        _tls_of(args)
    except ValueError as error:
        return str(error)
    return next((complaint for wrong, complaint in _together(args) if wrong), "")


def _together(args: argparse.Namespace) -> list[tuple[bool, str]]:
    """What does not go together, and the complaint."""
    somebody = bool(args.uuid or args.clone_of)
    several = args.vms > 1
    trust = bool(args.ca or args.thumbprint or args.cert or args.key)
    return [
        (several and bool(args.uuid), "--uuid is for one VM"),
        (several and bool(args.clone_of), "--clone-of is for one VM"),
        (args.impostor and not somebody, "--impostor needs --clone-of or --uuid: somebody to play"),
        (trust and not args.tls, "--ca, --thumbprint, --cert and --key need --tls"),
        (bool(args.key) and not args.cert, "--key needs --cert"),
        (args.vmotion_every is not None and not args.hosts, "--vmotion-every needs --hosts"),
        (bool(args.connect) and args.vms * len(args.label or [None]) > 1, "--connect is for one port"),
    ]


def _print(line: str) -> None:
    print(line, flush=True)


def _raise_descriptor_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
