"""Listening sockets: TCP and Unix, made so that a crash or a long path leaves nothing in the way.

Does: binds and listens, accepts a bounded number of connections, names their far ends.
Owns: nothing; the sockets are the caller's.
Never: blocks; decides whether a connection is welcome.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from vspcd.core.address import endpoint

BACKLOG = 4096
ACCEPTS_PER_TURN = 32
PER_CONNECTION = 3  # descriptors: its own, and a channel while a worker is forked
LARGE_PART = 8
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

KEEPALIVE_IDLE = 15
KEEPALIVE_INTERVAL = 10
KEEPALIVE_PROBES = 4
USER_TIMEOUT_MS = 50_000
"""A host that vanished is noticed after 55 s at most, whether something was being sent to it or not."""


class Credentials(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def tcp(host: str, port: int) -> socket.socket:
    """A TCP listener; port 0 lets the system choose. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # For what is accepted here: an urgent byte (telnet's Synch) keeps its place among the others.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if family == socket.AF_INET6:
            # "::" takes IPv4 as well; another IPv6 address does not care.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def unix(
    directory: int, name: str, mode: int, group: Optional[int], kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """A Unix listener at ``name`` in the open ``directory``, replacing what a dead daemon left. Raises
    OSError.

    The path goes through the directory's descriptor, since a socket address holds 107 bytes and no more. The
    socket is made with no access for others and gets its mode and group before it listens.
    """
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        remove(directory, name)
        sock.bind(f"/proc/self/fd/{directory}/{name}")
        if group is not None:
            os.chown(name, -1, group, dir_fd=directory)
        os.chmod(name, mode, dir_fd=directory)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def give_access(directory: int, name: str, mode: int, group: Optional[int]) -> None:
    """Let these connect to a Unix socket that is there; without a group: that of new files. Raises OSError."""
    os.chown(name, -1, _group_of_new_files(directory) if group is None else group, dir_fd=directory)
    os.chmod(name, mode, dir_fd=directory)


def _group_of_new_files(directory: int) -> int:
    about = os.fstat(directory)
    return about.st_gid if about.st_mode & stat.S_ISGID else os.getegid()


def remove(directory: int, name: str) -> None:
    """Unlink a socket's name; one that is not there is fine."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def accept(
    listener: socket.socket, spare: Callable[[], int] = lambda: 0
) -> Iterator[tuple[socket.socket, str]]:
    """Connections that wait, a bounded number, each with its far end as text (empty for a Unix socket).

    Raises OSError when the system is out of descriptors or memory (``OUT_OF_RESOURCES``), or would leave fewer than
    ``spare()`` descriptors.
    """
    for _ in range(ACCEPTS_PER_TURN):
        try:
            keep_free(listener, spare())
            sock, address = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                raise
            continue  # the connection died while it waited: ECONNABORTED and the like
        sock.setblocking(False)
        yield sock, endpoint(address) if sock.family != socket.AF_UNIX else ""


def keep_free(listener: socket.socket, count: int) -> None:
    """Raises OSError when, after the next connection, fewer descriptors than that were left, or than a part of a low
    limit.
    """
    if count <= 0:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes: list[int] = []
    try:
        for _ in range(PER_CONNECTION):
            probes.append(os.dup(listener.fileno()))
    finally:
        for fd in probes:
            os.close(fd)
    # The system gives out the lowest free number, so the highest ones stay free until all others are in use.
    if limit != resource.RLIM_INFINITY and probes[-1] >= limit - min(count, limit // LARGE_PART):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def has_left(sock: socket.socket) -> bool:
    """Whether the far end has closed already."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def keep_alive(sock: socket.socket) -> None:
    """Notice within a minute that the other host has vanished, and send small packets at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def credentials(sock: socket.socket) -> Credentials:
    """The process at the other end of a Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return Credentials(*struct.unpack("iII", raw))
