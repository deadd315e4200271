"""A program's own session on a console: what the VM says comes in as bytes, what is typed goes out, under deadlines.

Does: gets on the console, keeps its place in the journal, gets on again at that place when the session was lost with
its process, tells when somebody's lock or the lack of a VM is in the way.
Owns: the connection to the worker.
Never: touches the terminal; passes on a byte twice. A worker's death, the master's and an upgrade are no events here.
"""

from __future__ import annotations

import fcntl
import select
import socket
import sys
import termios
import time
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl.client import Client
from vspcd.ctl.failure import DENIED, FAILED, NO_DAEMON, TIMEOUT, Failure
from vspcd.ctl.people import described
from vspcd.ctl.status import shown_name
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

PACKET = 1 << 18  # more than the longest packet of frames
PIECE = 4096  # bytes that are typed at once
REPLAYED = 1 << 18  # bytes that are looked at again after a session was lost
BACK_WITHIN = 20.0
"""Seconds for the daemon to come back after its end."""

PAUSE = 0.1
LOOK_EVERY = 0.005
DAEMON_ENDS = frozenset({b"vspcd is stopping", b"vspcd has ended"})


def request_for(
    console: str, mode: str = "rw", reason: Optional[str] = None, replay: int = 0
) -> dict[str, Any]:
    """What the daemon is asked for a session."""
    wishes = {"replay": replay, "mode": mode, "fallback": False, "reason": reason}
    return {"type": "attach", "console": console, **wishes}


def hindrance(answer: dict[str, Any]) -> Optional[str]:
    """What is in the way of typing, by the daemon's answer; None when nothing is."""
    wrong = _read_only(answer)
    return wrong if wrong or answer.get("state") == "connected" else _without_vm(str(answer.get("state")))


def _read_only(answer: dict[str, Any]) -> Optional[str]:
    lock = described(answer.get("lock"))
    if answer.get("mode") != "ro":
        return None
    return f"is locked by {lock}" if lock else "may only be watched by you (access)"


def _without_vm(state: str) -> str:
    return f"is {visible(state)}: no VM is there to type to"


class Dialogue:
    """A context. ``mode`` as in vspcd.core.access; ``replay`` bytes of what was said before come first."""

    def __init__(
        self, path: str, name: str, mode: str = "rw", reason: Optional[str] = None, replay: int = 0
    ) -> None:
        self.id = name
        self.name = visible(name)
        self.state = ""
        self._path = path
        self._mode = mode
        self._reason = reason
        self._replay = replay
        self._socket: Optional[socket.socket] = None
        self._position: Optional[int] = None
        self._sent = 0
        self._read_only: Optional[str] = None  # why

    def __enter__(self) -> Dialogue:
        self._attach(self._replay)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def _attach(self, replay: int) -> None:
        request = request_for(self.id, self._mode, self._reason, replay)
        with Client(self._path) as client:
            answer, worker = client.ask_for_descriptor(request)
        self._socket = socket.socket(fileno=worker)
        self._socket.setblocking(False)
        self._sent = 0
        self.id = str(answer["id"])
        self.name = shown_name(answer) if answer.get("name") else visible(self.id)
        self.state = str(answer.get("state"))
        self._read_only = _read_only(answer) if self._mode != "ro" else None

    # What the VM says.

    def read(self, seconds: Optional[float]) -> Optional[bytes]:
        """What is new, waiting for it up to so many seconds, None for ever; None when nothing came. Raises Failure."""
        end = None if seconds is None else time.monotonic() + max(seconds, 0.0)
        while True:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            if not self._ready(select.POLLIN, left):
                return None
            data = self._received()
            if data:
                return data
            if data is None:
                self._back(end)

    def _ready(self, events: int, seconds: Optional[float]) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket.fileno(), events)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _received(self) -> Optional[bytes]:
        """Console bytes of one packet; None when the session is lost."""
        assert self._socket is not None
        try:
            packet = self._socket.recv(PACKET)
        except BlockingIOError:
            return b""
        except OSError:
            packet = b""
        if not packet:
            return None
        try:
            frames = [frame for frame, _ in attach.frames(packet)]
        except PeerError as error:
            raise Failure(f"lost {self.name}: the daemon was not understood: {error}") from None
        found = bytearray()
        for frame in frames:
            if frame.type == attach.DATA:
                found += self._new(frame)
            elif frame.type == attach.BYE and frame.payload in DAEMON_ENDS:
                return bytes(found) or None
            else:
                self._told(frame)
        return bytes(found)

    def _new(self, frame: attach.Frame) -> bytes:
        """What of this was not there before: a process that goes on for a dead one repeats its last frame."""
        known = 0 if self._position is None else max(0, self._position - frame.offset)
        self._position = max(self._position or 0, frame.offset + len(frame.payload))
        return frame.payload[known:]

    def _told(self, frame: attach.Frame) -> None:
        text = visible(frame.payload.decode("utf-8", "replace"))
        if frame.type == attach.MODE and self._mode != "ro":
            self._read_only = None if frame.payload == b"rw" else "is locked by somebody else now"
        elif frame.type == attach.BYE:
            raise Failure(f"the daemon has ended the session on {self.name}: {text}", DENIED)
        elif frame.type == attach.LIVE and self._position is not None:
            self._position = min(self._position, frame.offset)  # a journal that has begun anew

    def _back(self, end: Optional[float]) -> None:
        """The session is lost with the process that had it: get on again, at the same place. Raises Failure."""
        if self._socket is not None:
            self._socket.close()
        limit = time.monotonic() + BACK_WITHIN
        limit = limit if end is None else min(limit, end)
        while True:
            try:
                self._attach(REPLAYED if self._position is not None else self._replay)
                return
            except Failure as failure:
                if failure.exit_code not in (NO_DAEMON, FAILED) or time.monotonic() > limit:
                    raise
            time.sleep(PAUSE)

    # What is typed.

    def may_type(self) -> None:
        """Raises Failure when what is typed now would not reach a VM."""
        if self._read_only is not None:
            raise Failure(f"{self.name} {self._read_only}", DENIED)

    def must_be_connected(self) -> None:
        """Raises Failure when there is no VM to talk to."""
        if self.state != "connected":
            raise Failure(f"{self.name} {_without_vm(self.state)}")

    def type(self, data: bytes, seconds: float) -> None:
        """Type, and wait until the VM has taken it. What it says meanwhile is read later. Raises Failure."""
        self.may_type()
        end = time.monotonic() + seconds
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._send(attach.frame(attach.INPUT, piece, self._sent), end)
            self._sent += len(piece)
        while not self._taken():
            if time.monotonic() > end:
                raise Failure(f"{self.name}: the VM has not taken what was typed in time", TIMEOUT)
            time.sleep(LOOK_EVERY)
        self.may_type()

    def _send(self, packet: bytes, end: float) -> None:
        assert self._socket is not None
        while True:
            try:
                self._socket.send(packet, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                if not self._ready(select.POLLOUT, max(end - time.monotonic(), 0.0)):
                    raise Failure(f"{self.name}: the VM does not take what is typed", TIMEOUT) from None
            except OSError:
                raise Failure(
                    f"lost {self.name} while typing: look what has arrived before you try again"
                ) from None

    def _taken(self) -> bool:
        """Whether the worker has read all. It reads for good only what the VM's connection has taken."""
        assert self._socket is not None
        try:
            unread = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return True
        return int.from_bytes(unread, sys.byteorder) == 0
