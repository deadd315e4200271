"""vspcctl break: sends a VM a serial break, and a magic SysRq key behind it.

Does: asks whether it is meant, sends it, waits until the VM's connection has it.
Owns: nothing.
Never: sends anything that was not confirmed, by the user or by --yes; leaves a break to wait for a VM that is away.
"""

from __future__ import annotations

import os
import select
import sys
import time
from argparse import Namespace
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl import sysrq
from vspcd.ctl.attaching import called, get_on
from vspcd.ctl.client import socket_path
from vspcd.ctl.failure import OK, USAGE, Failure
from vspcd.ctl.link import Link
from vspcd.ctl.outcome import Outcome, spoken, told
from vspcd.ctl.status import Record, fetch
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

TAKEN_WITHIN = 5.0
"""Seconds: the kernel of the VM forgets a break after as many."""
TICK = 0.02


def run(arguments: Namespace) -> int:
    if arguments.sysrq == "?":
        return spoken((f"{each.key}  {each.name:<10} {each.effect}" for each in sysrq.TABLE), arguments.json)
    return told(lambda: _sent(arguments), arguments.json)


def _sent(arguments: Namespace) -> Outcome:
    key = _key(arguments.sysrq)
    path = socket_path(arguments.socket, arguments.root)
    console = fetch(path, arguments.name)["consoles"][0]
    name = called(console)
    _demand_vm(console, name)
    if not arguments.yes and not _confirmed(name, key):
        raise Failure("nothing was sent")
    answer, worker = get_on(path, str(console["id"]), reason="break")
    link = Link(worker)
    try:
        _demand_vm(answer, name)
        link.send_break()
        if key is not None:
            link.type(key.key.encode())
        _deliver(link, name)
    finally:
        link.close()
    what = "break sent" if key is None else f"break and SysRq {key.key} sent ({key.effect})"
    if not arguments.json:
        print(f"{name}: {what}")
    return OK, {"console": str(console["id"]), "name": name, "said": [what]}


def _key(given: Optional[str]) -> Optional[sysrq.SysRq]:
    if given is None:
        return None
    found = sysrq.find(given)
    if found is None:
        raise Failure(f"{given!r} is no SysRq key", USAGE, "vspcctl break NAME --sysrq '?' lists them")
    return found


def _demand_vm(console: Record, name: str) -> None:
    if console.get("state") != "connected":
        raise Failure(f"{name} is {visible(str(console.get('state')))}: no VM is there to take a break")


def _confirmed(name: str, key: Optional[sysrq.SysRq]) -> bool:
    """Whether the user means it. Without a terminal nobody can be asked."""
    if not os.isatty(0):
        raise Failure("nobody can be asked whether it is meant: --yes says so", USAGE)
    what = "a break may stop the machine" if key is None else f"SysRq {key.key} {key.effect}"
    sys.stderr.write(f"{name}: {what}. Send it? [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # the shell's prompt begins a line
        raise


def _deliver(link: Link, name: str) -> None:
    """Wait until the worker has taken all, which it does when the VM's connection has it. Raises Failure."""
    deadline = time.monotonic() + TAKEN_WITHIN
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while link.waiting or link.untaken:
        if link.waiting:
            link.write()
        if poll.poll(TICK * 1000):
            _hear(link, name)
        if time.monotonic() > deadline:
            raise Failure(f"{name} has not taken the break within {TAKEN_WITHIN:g} s: its VM is busy or away")


def _hear(link: Link, name: str) -> None:
    """What the worker says meanwhile. Raises Failure when it takes nothing."""
    try:
        frames = link.read()
    except PeerError as error:
        raise Failure(f"the daemon was not understood: {error}") from None
    if frames is None:
        raise Failure(f"lost {name}: its process has ended; whether the break was sent is not known")
    for frame in frames:
        if frame.type == attach.BYE:
            raise Failure(f"{name}: {visible(frame.payload.decode('utf-8', 'replace'))}")
        if frame.type == attach.MODE and frame.payload != b"rw":
            raise Failure(f"{name}: somebody else has a lock by now")
