"""Who may do what on which console: the rules of ``access`` in the configuration.

Does: finds the highest right that the rules give somebody on a console.
Owns: the order of the rights.
Never: asks the system for users or groups (``vspcd.peers`` does), remembers anybody.

Each rule only gives; none takes away, so their order does not matter: the highest right of all rules that fit holds. A
right includes those before it. Without rules, whoever can connect to a Unix socket may everything, and whoever comes by
TCP may write. With the first rule, rules alone count; the daemon's own user and root may everything all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import NamedTuple, Optional, TypeVar, Union

from vspcd.core.address import Network
from vspcd.core.names import Named
from vspcd.core.patterns import ANYBODY, Chosen, compiled, matches

NOTHING, WATCH, WRITE, TAKE_OVER, ADMINISTER = range(5)
RIGHTS = ("nothing", "watch", "write", "takeover", "administer")
UNIX_DEFAULT, TCP_DEFAULT = ADMINISTER, WRITE
Address = Union[IPv4Address, IPv6Address]
Console = TypeVar("Console", bound=Named)
NONE_KNOWN: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Who:
    """Somebody: a user of this machine, or a peer at an address, perhaps with the name in a certificate."""

    uid: Optional[int] = None
    pid: Optional[int] = None
    groups: list[int] = field(default_factory=list)
    user: str = ""
    address: str = ""
    certificate: Optional[str] = None

    @property
    def origin(self) -> str:
        """Where from, in words: a process or an address."""
        return self.address if self.uid is None else f"uid {self.uid}, pid {self.pid}"

    @property
    def name(self) -> str:
        """Whom to blame, in words."""
        return self.certificate or self.user or self.origin

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]")


class Rule(NamedTuple):
    """Whoever is named in any of the first four may so much on the consoles that the patterns mean."""

    users: tuple[str, ...]
    groups: tuple[str, ...]
    addresses: tuple[Network, ...]
    certificates: tuple[str, ...]
    consoles: tuple[str, ...]
    may: int


class Rights:
    """``users`` and ``groups`` have the numbers of those that rules name; ``privileged`` users may everything."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        users: Mapping[str, int] = NONE_KNOWN,
        groups: Mapping[str, int] = NONE_KNOWN,
        privileged: frozenset[int] = frozenset({0}),
    ) -> None:
        self._rules = rules
        self._users = users
        self._groups = groups
        self._privileged = privileged

    def is_privileged(self, who: Who) -> bool:
        """Root, or the daemon's own user."""
        return who.uid is not None and who.uid in self._privileged

    def on(self, who: Who, console: Named) -> int:
        """The right that somebody has on a console."""
        return self._highest(who, lambda rule: matches(rule.consoles, console))

    def overall(self, who: Who) -> int:
        """The right that somebody has on all consoles there are and will be: for what concerns the daemon."""
        return self._highest(who, lambda rule: rule.consoles == (ANYBODY,))

    def those(self, who: Who, consoles: Iterable[Console], right: int) -> list[Console]:
        """Those of the consoles on which somebody has this right: ``on``, for many at a time."""
        return list(filter(self.has(who, right), consoles))

    def has(self, who: Who, right: int) -> Callable[[Named], bool]:
        """What tells of a console whether somebody has this right on it: for many, a few at a time."""
        blanket = self._without_rules(who)
        if blanket is not None:
            return lambda _: blanket >= right
        return Chosen(rule.consoles for rule in self._rules_for(who) if rule.may >= right).has

    def _highest(self, who: Who, fits: Callable[[Rule], bool]) -> int:
        blanket = self._without_rules(who)
        if blanket is not None:
            return blanket
        return max((rule.may for rule in self._rules_for(who) if fits(rule)), default=NOTHING)

    def _without_rules(self, who: Who) -> Optional[int]:
        """What somebody may everywhere, whatever rules say; None of somebody for whom they count."""
        if self.is_privileged(who):
            return ADMINISTER
        if not self._rules:
            return TCP_DEFAULT if who.uid is None else UNIX_DEFAULT
        return None

    def _rules_for(self, who: Who) -> list[Rule]:
        if who.uid is not None:
            return [rule for rule in self._rules if self._means_user(rule, who)]
        address = _address(who.host)
        return [rule for rule in self._rules if _means(rule, address, who.certificate)]

    def _means_user(self, rule: Rule, who: Who) -> bool:
        if ANYBODY in rule.users or any(_number(self._users, name) == who.uid for name in rule.users):
            return True
        return any(_number(self._groups, name) in who.groups for name in rule.groups)


def _number(known: Mapping[str, int], name: str) -> Optional[int]:
    return int(name) if name.isdecimal() else known.get(name)


def _address(host: str) -> Optional[Address]:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _means(rule: Rule, address: Optional[Address], certificate: Optional[str]) -> bool:
    """Whether a rule means somebody who has come by TCP."""
    if address is not None and any(
        address.version == network.version and address in network for network in rule.addresses
    ):
        return True
    return certificate is not None and any(
        compiled(each).fullmatch(certificate) for each in rule.certificates
    )
