"""What the rules of a packet filter do to a new TCP connection to some port, from some other machine.

Does: goes through the chains of nftables that see what comes in, rule by rule, as the kernel does.
Pure. Owns: what of a rule is understood.
Never: takes a rule that it does not understand for one that fits, or for one that does not: that is a doubt, and told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

HOOKS = ("ingress", "prerouting", "input")
DROPS, PASSES, DEPENDS = "drops", "passes", "depends"
FINAL = {"accept": PASSES, "drop": DROPS, "reject": DROPS}
NO_MATTER = frozenset({"counter", "log", "comment", "mangle", "notrack", "ct helper", "continue"})
OTHERS = frozenset({"udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "igmp", "arp"})
"""Protocols that such a packet is not of."""
UNKNOWN = object()
ABSENT = object()
"""A field that such a packet has not got."""

Object = Mapping[str, Any]


class Chain(NamedTuple):
    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Judgement(NamedTuple):
    """What one chain does; ``rules`` are the numbers (handles) of those that decide, none for its policy."""

    chain: Chain
    what: str
    rules: Sequence[int] = ()


class Ruleset:
    """What ``nft --json list ruleset`` prints. Raises ValueError for what is not that."""

    def __init__(self, text: str) -> None:
        try:
            objects = json.loads(text)["nftables"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"no rules of nftables: {error}") from None
        self._chains = {_chain(one["chain"], "name"): one["chain"] for one in objects if "chain" in one}
        self._sets = {_chain(one["set"], "name"): one["set"] for one in objects if "set" in one}
        self._rules: dict[Chain, list[Object]] = {}
        for one in objects:
            if "rule" in one:
                self._rules.setdefault(_chain(one["rule"], "chain"), []).append(one["rule"])

    def judged(self, port: int) -> Iterator[Judgement]:
        """What each chain does that sees what comes in, but for those that let it pass."""
        for chain, about in self._chains.items():
            if about.get("hook") in HOOKS and about.get("type", "filter") == "filter":
                found = _Walk(self._rules, self._sets, port).whole(chain, about.get("policy", "accept"))
                if found.what != PASSES:
                    yield found


def _chain(about: Object, key: str) -> Chain:
    return Chain(str(about.get("family")), str(about.get("table")), str(about.get(key)))


class _Walk:
    """A packet's way through a chain. ``doubts``: rules that may decide, and how."""

    def __init__(
        self, rules: Mapping[Chain, Sequence[Object]], sets: Mapping[Chain, Object], port: int
    ) -> None:
        self._rules = rules
        self._sets = sets
        self._port = port
        self._doubts: list[tuple[str, int]] = []
        self._inside: list[Chain] = []

    def whole(self, chain: Chain, policy: str) -> Judgement:
        found = self._through(chain)
        what, rules = found if found else (FINAL.get(policy, DEPENDS), [])
        against = [handle for how, handle in self._doubts if how != what]
        return Judgement(chain, DEPENDS, against) if against else Judgement(chain, what, rules)

    def _through(self, chain: Chain) -> Optional[tuple[str, list[int]]]:
        """How it ends in this chain; None: it comes out at the other end."""
        if chain in self._inside:
            return None
        self._inside.append(chain)
        try:
            for rule in self._rules.get(chain, ()):
                fits, verdict = self._read(rule)
                if fits is False or verdict is None:
                    continue
                handle = int(rule.get("handle", 0))
                word, target = verdict
                if word == "return" and fits:
                    return None
                end = self._end(chain, word, target, handle)
                if fits and end:
                    return end
                if end:
                    self._doubts.append((end[0], handle))
                if fits and word == "goto":
                    return None
        finally:
            self._inside.pop()
        return None

    def _end(self, chain: Chain, word: str, target: str, handle: int) -> Optional[tuple[str, list[int]]]:
        if word in ("jump", "goto"):
            return self._through(chain._replace(name=target))
        return FINAL.get(word, DEPENDS), [handle]

    def _read(self, rule: Object) -> tuple[Optional[bool], Optional[tuple[str, str]]]:
        """Whether a rule fits (None: that is not known), and its verdict."""
        fits: Optional[bool] = True
        for statement in rule.get("expr", ()):
            for word, what in statement.items():
                if word in FINAL or word in ("jump", "goto", "return", "queue"):
                    return fits, (word, str((what or {}).get("target", "")))
                if word == "vmap":
                    found, verdict = self._mapped(what)
                    return (found if fits else fits), verdict
                if word not in NO_MATTER:
                    this = self._fits(what) if word == "match" else None
                    if this is False:
                        return False, None
                    fits = fits if this else None
        return fits, None

    def _mapped(self, what: Object) -> tuple[Optional[bool], Optional[tuple[str, str]]]:
        value, pairs = self._value(what.get("key")), what.get("data")
        if value in (UNKNOWN, ABSENT) or not isinstance(pairs, Mapping):
            return None, ("queue", "")
        for key, verdict in pairs.get("set", ()):
            if self._is(value, key):
                ((word, target),) = verdict.items()
                return True, (word, str((target or {}).get("target", "")))
        return False, None

    def _fits(self, match: Object) -> Optional[bool]:
        left, right = match.get("left"), match.get("right")
        value = self._value(left)
        if value is ABSENT:
            return False
        if value is UNKNOWN:
            # It comes from another machine: not over the loopback.
            over = isinstance(left, Mapping) and (left.get("meta") or {}).get("key") in ("iif", "iifname")
            return match.get("op") == "!=" if over and right == "lo" else None
        found = self._is(value, right)
        return found if found is None or match.get("op") != "!=" else not found

    def _value(self, left: object) -> object:
        """What the packet has in a field."""
        if not isinstance(left, Mapping):
            return UNKNOWN
        payload = left.get("payload") or {}
        place = (payload.get("protocol"), payload.get("field"))
        if "ct" in left or "meta" in left:
            place = ("ct" if "ct" in left else "meta", (left.get("ct") or left.get("meta") or {}).get("key"))
        known: dict[tuple[object, object], object] = {
            ("tcp", "dport"): self._port,
            ("th", "dport"): self._port,
            ("ip", "protocol"): "tcp",
            ("ip6", "nexthdr"): "tcp",
            ("meta", "l4proto"): "tcp",
            ("ct", "state"): "new",
        }
        return known.get(place, ABSENT if place[0] in OTHERS else UNKNOWN)

    def _is(self, value: object, right: object) -> Optional[bool]:
        """Whether a value is this, or among these; None: that is not known."""
        if isinstance(right, str) and right.startswith("@"):
            named = next((one for chain, one in self._sets.items() if chain.name == right[1:]), None)
            right = {} if named is None else named.get("elem", [])
        if isinstance(right, Mapping):
            return self._is_one_of(value, right)
        if isinstance(right, list):
            found = [self._is(value, one) for one in right]
            return True if True in found else None if None in found else False
        if isinstance(value, int) and not isinstance(right, int):
            return None
        return right in (value, 6) if value == "tcp" else right == value

    def _is_one_of(self, value: object, right: Object) -> Optional[bool]:
        if "range" in right and isinstance(value, int):
            low, high = right["range"]
            return bool(low <= value <= high)
        for key in ("elem", "val", "set"):
            if key in right:
                return self._is(value, right[key])
        return None
