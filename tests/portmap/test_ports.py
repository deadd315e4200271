"""Who gets which port, and when a console is forgotten."""

from __future__ import annotations

import time
from typing import Optional

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vspcd.portmap.ports import LAST_PORT, Ports, PortsExhausted, PortTaken


def nobody(console: str) -> bool:
    return False


# Assigning


def test_ports_are_given_from_the_first_upward() -> None:
    ports = Ports(50000)
    assert [ports.assign(console) for console in "abc"] == [50000, 50001, 50002]


def test_a_console_keeps_its_port() -> None:
    ports = Ports(50000)
    first = ports.assign("a")
    ports.assign("b")
    assert ports.assign("a") == first


def test_a_forgotten_consoles_port_is_given_again() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.assign("b")
    ports.forget("a")
    assert (ports.assign("c"), ports.port("a"), ports.owner(50000)) == (50000, None, "c")


def test_forgetting_an_unknown_console_changes_nothing() -> None:
    ports = Ports(50000)
    ports.forget("a")
    assert ports.assign("b") == 50000


def test_a_busy_port_is_passed_over() -> None:
    ports = Ports(50000)
    assert ports.busy(50000) is None
    assert ports.assign("a") == 50001


def test_a_console_whose_port_is_busy_moves_to_the_next_free_one() -> None:
    ports = Ports(50000)
    for console, port in (("a", 50010), ("b", 50011)):
        ports.fix(console, port)
    assert ports.busy(50010) == "a"
    assert ports.port("a") is None
    assert ports.assign("a") == 50012


def test_a_console_that_finds_nothing_above_moves_to_the_first_free_one() -> None:
    ports = Ports(50000)
    ports.fix("a", LAST_PORT)
    ports.busy(LAST_PORT)
    assert ports.assign("a") == 50000


def test_a_busy_port_is_not_given_again_when_its_console_is_forgotten() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.busy(50000)
    ports.forget("a")
    assert ports.assign("b") == 50001


def test_busy_ports_can_be_tried_again() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.busy(50001)
    ports.retry_busy()
    assert [ports.assign("b"), ports.assign("a")] == [50001, 50000]


def test_ports_are_exhausted_at_the_last_one() -> None:
    ports = Ports(LAST_PORT - 1)
    assert [ports.assign("a"), ports.assign("b")] == [LAST_PORT - 1, LAST_PORT]
    with pytest.raises(PortsExhausted, match="no port is free from 65534 to 65535"):
        ports.assign("c")


def test_known_consoles_are_served_when_ports_are_exhausted() -> None:
    ports = Ports(LAST_PORT)
    ports.assign("a")
    with pytest.raises(PortsExhausted):
        ports.assign("b")
    ports.forget("a")
    assert ports.assign("b") == LAST_PORT


# Fixing


def test_a_fixed_port_is_sticky_wherever_it_is() -> None:
    ports = Ports(50000)
    ports.fix("a", 700)
    assert (ports.assign("a"), ports.owner(700)) == (700, "a")


def test_a_fixed_port_frees_the_one_before() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.fix("a", 50005)
    assert ports.assign("b") == 50000


def test_a_port_of_another_console_cannot_be_fixed() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.assign("b")
    with pytest.raises(PortTaken, match="port 50000 belongs to console a"):
        ports.fix("b", 50000)
    assert (ports.port("a"), ports.port("b")) == (50000, 50001)


def test_fixing_the_same_port_again_changes_nothing() -> None:
    ports = Ports(50000)
    ports.fix("a", 50000)
    ports.fix("a", 50000)
    assert (ports.assign("a"), ports.assign("b")) == (50000, 50001)


def test_a_busy_port_that_was_got_after_all_is_a_consoles() -> None:
    ports = Ports(50000)
    ports.busy(50000)
    ports.fix("a", 50000)
    ports.retry_busy()
    assert (ports.port("a"), ports.assign("b")) == (50000, 50001)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_cannot_be_fixed(port: int) -> None:
    with pytest.raises(ValueError, match="is no port"):
        Ports(50000).fix("a", port)


def test_without_a_first_port_the_system_is_asked_once_per_console() -> None:
    ports = Ports(0)
    assert ports.assign("a") == 0
    ports.fix("a", 41234)
    assert ports.assign("a") == 41234
    ports.busy(41234)
    assert ports.assign("a") == 0


# Expiry


def test_a_console_expires_after_its_time_and_frees_its_port() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.seen("a", 100.0)
    assert ports.expire(109.0, 10.0, nobody) == []
    assert ports.expire(110.0, 10.0, nobody) == ["a"]
    assert (ports.port("a"), ports.assign("b")) == (None, 50000)


def test_the_last_time_seen_counts() -> None:
    ports = Ports(50000)
    ports.seen("a", 100.0)
    ports.seen("a", 105.0)
    assert ports.expire(112.0, 10.0, nobody) == []
    assert ports.expire(115.0, 10.0, nobody) == ["a"]


