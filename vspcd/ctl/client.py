"""The tool's end of the control socket: one request, its answers, perhaps one descriptor, under a deadline.

Does: finds the socket, asks, collects the answer's packets, turns every failure into a ``Failure`` that says
what to do about it.
Owns: the connection.
Never: prints; interprets an answer.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import DAEMON_CODES, DENIED, FAILED, NO_DAEMON, Failure
from vspcd.proto.control import PACKET_LIMIT, decode, encode
from vspcd.proto.errors import LocalError, PeerError

ANSWER_DEADLINE = 10.0
"""Seconds that a whole answer may take."""

QUEUE_FULL = 0.02
"""Seconds between two looks whether there is a place in the queue."""

Message = dict[str, Any]


def socket_path(given: Optional[str], root: Optional[str]) -> str:
    """Where the daemon listens: --socket, else --root, else $VSPCD_ROOT, else the system's place."""
    if given:
        return given
    root = root or os.environ.get("VSPCD_ROOT")
    return os.path.join(root, "run", "control.sock") if root else "/run/vspc/control.sock"


class Client:
    """A connection to the daemon. Use as a context manager."""

    def __init__(self, path: str, deadline: float = ANSWER_DEADLINE) -> None:
        self._path = path
        self._seconds = deadline
        self._socket: Optional[socket.socket] = None

    def __enter__(self) -> Client:
        self._socket = _connect(self._path, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def ask(self, message: Message) -> list[Message]:
        """All packets of the answer. Raises Failure for an error answer, silence, or a dead daemon."""
        return [packet for packet, _ in self._ask(message, fds=0)]

    def packets(self, message: Message) -> Iterator[Message]:
        """The same, one by one as they come."""
        for packet, _ in self._ask(message, fds=0):
            yield packet

    def ask_for_descriptor(self, message: Message) -> tuple[Message, int]:
        """The answer and the descriptor that came with it; the caller owns it."""
        last: Message = {}
        received: list[int] = []
        for packet, fds in self._ask(message, fds=1):
            last = packet
            received += fds
        if len(received) != 1:
            _close(received)
            raise Failure(f"the daemon sent {len(received)} descriptors instead of one", FAILED)
        return last, received[0]

    def wait_for_end(self, request: Message, seconds: float) -> list[Message]:
        """Ask for something that ends the daemon, and wait until its process is gone. Raises Failure."""
        watch = self._process()
        try:
            answer = self.ask(request)
            if watch is not None and not _readable(watch, seconds):
                raise Failure(f"the daemon has not ended within {seconds:g} s")
            return answer
        finally:
            _close([] if watch is None else [watch])

    def _process(self) -> Optional[int]:
        """A descriptor that tells of the daemon's end; None when the kernel gives none."""
        assert self._socket is not None
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        try:
            return os.pidfd_open(array.array("i", credentials)[0])
        except (OSError, AttributeError):
            return None  # Another process namespace, or a kernel before 5.3: the answer has to do.

    def _ask(self, message: Message, fds: int) -> Iterator[tuple[Message, list[int]]]:
        deadline = time.monotonic() + self._seconds
        self._send(message)
        while True:
            data, received = self._receive(deadline, fds)
            if not data:
                _close(received)
                raise Failure("the daemon closed the connection without an answer", NO_DAEMON)
            packet = _checked(data)
            yield packet, received
            if packet.get("end"):
                return

    def _send(self, message: Message) -> None:
        assert self._socket is not None
        try:
            self._socket.send(encode(message), socket.MSG_NOSIGNAL)
        except LocalError as error:
            raise Failure(str(error), FAILED) from None
        except OSError as error:
            raise Failure(f"the daemon does not take requests: {error.strerror}", NO_DAEMON) from None

    def _receive(self, deadline: float, fds: int) -> tuple[bytes, list[int]]:
        assert self._socket is not None
        space = socket.CMSG_SPACE(fds * array.array("i").itemsize) if fds else 0
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data, ancillary, _, _ = self._socket.recvmsg(PACKET_LIMIT, space, socket.MSG_CMSG_CLOEXEC)
        except socket.timeout:
            raise Failure(
                f"the daemon has not answered within {self._seconds:g} s (socket {visible(self._path)})",
                NO_DAEMON,
            ) from None
        except ConnectionError:
            return b"", []
        return data, _descriptors(ancillary)


def _connect(path: str, seconds: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(seconds)
    deadline = time.monotonic() + seconds
    try:
        while not _queued(connection, path):
            if time.monotonic() > deadline:
                raise socket.timeout("no place in the queue")
            time.sleep(QUEUE_FULL)
    except OSError as error:
        connection.close()
        raise _unreachable(path, error) from None
    return connection


def _queued(connection: socket.socket, path: str) -> bool:
    """Connect, unless too many others wait to be let in."""
    try:
        _connect_to(connection, path)
    except BlockingIOError:
        return False
    return True


def _connect_to(connection: socket.socket, path: str) -> None:
    """Connect through the folder's descriptor: a socket address holds 107 bytes, a path can be longer."""
    folder, name = os.path.split(path)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _unreachable(path: str, error: OSError) -> Failure:
    """What a refused connection means, and what to do about it."""
    shown = visible(path)
    if isinstance(error, PermissionError):
        return Failure(
            f"permission denied on {shown}: root and the members of the group {_group(path)} may use it",
            DENIED,
            f"sudo usermod -aG {_group(path)} {visible(_user())}   # then log in again",
        )
    if error.errno == errno.ENOENT:
        return Failure(f"the daemon is not running (no socket at {shown})", NO_DAEMON, _start_hint(path))
    if error.errno == errno.ECONNREFUSED:
        return Failure(f"the daemon is not running (nobody answers at {shown})", NO_DAEMON, _start_hint(path))
    if isinstance(error, socket.timeout) or error.errno == errno.EAGAIN:
        return Failure(f"the daemon is too busy to answer at {shown}", NO_DAEMON)
    return Failure(f"no connection to the daemon at {shown}: {error.strerror or error}", NO_DAEMON)


def _start_hint(path: str) -> str:
    if path == socket_path(None, None) and "VSPCD_ROOT" not in os.environ:
        return "start it with: systemctl start vspcd (or name a private one: vspcctl --root DIR …)"
    run, name = os.path.split(path)
    root, below = os.path.split(run)
    if (below, name) == ("run", "control.sock"):
        return f"start it with: vspcd --root {visible(root)}"
    return "start it with: vspcd"


def _group(path: str) -> str:
    """The group that the socket belongs to; the usual one when that cannot be told."""
    import grp

    try:
        name = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "vspc"
    return "vspc" if name == "root" else name


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _checked(data: bytes) -> Message:
    """The packet as a message. An error answer becomes the Failure that it describes."""
    try:
        packet = decode(data)
    except PeerError as error:
        raise Failure(f"the daemon's answer was not understood: {error}", FAILED) from None
    if packet["type"] == "error":
        text = said(packet) or "the daemon refused without a reason"
        code = str(packet.get("code"))
        raise Failure(text, DAEMON_CODES.get(code, FAILED), code=code)
    return packet


def said(packet: Message) -> str:
    """The message of an answer for people, its control characters escaped but for line ends."""
    return "\n".join(visible(line) for line in str(packet.get("message") or "").split("\n"))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _readable(fd: int, seconds: float) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
