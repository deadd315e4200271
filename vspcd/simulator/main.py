"""``vspcctl simulate``: the command line of the simulated ESXi hosts.

Does: reads the options, starts the VMs, prints one line per event, ends everything on SIGINT and SIGTERM.
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
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from vspcd.proto.errors import PeerError
from vspcd.proto.vmware import parse_uuid
from vspcd.simulator import script, tls, vmotion
from vspcd.simulator.address import host_port
from vspcd.simulator.guests import Connected, Echo, GuestFactory, Stream, opener
from vspcd.simulator.host import HostSettings, Log, SerialPort, SimulatedVm, derived_uuid, quiet
from vspcd.simulator.impostor import ImpostorPort, Login
from vspcd.simulator.line import SerialLine
from vspcd.simulator.shell import Shell

OK, FAILED = 0, 1

DEFAULT_PROXY = "127.0.0.1:13370"

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``simulate``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = script.FORMAT
    _add_host(parser.add_argument_group("the host"))
    _add_tls(parser.add_argument_group("TLS"))
    _add_machines(parser.add_argument_group("the VMs"))
    _add_vmotion(parser.add_argument_group("vMotion"))
    _add_guests(parser.add_argument_group("what is behind each serial port (default: --echo)"))


def _add_host(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--proxy", type=_converted(_proxy), default=_proxy(DEFAULT_PROXY), metavar="HOST:PORT",
        help=f"where VMs dial in (default {DEFAULT_PROXY})",
    )  # fmt: skip
    group.add_argument("--service", default="vSPC.py", help="the service URI (default %(default)s)")
    group.add_argument("--source", metavar="ADDRESS", help="the host's own address, such as 127.0.0.2")
    again = group.add_mutually_exclusive_group()
    again.add_argument(
        "--reconnect", action="store_true", default=True, help="dial again when the connection ends (default)"
    )
    again.add_argument(
        "--once",
        dest="reconnect",
        action="store_false",
        help="dial once; status 1 if a port was not accepted",
    )
    end = group.add_mutually_exclusive_group()
    end.add_argument(
        "--drop-after",
        type=_converted(_number),
        metavar="S",
        help="close each connection after so many seconds",
    )
    end.add_argument(
        "--vanish-after", type=_converted(_number), metavar="S",
        help="vanish so many seconds after a port was accepted, as a host without power does: nothing is closed, no "
        "segment is acknowledged (a packet filter on the socket drops them; root is not needed), none is sent, and "
        "the VM does not dial again. The concentrator hears of it when the simulator ends",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="print no events")


def _add_tls(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tls",
        action="store_true",
        help="dial over TLS (telnets://); without --ca or --thumbprint trust anybody",
    )
    group.add_argument(
        "--ca",
        metavar="FILE",
        help="trust a certificate for the host of --proxy that this PEM file vouches for",
    )
    group.add_argument(
        "--thumbprint", type=_converted(tls.thumbprint), metavar="HEX",
        help="trust the certificate with this SHA-1 or SHA-256 thumbprint, as a VM may",
    )  # fmt: skip
    group.add_argument("--cert", metavar="FILE", help="show this certificate when one is demanded")
    group.add_argument("--key", metavar="FILE", help="its key (default: in the file of --cert)")


def _add_machines(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--vms", type=_count, default=1, metavar="N", help="how many (default 1)")
    group.add_argument(
        "--name", metavar="PATTERN",
        help="their names: web%%02d counts from 1 (default vm, or vm%%d with several VMs)",
    )  # fmt: skip
    identity = group.add_mutually_exclusive_group()
    identity.add_argument(
        "--uuid", type=_converted(parse_uuid), help="the UUID of the only VM (default: made from the name)"
    )
    identity.add_argument(
        "--clone-of", metavar="NAME",
        help="a second VM with the UUID that the simulator's VM NAME has, and its name if --name gives no other; "
        "with --source from another host",
    )  # fmt: skip
    group.add_argument(
        "--impostor", action="store_true",
        help="with --clone-of or --uuid: play that VM to be typed to. Dial again and again, in turn as a VM that was "
        "switched on and as the target of a vMotion with a guessed ticket; tell what is typed (status 1 if let in)",
    )  # fmt: skip
    group.add_argument(
        "--label", action="append", metavar="L", help="a labelled port (?port=L); repeat for several per VM"
    )
    group.add_argument(
        "--baud",
        type=_count,
        default=115200,
        metavar="N",
        help="the speed that is announced (default 115200)",
    )
    group.add_argument(
        "--com-port", action=argparse.BooleanOptionalAction, default=True,
        help="announce the serial line's settings (RFC 2217)",
    )  # fmt: skip


def _add_vmotion(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--vmotion-every",
        type=_converted(_number),
        metavar="S",
        help="move each VM about every so many seconds",
    )
    group.add_argument(
        "--hosts", type=_addresses, metavar="A,B", default=[],
        help="addresses of the hosts moved between, such as 127.0.0.2,127.0.0.3",
    )  # fmt: skip
    group.add_argument(
        "--vmotion", type=_converted(_variants), metavar="VARIANT,...", default=["normal"],
        help=f"how: random, or some of {', '.join(vmotion.VARIANTS)} (default normal)",
    )  # fmt: skip


def _add_guests(group: argparse._ArgumentGroup) -> None:
    guest = group.add_mutually_exclusive_group()
    guest.add_argument(
        "--shell", nargs="?", const="", metavar="COMMAND",
        help="your login shell on a terminal, or a command; started again when it ends",
    )  # fmt: skip
    guest.add_argument("--echo", action="store_true", help="what is typed comes back")
    guest.add_argument(
        "--stream",
        type=_converted(_number),
        metavar="BYTES_PER_SECOND",
        help="numbered lines; 0 is as fast as it goes",
    )
    guest.add_argument(
        "--script", type=_converted(_steps), metavar="FILE",
        help="the file's lines one by one; @expect TEXT, @send TEXT, @delay S, @pause S, @repeat instruct",
    )  # fmt: skip
    guest.add_argument(
        "--connect", type=_converted(_where), metavar="WHERE",
        help="a real serial port: unix:PATH, tcp:HOST:PORT or pty:PATH, such as QEMU's -serial",
    )  # fmt: skip


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


def _converted(convert: Callable[[str], T]) -> Callable[[str], T]:
    """An argparse type whose complaint is the conversion's own."""

    def converter(text: str) -> T:
        try:
            return convert(text)
        except (ValueError, OSError, PeerError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converter


class _Proxy(NamedTuple):
    """Where VMs dial in, and the host's name as it was written, which its certificate must have."""

    address: tuple[str, int]
    name: str


def _proxy(text: str) -> _Proxy:
    return _Proxy(host_port(text), text.rpartition(":")[0].strip("[]"))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def _number(text: str) -> float:
    if not (number := float(text)) >= 0:
        raise ValueError(f"{text!r} is not a number from 0 up")
    return number


def _steps(path: str) -> list[script.Step]:
    return script.load(Path(path))


def _addresses(text: str) -> list[str]:
    return [host for host in text.split(",") if host]


def _variants(text: str) -> list[str]:
    if text == "random":
        return list(vmotion.VARIANTS)
    for name in text.split(","):
        if name not in vmotion.VARIANTS:
            raise ValueError(f"no variant is named {name!r}; there are {', '.join(vmotion.VARIANTS)}")
    return text.split(",")


def _where(text: str) -> str:
    opener(text)
    return text
