"""The rehearsal: a worker's first second, played in the process that will fork the workers.

Does: serves a few VMs of its own up to the point where they are connected, so that the interpreter has specialised
the code and filled its caches before the first fork. A worker would otherwise do that anew, for itself alone, in
memory that it shares with all others until it writes there.
Owns: the sockets and the worker of each round, which end with it; a folder in the run directory meanwhile.
Never: says anything; is needed for anything but speed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vspcd.proto import control
from vspcd.proto.telnet import AUTHENTICATION, BINARY, COM_PORT, DO, ECHO, SGA, VMWARE, WILL, negotiation
from vspcd.proto.vmware_codes import DO_PROXY, VM_NAME, VM_VC_UUID, frame, known_codes, uuid_payload
from vspcd.unix import failpoint
from vspcd.unix.channel import Channel, pair
from vspcd.unix.logline import Log
from vspcd.unix.page import Arena, Page
from workers.shell import Start
from workers.vmware import VmwareWorker

ROUNDS = 8
"""So often must a function have been called before the interpreter specialises it (CPython 3.11)."""

UUID = "0123456789abcdeffedcba9876543210"


def script(service: str) -> list[bytes]:
    """What the VM says, up to the UUID."""
    return [
        negotiation(WILL, AUTHENTICATION),
        negotiation(DO, BINARY),
        b"".join(negotiation(*each) for each in ((DO, SGA), (DO, ECHO), (WILL, BINARY), (WILL, SGA))),
        negotiation(WILL, VMWARE) + frame(0, known_codes(True)) + frame(DO_PROXY, b"S" + service.encode()),
        frame(VM_VC_UUID, uuid_payload(UUID)),
    ]


def rehearse(settings: dict[str, Any], folder: str) -> list[Page]:
    """Play it, as far as this system lets us. ``settings``: as workers get them. ``folder`` is there meanwhile.

    Returns what the caller has to keep: a worker's page must stay mapped (``vspcd.unix.page.map_page``).
    """
    pages: list[Page] = []
    if failpoint.DIRECTORY:
        return pages  # what is to fail is a worker, and not who plays one
    arena = Arena()
    number = arena.take()
    try:
        for _ in range(ROUNDS):
            with stage(folder):
                play(settings_here(settings, folder), folder, os.dup(arena.fd), number, pages)
    except OSError:
        pass  # there is no loopback interface, or no room: the workers will begin a little slower
    os.close(arena.fd)
    return pages


def settings_here(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """Settings with all files in this folder and with nothing before telnet."""
    log = {**settings["log"], "dir": folder, "spool_dir": folder}
    return {**settings, "log": log, "tls": {"mode": "off", "usable": False}}


@contextmanager
def stage(folder: str) -> Iterator[None]:
    """The folder is there, and empty. Raises OSError."""
    if os.path.isdir(folder):
        remove(folder)  # one who was killed has left it
    os.mkdir(folder, 0o700)
    try:
        yield
    finally:
        remove(folder)


def remove(folder: str) -> None:
    """Remove it with all that is in it. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(folder)


def play(settings: dict[str, Any], folder: str, arena: int, page: int, pages: list[Page]) -> list[str]:
    """One VM, from its first byte until it is connected and named: the words that the worker told its master.

    The worker's page is added to ``pages``.
    """
    logs = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if settings["log"]["enabled"] else -1
    silence = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    ours, theirs = pair()
    near, far = tcp_pair()
    number = len(pages) + 1  # the page still tells of the connection before
    start = Start(theirs, arena, page, -1, leg=near.detach(), leg_number=number, peer="127.0.0.1:1")
    worker = VmwareWorker(settings, logs)
    worker.shell.log = Log(fd=silence)
    worker.begin(start)
    pages.append(worker.shell.page)
    for words in script(settings["services"][0]):
        far.send(words)
        worker.shell.loop.turn()
    console = {"uuid": UUID, "label": "", "name": None}
    ours.send(control.encode({"type": "own", "console": console, "resume": False}))
    worker.shell.loop.turn()
    far.send(frame(VM_NAME, b"vm") + negotiation(WILL, COM_PORT))
    worker.shell.loop.turn()
    if worker.console is not None and worker.connection is not None:
        worker.facts.settle(worker.console, worker.connection.session)  # it would wait for more to come
    ours.send(control.encode({"type": "quit", "reason": ""}))
    worker.shell.loop.turn()
    worker.shell.loop.close()
    said = [message["type"] for message, _ in Channel(ours).packets()]
    for end in (ours, theirs, far):
        end.close()
    for fd in {logs, silence} - {-1}:
        os.close(fd)
    return said


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that nobody else has part in. Raises OSError."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        far = socket.socket()
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far
