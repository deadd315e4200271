"""A machine that follows a script: lines sent one after the other, and answers awaited.

Does: reads scripts, whose format options.FORMAT tells, and plays them.
Owns: the place in the script and the typing that no ``@expect`` has looked at yet.
Never: runs anything; a script is data.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Callable, NamedTuple

from vspcd.simulator.guests import Guest, Report

FIRST_DELAY = 0.1

REPEAT_DELAY = 0.01
"""Seconds before a script starts again, so that an empty one does not spin."""

HEARD_LIMIT = 65536
"""Bytes of typing that an ``@expect`` looks back on."""


class ScriptError(ValueError):
    """A script that cannot be read; the text names the line."""


class Step(NamedTuple):
    word: str
    text: bytes = b""
    number: float = 0.0


def parse(text: bytes) -> list[Step]:
    """The steps of a script. Raises ScriptError."""
    return [
        step
        for number, line in enumerate(text.splitlines(), 1)
        for step in _steps(line, number)
        if step.word != "#"
    ]


def load(path: Path) -> list[Step]:
    """The steps of a script file. Raises ScriptError and OSError."""
    try:
        return parse(path.read_bytes())
    except ScriptError as error:
        raise ScriptError(f"{path}, {error}") from None


def _steps(line: bytes, number: int) -> list[Step]:
    if not line.startswith(b"@") or line.startswith(b"@@"):
        return [Step("line", (line[1:] if line.startswith(b"@@") else line) + b"\r\n")]
    word, _, rest = line[1:].decode("utf-8", "surrogateescape").partition(" ")
    try:
        return [_STEPS["#" if word.startswith("#") else word](rest)]
    except KeyError:
        raise ScriptError(f"line {number}: no instruction is named @{word}") from None
    except ValueError as error:
        raise ScriptError(f"line {number}: @{word}: {error}") from None


def _text(word: str) -> Callable[[str], Step]:
    def step(rest: str) -> Step:
        if not rest:
            raise ValueError("a text is missing")
        return Step(word, _unescaped(rest))

    return step


def _seconds(word: str) -> Callable[[str], Step]:
    def step(rest: str) -> Step:
        seconds = float(rest)
        if not 0 <= seconds <= 86400:
            raise ValueError(f"{rest} is not a number of seconds up to a day")
        return Step(word, number=seconds)

    return step


def _repeat(rest: str) -> Step:
    return Step("repeat", number=int(rest) if rest.strip() else float("inf"))


_STEPS: dict[str, Callable[[str], Step]] = {
    "expect": _text("expect"),
    "send": _text("send"),
    "delay": _seconds("delay"),
    "pause": _seconds("pause"),
    "repeat": _repeat,
    "#": lambda rest: Step("#"),
}

_ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"e": b"\x1b", b"\\": b"\\"}


def _unescaped(text: str) -> bytes:
    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _escape, text.encode("utf-8", "surrogateescape"))


def _escape(match: re.Match[bytes]) -> bytes:
    word = match[1]
    if word[:1] == b"x" and len(word) == 3:
        return bytes([int(word[1:], 16)])
    if word not in _ESCAPES:
        raise ValueError(f"unknown escape \\{word.decode('utf-8', 'replace')}")
    return _ESCAPES[word]


class Script(Guest):
    """Plays the steps."""

    def __init__(self, report: Report, steps: list[Step], delay: float = FIRST_DELAY) -> None:
        super().__init__(report)
        self._steps = steps
        self._delay = delay
        self._heard = bytearray()
        self._rounds = 0
        self._next = 0
        self._play: dict[str, Callable[[Step], Awaitable[None]]] = {
            "line": self._line,
            "send": self._send,
            "expect": self._expect,
            "delay": self._set_delay,
            "pause": self._pause,
            "repeat": self._start_again,
        }

    async def run(self) -> None:
        listening = asyncio.ensure_future(self._listen())
        try:
            while self._next < len(self._steps):
                step = self._steps[self._next]
                self._next += 1
                await self._play[step.word](step)
            self.report("the script is at its end")
            await listening
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        while True:
            await self.input.ready()
            self._heard += self.input.peek()
            self.input.consume(len(self.input.peek()))
            del self._heard[:-HEARD_LIMIT]

    async def _line(self, step: Step) -> None:
        await asyncio.sleep(self._delay)
        await self._send(step)

    async def _send(self, step: Step) -> None:
        await self.output.put(step.text)

    async def _expect(self, step: Step) -> None:
        while (found := self._heard.find(step.text)) < 0:
            await self.input.changed()
        del self._heard[: found + len(step.text)]

    async def _set_delay(self, step: Step) -> None:
        self._delay = step.number

    async def _pause(self, step: Step) -> None:
        await asyncio.sleep(step.number)

    async def _start_again(self, step: Step) -> None:
        self._rounds += 1
        await asyncio.sleep(REPEAT_DELAY)
        if self._rounds < step.number:
            self._next = 0
