"""Peers: who is at the other end of a connection, and who the names in the configuration's rules are.

Does: asks the kernel who opened a Unix socket; finds the numbers of users and groups, and the names of users.
Owns: the names that were found.
Never: asks the network's name service twice about one user: each number is looked up once.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Callable

from vspcd.core.patterns import ANYBODY
from vspcd.core.rights import Rights, Rule, Who
from vspcd.unix import listen
from vspcd.unix.logline import Log

SO_PEERGROUPS = (
    59  # asm-generic/socket.h: the groups beside the first one, as they were at the time of connect
)
GROUPS_SIZE = 1024  # bytes, as many as Python lets one ask for: 256 groups


def at_address(peer: str) -> Who:
    """Somebody who has come by TCP."""
    return Who(address=peer)


def behind(sock: socket.socket) -> Who:
    """The user at the other end of a Unix socket."""
    who = listen.credentials(sock)
    return Who(who.uid, who.pid, sorted({who.gid, *_groups(sock)}), user_name(who.uid))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """None before Linux 4.13, or of somebody who has more than 256 of them: then the first one alone counts."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_SIZE)
    except OSError:
        return ()
    return struct.unpack(f"={len(raw) // 4}I", raw)


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def rights(rules: Sequence[Rule], log: Log) -> Rights:
    """The rules with the numbers of those whom they name; who does not exist is told, and means nobody."""
    users = _found((name for rule in rules for name in rule.users), lambda name: pwd.getpwnam(name).pw_uid)
    groups = _found((name for rule in rules for name in rule.groups), lambda name: grp.getgrnam(name).gr_gid)
    for what, names, known in (("user", "users", users), ("group", "groups", groups)):
        named = {name for rule in rules for name in getattr(rule, names)}
        for unknown in sorted(name for name in named - known.keys() if not _is_plain(name)):
            log.error(f"unknown-{what}", name=unknown, key="access")
    return Rights(rules, users, groups, frozenset({0, os.geteuid()}))


def _found(names: Iterable[str], number: Callable[[str], int]) -> dict[str, int]:
    found = {}
    for name in names:
        if not _is_plain(name):
            try:
                found[name] = number(name)
            except KeyError:
                pass  # it is told
    return found


def _is_plain(name: str) -> bool:
    return name == ANYBODY or name.isdecimal()