def test_a_console_in_use_counts_as_seen_now() -> None:
    ports = Ports(50000)
    ports.seen("a", 100.0)
    assert ports.expire(111.0, 10.0, lambda console: console == "a") == []
    assert ports.expire(120.0, 10.0, nobody) == []
    assert ports.expire(121.0, 10.0, nobody) == ["a"]


def test_a_console_that_was_never_seen_counts_from_the_first_look() -> None:
    ports = Ports(50000)
    ports.assign("a")
    ports.fix("b", 50005)
    assert ports.expire(1000.0, 10.0, nobody) == []
    assert sorted(ports.expire(1010.0, 10.0, nobody)) == ["a", "b"]


def test_a_console_expires_once() -> None:
    ports = Ports(50000)
    ports.seen("a", 100.0)
    assert [ports.expire(200.0, 10.0, nobody) for _ in range(2)] == [["a"], []]


def test_a_console_that_came_again_has_its_own_time() -> None:
    ports = Ports(50000)
    ports.seen("a", 100.0)
    ports.forget("a")
    ports.seen("a", 50.0)
    assert ports.expire(60.0, 10.0, nobody) == ["a"]


def test_those_in_use_are_asked_for_once_in_a_period() -> None:
    ports = Ports(50000)
    ports.seen("a", 100.0)
    asked: list[str] = []

    def in_use(console: str) -> bool:
        asked.append(console)
        return True

    for now in range(101, 121):
        ports.expire(float(now), 10.0, in_use)
    assert asked == ["a", "a"]


# At size


def test_sixteen_thousand_consoles_cost_microseconds_each() -> None:
    ports = Ports(49000)
    names = [f"console {number}" for number in range(16000)]
    start = time.process_time()
    for name in names:
        ports.assign(name)
        ports.seen(name, 0.0)
    for name in names:
        ports.forget(name)
        ports.assign(name)
    assert time.process_time() - start < 2.0
    assert sorted(ports.assign(name) for name in names) == list(range(49000, 65000))


# Against a model that is slow and plain

CONSOLES = st.sampled_from("abcdef")
FIRST = LAST_PORT - 4


class Rules(RuleBasedStateMachine):
    """Five ports, six consoles, and a dictionary of who has what."""

    def __init__(self) -> None:
        super().__init__()
        self.ports = Ports(FIRST)
        self.owned: dict[str, int] = {}
        self.busy_ports: set[int] = set()
        self.last_seen: dict[str, Optional[float]] = {}
        self.now = 0.0

    def free(self) -> list[int]:
        taken = self.busy_ports.union(self.owned.values())
        return [port for port in range(FIRST, LAST_PORT + 1) if port not in taken]

    @rule(console=CONSOLES)
    def assign(self, console: str) -> None:
        free = self.free()
        self.last_seen.setdefault(console, None)
        if console not in self.owned and not free:
            with pytest.raises(PortsExhausted):
                self.ports.assign(console)
            return
        port = self.ports.assign(console)
        assert port == self.owned[console] if console in self.owned else port in free
        self.owned[console] = port

    @rule(console=CONSOLES, port=st.integers(FIRST - 2, LAST_PORT))
    def fix(self, console: str, port: int) -> None:
        if any(owner != console and owned == port for owner, owned in self.owned.items()):
            with pytest.raises(PortTaken):
                self.ports.fix(console, port)
            return
        self.ports.fix(console, port)
        self.owned[console] = port
        self.busy_ports.discard(port)
        self.last_seen.setdefault(console, None)

    @rule(port=st.integers(FIRST - 2, LAST_PORT))
    def busy(self, port: int) -> None:
        loser = next((console for console, owned in self.owned.items() if owned == port), None)
        assert self.ports.busy(port) == loser
        if loser is not None:
            del self.owned[loser]
        self.busy_ports.add(port)

    @rule()
    def retry_busy(self) -> None:
        self.ports.retry_busy()
        self.busy_ports.clear()

    @rule(console=CONSOLES)
    def forget(self, console: str) -> None:
        self.ports.forget(console)
        self.owned.pop(console, None)
        self.last_seen.pop(console, None)

    @rule(console=CONSOLES, ago=st.integers(0, 8))
    def seen(self, console: str, ago: int) -> None:
        self.ports.seen(console, self.now - ago)
        self.last_seen[console] = self.now - ago

    @rule(passed=st.integers(0, 7), users=st.sets(CONSOLES))
    def expire(self, passed: int, users: set[str]) -> None:
        self.now += passed
        gone = self.ports.expire(self.now, 5.0, users.__contains__)
        ages = {name: self.now if seen is None else seen for name, seen in self.last_seen.items()}
        due = {name for name, seen in ages.items() if seen + 5.0 <= self.now}
        assert sorted(gone) == sorted(due - users)
        self.last_seen = {name: self.now if name in due else seen for name, seen in ages.items()}
        for name in gone:
            self.owned.pop(name, None)
            del self.last_seen[name]

    @invariant()
    def no_two_consoles_share_a_port_and_each_keeps_its_own(self) -> None:
        assert {name: self.ports.port(name) for name in self.owned} == self.owned
        assert len(set(self.owned.values())) == len(self.owned)
        assert not self.busy_ports.intersection(self.owned.values())


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
