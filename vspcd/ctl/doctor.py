"""vspcctl doctor: why is this VM not here, and what puts it right.

Does: looks at the daemon's state and refusals, its port, this machine's firewall, and one console if it is named.
Owns: the order of the findings.
Never: changes anything; trusts a name that a VM has chosen in a command that it prints.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

from vspcd.core.names import Ambiguous, NotFound, resolve, visible
from vspcd.ctl import ailments, firewall, status, table
from vspcd.ctl.ailments import BAD, GOOD, WARNING, Finding, Place
from vspcd.ctl.client import socket_path
from vspcd.ctl.failure import FAILED, OK

COLOURS = {GOOD: "green", WARNING: "yellow", BAD: "red"}
LISTENING = "0A"
DEFAULT_PORT = 13370
DAY = 86400
DAYS_WARNED = 30
SHOWN = 10
FIELDS = (
    *(*status.NAMED, "state", "since", "last_seen", "peer"),
    *("log_trouble", "quarantined", "parked_until"),
)


def run(arguments: Namespace) -> int:
    answer = status.fetch(socket_path(arguments.socket, arguments.root), fields=FIELDS)
    findings = list(_findings(answer, arguments.name, arguments.host))
    if arguments.json:
        print(json.dumps({"findings": [each._asdict() for each in findings]}, indent=2))
    else:
        sys.stdout.write("".join(_shown(findings)))
    return FAILED if any(each.level == BAD for each in findings) else OK


def _shown(findings: Iterable[Finding]) -> Iterator[str]:
    width, colours = table.terminal_width(1), table.colours_wanted(1)
    for each in findings:
        yield (
            table.rendered(
                table.Line(f"{each.level}: {each.text}", COLOURS[each.level], each.level), width, colours
            )
            + "\n"
        )
        yield from (f"    {line}\n" for line in each.cure)  # as they are: they are for copying


def _findings(answer: status.Record, name: Optional[str], host: Optional[str]) -> Iterator[Finding]:
    place = _place(answer, host)
    if name is not None:
        yield from _of_console(answer, name, place)
        yield from _machine(answer, place)
        return
    yield from _machine(answer, place)
    yield from _certificate(answer.get("certificate"))
    yield from _pending(answer)
    yield from _refusals(answer["refused"], place, "NAME")
    yield from _absent(answer["consoles"])


def _place(answer: status.Record, host: Optional[str]) -> Place:
    certificate = answer.get("certificate")
    ports = [_port(address) for address in (answer.get("listeners") or {}).get("proxy", ())]
    thumbprint = None if certificate is None else str(certificate["sha1"])
    return Place(host or socket.gethostname(), ports[0] if ports else DEFAULT_PORT, thumbprint)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


# One console.


def _of_console(answer: status.Record, name: str, place: Place) -> Iterator[Finding]:
    known = {str(console["id"]): console for console in answer["consoles"]}
    try:
        console = known[resolve(name, [status.named(each) for each in known.values()]).id]
    except Ambiguous as error:
        yield Finding(BAD, str(error))
        return
    except NotFound as error:
        yield from _never_seen(answer, name, str(error), place)
        return
    shown = status.shown_name(console)
    if console["state"] == "connected":
        since = table.age(time.time() - console["since"])
        yield Finding(
            GOOD, f"{shown} is here: connected for {since} from {visible(str(console.get('peer')))}"
        )
        yield from _health(console)
    else:
        yield from _away(answer, console, place)


def _never_seen(answer: status.Record, name: str, error: str, place: Place) -> Iterator[Finding]:
    yield Finding(BAD, f"{visible(error)}. No VM of that name has ever got this far (or it was forgotten).")
    found = list(_refusals(answer["refused"], place, name))
    yield from found
    if not found:
        yield Finding(WARNING, "Nobody was refused either: nothing has reached vspcd. The VM's port, and its host:",
                      [*ailments.port_lines(place, name), *ailments.host_lines(place, name)])  # fmt: skip
        yield Finding(
            WARNING,
            "The port must be connected, or the VM switched off and on: a reboot in the guest is not enough.",
            [
                "# on the ESXi host, to see whether it can get here:",
                f"nc -z {ailments.shell(place.host)} {place.port}",
            ],
        )


def _health(console: status.Record) -> Iterator[Finding]:
    if console.get("log_trouble"):
        yield Finding(BAD, f"its log cannot be written: {visible(str(console['log_trouble']))}")
    for one in console.get("quarantined") or ():
        yield Finding(WARNING, f"bytes of it are in quarantine: {visible(str(one.get('file')))}")


def _away(answer: status.Record, console: status.Record, place: Place) -> Iterator[Finding]:
    shown = status.shown_name(console)
    name = str(console.get("name") or console["id"])
    if console.get("parked_until"):
        left = table.age(console["parked_until"] - time.time())
        cure = [f"vspcctl unpark {ailments.shell(name)}"]
        yield Finding(BAD, f"{shown} is parked for {left}: its bytes have killed workers.", cure)
    seen = table.moment(console.get("last_seen"), time.time())
    yield Finding(BAD, f"{shown} is not connected; last seen {seen}.")
    about = [
        one for one in answer["refused"] if str(one["reason"]).startswith((f"{name}: ", f"{console['id']}: "))
    ]
    found = list(_refusals(about or answer["refused"], place, name))
    yield from found
    if not found:
        yield Finding(
            WARNING,
            "Nobody was refused. If the VM runs: its port is not connected, or its host cannot reach vspcd.",
            [
                f"govc device.info -vm {ailments.shell(name)} 'serialport-*'",
                *ailments.port_lines(place, name),
                *ailments.host_lines(place, name),
            ],
        )


# Everything.


def _refusals(refused: Sequence[status.Record], place: Place, name: str) -> Iterator[Finding]:
    now = time.time()
    told: set[str] = set()
    for one in refused[:SHOWN]:
        reason = str(one.get("reason"))
        ailment = ailments.diagnosed(reason)
        when = table.moment(one.get("when"), now)
        text = f"refused {visible(str(one.get('peer')))} {one.get('count')} times, last {when}: {visible(reason)}"
        if ailment is None:
            yield Finding(BAD, text)
            continue
        cure = () if ailment.pattern in told else ailment.cure(place, _named_in(reason) or name)
        told.add(ailment.pattern)
        yield Finding(BAD, f"{text}. {ailment.means}", cure)
    if len(refused) > SHOWN:
        yield Finding(WARNING, f"{len(refused) - SHOWN} more refusals: vspcctl status --json")


def _named_in(reason: str) -> Optional[str]:
    """The console that a refusal begins with, if it does."""
    name, found, _ = reason.partition(": ")
    return name if found and name not in ("TLS",) and "claims" in reason else None


def _certificate(certificate: Optional[status.Record]) -> Iterator[Finding]:
    if certificate is None:
        yield Finding(GOOD, "no TLS: tls.certificate is not set")
        return
    left = (certificate["not_after"] - time.time()) / DAY
    text = f"certificate: SHA-1 {visible(str(certificate['sha1']))}"
    if left <= 0:
        cure = [
            "vspcctl cert --self-signed HOST --out DIR --force; vspcctl reload   # and the new thumbprint into the VMs"
        ]
        yield Finding(BAD, f"the certificate has expired; {text}", cure)
    else:
        yield Finding(WARNING if left < DAYS_WARNED else GOOD, f"{text}, {left:.0f} days left")


def _pending(answer: status.Record) -> Iterator[Finding]:
    pending = (answer.get("totals") or {}).get("pending") or 0
    if pending:
        yield Finding(
            WARNING,
            f"{pending} connections to the VM port have not said who they are yet: if that stays, negotiation is stuck "
            "(proxy.handshake_timeout ends it, and the reason is shown here then)",
        )


def _absent(consoles: Sequence[status.Record]) -> Iterator[Finding]:
    away = [console for console in consoles if console["state"] != "connected"]
    yield Finding(GOOD, f"{len(consoles) - len(away)} of {len(consoles)} known VMs are connected")
    for console in away[:SHOWN]:
        seen = table.moment(console.get("last_seen"), time.time())
        yield Finding(WARNING, f"{status.shown_name(console)} is {console['state']}, last seen {seen}")
    if len(away) > SHOWN:
        yield Finding(WARNING, f"{len(away) - SHOWN} more are not connected: vspcctl status")


# This machine.


def _machine(answer: status.Record, place: Place) -> Iterator[Finding]:
    addresses = [str(one) for one in (answer.get("listeners") or {}).get("proxy", ())]
    if not addresses:
        yield Finding(BAD, "vspcd listens for VMs nowhere", ['proxy: {listen: [":13370"]}   # vspcd.yaml'])
        return
    shown = visible(", ".join(addresses))
    if all(one.startswith(("127.", "[::1]")) for one in addresses):
        yield Finding(
            WARNING,
            f"vspcd listens for VMs on {shown} alone: no ESXi host can reach that",
            ['proxy: {listen: [":13370"]}   # vspcd.yaml, without --root; then restart'],
        )
    elif all(_port(one) in _listened_on() for one in addresses):
        yield Finding(GOOD, f"vspcd listens for VMs on {shown}")
    else:
        yield Finding(BAD, f"nothing listens on {shown} here (another network namespace?)")
    yield from firewall.findings(place.port)


def _listened_on() -> set[int]:
    """TCP ports that somebody listens on, by /proc."""
    ports = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                lines = [line.split() for line in file][1:]
        except OSError:
            continue
        ports |= {int(fields[1].rpartition(":")[2], 16) for fields in lines if fields[3] == LISTENING}
    return ports
