"""Telnet: the stream cut into tokens (RFC 854, 855) and option negotiation by the Q method (RFC 1143).

Owns the state of the options of one connection. Never touches a socket, keeps no unparsed bytes, and
knows nothing of what the options mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Optional, Union

from vspcd.proto.errors import LocalError, PeerError

SE, NOP, DM, BREAK, IP, AO, AYT, EC, EL, GA, SB, WILL, WONT, DO, DONT, IAC = range(240, 256)

BINARY, ECHO, SGA, STATUS, TTYPE, NAWS, LINEMODE = 0, 1, 3, 5, 24, 31, 34
AUTHENTICATION, COM_PORT, VMWARE = 37, 44, 232

SUBNEGOTIATION_LIMIT = 16384

_LONE, _PAIR = b"\xff", b"\xff\xff"
# Counted, since an open repeat over 256 KiB of FF would take megabytes of the matcher's stack.
_DATA = re.compile(rb"[^\xff]*(?:\xff\xff[^\xff]*){0,4096}")
_VERBS = frozenset((WILL, WONT, DO, DONT))


class Negotiation(NamedTuple):
    verb: int
    option: int


class Command(NamedTuple):
    code: int


class Subnegotiation(NamedTuple):
    """The payload's doubled FF bytes are single again."""

    option: int
    payload: bytes


Token = Union[bytes, Negotiation, Command, Subnegotiation]
Input = Union[bytes, bytearray]


def tokens(
    data: Input, limit: int = SUBNEGOTIATION_LIMIT, most: Optional[int] = None
) -> list[tuple[Token, int]]:
    """All complete tokens at the front of data, or `most` of them, each with the offset just behind it.

    An incomplete tail is not covered: offer it again with more bytes behind it. A subnegotiation of more
    than `limit` wire bytes, or one that holds IAC and then neither IAC nor SE, is a PeerError. The error
    is raised when the fault is the first thing in data; good tokens ahead of it are returned before, so
    that however a stream is cut, the same tokens come out of it.
    """
    found: list[tuple[Token, int]] = []
    at = 0
    while at < len(data) and (most is None or len(found) < most):
        try:
            token, at = _first(data, at, limit)
        except PeerError:
            if found:
                break
            raise
        if token is None:
            break
        found.append((token, at))
    return found


def _first(data: Input, at: int, limit: int) -> tuple[Optional[Token], int]:
    if data[at] != IAC or data[at + 1 : at + 2] == _LONE:
        end = _data_end(data, at)
        return _undoubled(data[at:end]), end
    if len(data) < at + 2:
        return None, at
    code = data[at + 1]
    if code == SB:
        return _subnegotiation(data, at, limit)
    if code not in _VERBS:
        return Command(code), at + 2
    if len(data) < at + 3:
        return None, at
    return Negotiation(code, data[at + 2]), at + 3


def _subnegotiation(data: Input, at: int, limit: int) -> tuple[Optional[Subnegotiation], int]:
    if len(data) < at + 3:
        return None, at
    option, start = data[at + 2], at + 3
    # An option number 255 is an IAC itself, and arrives doubled like any other.
    if option == IAC:
        raise PeerError("subnegotiation of option 255")
    end = _data_end(data, start)
    if end - start > limit:
        raise PeerError(f"subnegotiation of option {option} is longer than {limit} bytes")
    if len(data) < end + 2:
        return None, at
    if data[end + 1] != SE:
        raise PeerError(f"subnegotiation of option {option} holds IAC {data[end + 1]}")
    return Subnegotiation(option, _undoubled(data[start:end])), end + 2


def _data_end(data: Input, at: int) -> int:
    """The offset of the first IAC from `at` on that is not one of a pair; without one, the end of data."""
    # memchr is 40 times faster than the expression, and most chunks hold no IAC.
    end = data.find(_LONE, at)
    if end < 0:
        return len(data)
    while data[end : end + 2] == _PAIR:
        end = _matched_to(data, end)
    return end


def _matched_to(data: Input, at: int) -> int:
    matched = _DATA.match(data, at)
    return matched.end() if matched else at


def _undoubled(run: Input) -> bytes:
    return bytes(run.replace(_PAIR, _LONE) if _LONE in run else run)


def escape(data: bytes) -> bytes:
    return data.replace(_LONE, _PAIR)


def escaped_prefix(data: bytes, wire_count: int) -> tuple[int, bool]:
    """How many bytes of data the first wire_count of escape(data) cover, and whether one more is half out."""
    wire = escape(data)
    if not 0 <= wire_count <= len(wire):
        raise LocalError(f"{wire_count} bytes went out of {len(wire)}")
    iacs = wire.count(_LONE, 0, wire_count)
    return wire_count - (iacs + 1) // 2, iacs % 2 == 1


def negotiation(verb: int, option: int) -> bytes:
    return bytes((IAC, verb, option))


def command(code: int) -> bytes:
    return bytes((IAC, code))


def subnegotiation(option: int, payload: bytes) -> bytes:
    return bytes((IAC, SB, option)) + escape(payload) + bytes((IAC, SE))


class Change(NamedTuple):
    """An option went on or off. side is 'local' (we perform it) or 'remote' (the peer does)."""

    side: str
    option: int
    enabled: bool


NO, YES, WANTNO, WANTYES = "no", "yes", "wantno", "wantyes"
# The queue bit of RFC 1143: once the running request is answered, the opposite one follows.
WANTNO_OPPOSITE, WANTYES_OPPOSITE = "wantno-opposite", "wantyes-opposite"
_STATES = frozenset((NO, YES, WANTNO, WANTYES, WANTNO_OPPOSITE, WANTYES_OPPOSITE))

