"""Telnet as it stands on the wire: what a VM says, cut anywhere, and what is heard, taken apart.

Written from the protocol's description alone. Owns nothing but buffers; never touches a socket.
"""

from __future__ import annotations

import random
import re
from typing import Callable, Union

from tests.system.vm import (
    COM_PORT,
    DO,
    DONT,
    IAC,
    NAME,
    UNKNOWN_2,
    VMWARE,
    WILL,
    WONT,
    Command,
    Heard,
    Option,
    Sub,
    doubled,
    option,
    sub,
    vmware,
)

NOP, SET_BAUDRATE, ACKNOWLEDGED = 241, 1, 100
NAWS = 31
UNKNOWN_CODES = range(100, 256)  # 255 is doubled, in the question and in the answer
UNKNOWN_OPTIONS = (*range(50, 200), 255)
AWKWARD = b"\xff\xff\xff\xff\xf0\xfa\xe8\xfd\x00\r\n\x11\x13"
LENGTHS = (1, 2, 3, 17, 90, 300, 1460)
ASKING = 0.25  # how often protocol stands between two runs of console bytes
CUT_IN_ESCAPE = 0.5

_TOKEN = re.compile(
    rb"(?P<data>(?:[^\xff]|\xff\xff)+)"
    rb"|\xff(?P<verb>[\xfb-\xfe])(?P<option>.)"
    rb"|\xff\xfa(?P<sub>.)(?P<payload>(?:[^\xff]|\xff\xff)*)\xff\xf0"
    rb"|\xff(?P<command>[\xf0-\xf9])",
    re.DOTALL,
)

Token = Union[bytes, Heard]


def tokens(buffer: bytearray) -> list[Token]:
    """All whole tokens at the front of the buffer, taken out of it. Half a doubled byte stays."""
    found: list[Token] = []
    at = 0
    while match := _TOKEN.match(buffer, at):
        at = match.end()
        found.append(_token(match))
    del buffer[:at]
    return found


def _token(match: re.Match[bytes]) -> Token:
    if match["data"] is not None:
        return match["data"].replace(b"\xff\xff", b"\xff")
    if match["verb"] is not None:
        return Option(match["verb"][0], match["option"][0])
    if match["command"] is not None:
        return Command(match["command"][0])
    return Sub(match["sub"][0], match["payload"].replace(b"\xff\xff", b"\xff"))


def cut(wire: bytearray, chance: random.Random, most: int) -> int:
    """How much of the wire to send next: often the cut is in the middle of an escape or of a message."""
    size = min(len(wire), chance.randint(1, most))
    if chance.random() < CUT_IN_ESCAPE:
        at = wire.find(IAC, chance.randrange(size))
        if 0 <= at < most:
            return min(len(wire), at + chance.randint(1, 4))
    return size


class Speech:
    """What one VM says. ``said`` are the console's bytes, ``due`` the answers, ``wire`` what is not yet sent."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.said = bytearray()
        self.due: list[Heard] = []
        self.wire = bytearray()
        self.name = ""
        self._names = 0

    def go_on(self, size: int, asking: bool = True) -> None:
        """About ``size`` bytes more, with protocol among them."""
        end = len(self.said) + size
        while len(self.said) < end:
            self._say(min(self.chance.choice(LENGTHS), size))
            if asking and self.chance.random() < ASKING:
                self.chance.choice(ASKS)(self)

    def _say(self, count: int) -> None:
        if self.chance.random() < 0.3:
            data = bytes(self.chance.choices(AWKWARD, k=min(count, 90)))
        else:
            data = self.chance.randbytes(count)
        self.said += data
        self.wire += doubled(data)

    def _ask(self, question: bytes, *answers: Heard) -> None:
        self.wire += question
        self.due += answers

    def unknown_code(self) -> None:
        """A subcommand of VMware's extension that nobody knows is answered as such."""
        code = self.chance.choice(UNKNOWN_CODES)
        payload = bytes(self.chance.choices(AWKWARD, k=self.chance.randrange(12)))
        self._ask(vmware(code, payload), Sub(VMWARE, bytes([UNKNOWN_2, code])))

    def unknown_option(self) -> None:
        """An option that nobody knows is declined, each time."""
        number = self.chance.choice(UNKNOWN_OPTIONS)
        verb, answer = self.chance.choice(((DO, WONT), (WILL, DONT)))
        self._ask(option(verb, number), Option(answer, number))

    def line(self) -> None:
        """A change of the serial line is acknowledged."""
        rate = self.chance.randint(1, 0xFFFFFFFF).to_bytes(4, "big")
        self._ask(sub(bytes([SET_BAUDRATE]) + rate, COM_PORT), Sub(COM_PORT, b"\x65" + rate))

    def rename(self) -> None:
        """A new name has no answer."""
        self._names += 1
        self.name = f"vm {self._names} \u00e9"
        self._ask(vmware(NAME, self.name.encode()))

    def noise(self) -> None:
        """What has no meaning to a console."""
        self._ask(bytes([IAC, NOP]) + sub(bytes(self.chance.choices(AWKWARD, k=9)), NAWS))


ASKS: tuple[Callable[[Speech], None], ...] = (
    Speech.unknown_code,
    Speech.unknown_code,
    Speech.unknown_option,
    Speech.line,
    Speech.rename,
    Speech.noise,
)
