"""The options of ``vspcctl simulate``, and what their values mean.

Does: declares the options; turns words into values, and complains about wrong ones.
Owns: the format of scripts and the names of vMotion's variants, as people are told them.
Never: imports the simulator itself, but for the value of an option that was given: --help and completion are quick.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Callable, NamedTuple, TypeVar

from vspcd.proto.errors import PeerError
from vspcd.simulator.address import host_port

if TYPE_CHECKING:
    from vspcd.simulator.script import Step

DEFAULT_PROXY = "127.0.0.1:13370"

VARIANTS = (
    "normal",
    "source-closes-early",
    "crossing",
    "begin-twice",
    "replay",
    "stranger",
    "abort",
    "abort-at-once",
    "timeout",
    "stall",
    "lost",
)
"""The ways of a vMotion; what each does is in vmotion.py."""

FORMAT = r"""A script (--script FILE): each line of the file is sent as it stands, with CR LF behind
it, after the delay (0.1 s at first). A line that begins with @ is an instruction:
    @expect TEXT    wait until TEXT was typed; what was typed up to its end is used up
    @send TEXT      send TEXT without CR LF
    @delay SECONDS  from here on, wait so long before each line
    @pause SECONDS  wait once
    @repeat [N]     start again at the top, N times in all (without N: for ever)
    @# ...          a comment
    @@...           a line that begins with one @
TEXT knows the escapes \r \n \t \e \\ and \xHH, and ends at the end of the line.
At its end a script falls silent and the machine stays there."""

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``simulate``. The parser's formatter has to leave the epilog's lines as they are."""
    parser.epilog = FORMAT
    _add_host(parser.add_argument_group("the host"))
    _add_tls(parser.add_argument_group("TLS"))
    _add_machines(parser.add_argument_group("the VMs"))
    _add_vmotion(parser.add_argument_group("vMotion"))
    _add_guests(parser.add_argument_group("what is behind each serial port (default: --echo)"))


def _add_host(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--proxy", type=_converted(_proxy), default=DEFAULT_PROXY, metavar="HOST:PORT",
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
        "--thumbprint", type=_converted(_thumbprint), metavar="HEX",
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
        "--uuid", type=_converted(_uuid), help="the UUID of the only VM (default: made from the name)"
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
        help=f"how: random, or some of {', '.join(VARIANTS)} (default normal)",
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


def _uuid(text: str) -> str:
    from vspcd.proto.vmware_codes import parse_uuid

    return parse_uuid(text)


def _thumbprint(text: str) -> str:
    from vspcd.simulator import tls

    return tls.thumbprint(text)


def _steps(path: str) -> list[Step]:
    from pathlib import Path

    from vspcd.simulator import script

    return script.load(Path(path))


def _addresses(text: str) -> list[str]:
    return [host for host in text.split(",") if host]


def _variants(text: str) -> list[str]:
    if text == "random":
        return list(VARIANTS)
    for name in text.split(","):
        if name not in VARIANTS:
            raise ValueError(f"no variant is named {name!r}; there are {', '.join(VARIANTS)}")
    return text.split(",")


def _where(text: str) -> str:
    from vspcd.simulator.guests import opener

    opener(text)
    return text