# (state, the peer's word) -> (new state, our word): on is WILL or DO, off is WONT or DONT, None is silence.
# The one cell that depends on our will, ("no", on), is in receive().
_RECEIVED: dict[tuple[str, bool], tuple[str, Optional[bool]]] = {
    (YES, True): (YES, None),
    (WANTNO, True): (NO, None),
    (WANTNO_OPPOSITE, True): (YES, None),
    (WANTYES, True): (YES, None),
    (WANTYES_OPPOSITE, True): (WANTNO, False),
    (NO, False): (NO, None),
    (YES, False): (NO, False),
    (WANTNO, False): (NO, None),
    (WANTNO_OPPOSITE, False): (WANTYES, True),
    (WANTYES, False): (NO, None),
    (WANTYES_OPPOSITE, False): (NO, None),
}
# (state, what we want) -> the same.
_WANTED: dict[tuple[str, bool], tuple[str, Optional[bool]]] = {
    (NO, True): (WANTYES, True),
    (YES, True): (YES, None),
    (WANTNO, True): (WANTNO_OPPOSITE, None),
    (WANTNO_OPPOSITE, True): (WANTNO_OPPOSITE, None),
    (WANTYES, True): (WANTYES, None),
    (WANTYES_OPPOSITE, True): (WANTYES, None),
    (NO, False): (NO, None),
    (YES, False): (WANTNO, False),
    (WANTNO, False): (WANTNO, None),
    (WANTNO_OPPOSITE, False): (WANTNO, None),
    (WANTYES, False): (WANTYES_OPPOSITE, None),
    (WANTYES_OPPOSITE, False): (WANTYES_OPPOSITE, None),
}
_ENABLED = frozenset((YES, WANTNO, WANTNO_OPPOSITE))
_HEARD = {WILL: ("remote", True), WONT: ("remote", False), DO: ("local", True), DONT: ("local", False)}
_SPOKEN = {("local", True): WILL, ("local", False): WONT, ("remote", True): DO, ("remote", False): DONT}


class Options:
    """The options of one connection. local and remote: what we agree to when the peer asks for it."""

    def __init__(self, local: frozenset[int], remote: frozenset[int]) -> None:
        self._agreed = {"local": local, "remote": remote}
        self._states: dict[str, dict[int, str]] = {"local": {}, "remote": {}}
        self._answered: set[int] = set()
        self._output = bytearray()

    def ask_local(self, option: int) -> None:
        self._want("local", option, True)

    def ask_remote(self, option: int) -> None:
        self._want("remote", option, True)

    def drop_local(self, option: int) -> None:
        self._want("local", option, False)

    def drop_remote(self, option: int) -> None:
        self._want("remote", option, False)

    def local(self, option: int) -> bool:
        return self._state("local", option) in _ENABLED

    def remote(self, option: int) -> bool:
        return self._state("remote", option) in _ENABLED

    def answered(self, option: int) -> bool:
        """Whether the peer has said anything at all about this option."""
        return option in self._answered

    def receive(self, heard: Negotiation) -> list[Change]:
        side, on = _HEARD[heard.verb]
        state = self._state(side, heard.option)
        self._answered.add(heard.option)
        if (state, on) == (NO, True):
            agreed = heard.option in self._agreed[side]
            return self._move(side, heard.option, YES if agreed else NO, agreed)
        return self._move(side, heard.option, *_RECEIVED[state, on])

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    def snapshot(self) -> dict[str, object]:
        states = {
            side: {str(option): state for option, state in self._states[side].items()}
            for side in self._states
        }
        agreed = {side: sorted(options) for side, options in self._agreed.items()}
        return {
            "agreed": agreed,
            "states": states,
            "answered": sorted(self._answered),
            "output": self._output.hex(),
        }

    @classmethod
    def restore(cls, saved: dict[str, object]) -> Options:
        try:
            return cls._restored(saved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LocalError(f"not a snapshot of telnet options: {error!r}") from error

    @classmethod
    def _restored(cls, saved: dict[str, object]) -> Options:
        agreed, states, answered, output = (saved[key] for key in ("agreed", "states", "answered", "output"))
        if not (isinstance(agreed, dict) and isinstance(states, dict) and isinstance(answered, list)):
            raise TypeError(saved)
        if not isinstance(output, str):
            raise TypeError(output)
        options = cls(_numbers(agreed["local"]), _numbers(agreed["remote"]))
        options._states = {side: _checked_states(states[side]) for side in ("local", "remote")}
        options._answered = set(_numbers(answered))
        options._output = bytearray.fromhex(output)
        return options

    def _state(self, side: str, option: int) -> str:
        return self._states[side].get(option, NO)

    def _want(self, side: str, option: int, on: bool) -> None:
        self._move(side, option, *_WANTED[self._state(side, option), on])

    def _move(self, side: str, option: int, state: str, say: Optional[bool]) -> list[Change]:
        before = self._state(side, option) in _ENABLED
        self._states[side][option] = state
        if say is not None:
            self._output += negotiation(_SPOKEN[side, say], option)
        after = state in _ENABLED
        return [] if before == after else [Change(side, option, after)]


def _numbers(values: Iterable[object]) -> frozenset[int]:
    numbers = frozenset(value for value in values if isinstance(value, int) and 0 <= value <= 255)
    if len(numbers) != len(list(values)):
        raise ValueError(values)
    return numbers


def _checked_states(states: dict[str, str]) -> dict[int, str]:
    checked = {int(option): state for option, state in states.items()}
    _numbers(list(checked))
    if not _STATES.issuperset(checked.values()):
        raise ValueError(states)
    return checked
