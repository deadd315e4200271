"""A command for a plain shell behind a console, wrapped so that its output and its exit status can be told for sure.

Pure. Does: writes the lines that are typed; finds what they print in whatever else the console shows.
Owns: the markers of one command, which nobody can guess.
Never: types or waits.

A marker is ``vspc`` + 16 random digits + ``=`` + a word, on a line of its own. What is typed holds the parts apart from
one another, as the arguments of a printf, so no echo is a marker, however the shell wraps and repaints it. The command
itself goes as octal escapes wherever a shell, a line editor or a terminal could see something else in it: quotes, tabs,
line ends, exclamation marks, bytes beyond ASCII.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

LINE = 600
"""Characters of a command, as octal escapes, that are typed in one line: some line editors take 1023 in all."""

COMMAND_LIMIT = 65536
KILL_LINE, ENTER = b"\x15", b"\r"
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /._-+=:,@")
_PRINT = "printf '\\nvspc%s=%s\\n'"
_RETURNS = re.compile(rb"\r+\n")


def command_text(words: Sequence[str]) -> str:
    """One word is a shell's command line; of several, each is a word for the shell."""
    return words[0] if len(words) == 1 else " ".join(shlex.quote(word) for word in words)


class Status(NamedTuple):
    """What was found of a command: what it has printed since the last look, and its exit status once it has ended."""

    output: bytes
    exit: Optional[int]


class Marker:
    """A line that will be printed, and that the typed one does not contain."""

    def __init__(self) -> None:
        self.key = os.urandom(8).hex()
        self.begin = b"vspc" + self.key.encode() + b"="
        self._whole = re.compile(rb"\n?" + self.begin + rb"([a-z0-9]{1,10})\n")

    def printed(self, word: str) -> str:
        """The shell's words that print it."""
        return f"{_PRINT} {self.key} {word}"

    def search(self, data: bytes) -> Optional[re.Match[bytes]]:
        """Where it is, with the line end before it; its word is group 1."""
        return self._whole.search(data)


class ShellScript:
    """One command. Feed it what the console shows."""

    def __init__(self, command: str) -> None:
        self._command = command.encode("utf-8", "surrogateescape")
        self._begin, self._end = Marker(), Marker()
        self._data = b""
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the shell has begun with the command."""
        return self._begun

    def lines(self) -> Iterator[tuple[bytes, Optional[Marker]]]:
        """What is typed, line by line; each but the last one has a marker that tells when the next may come."""
        pieces = _octal(self._command)
        if len(pieces) == 1:
            yield self._last(f"'{pieces[0]}'"), None
            return
        for number, piece in enumerate(pieces):
            before = '"$vspc_c"' if number else ""
            marker = Marker()
            yield _line(f"vspc_c={before}'{piece}'; {marker.printed('next')}"), marker
        yield self._last('"$vspc_c"'), None

    def _last(self, text: str) -> bytes:
        run = f'( eval "$(printf %b {text})" ) </dev/null'
        # The status comes twice: a kernel's message may break into one of them.
        end = f"vspc_s=$?; {self._end.printed('$vspc_s')}; {self._end.printed('$vspc_s')}"
        return _line(f"{self._begin.printed('begin')}; {run}; {end}")

    def feed(self, data: bytes) -> Status:
        """The console shows this."""
        self._data = _RETURNS.sub(b"\n", self._data + data)
        if not self._begun:
            found = self._begin.search(self._data)
            if found is None:
                self._data = self._data[-4096:]
                return Status(b"", None)
            self._begun = True
            self._data = self._data[found.end() :]
        return self._after_begin()

    def _after_begin(self) -> Status:
        end = self._end.search(self._data)
        if end is not None and end[1].isdigit():
            return Status(self._data[: end.start()], int(end[1]) & 0xFF)
        held = self._held()
        output, self._data = self._data[: len(self._data) - held], self._data[len(self._data) - held :]
        return Status(output, None)

    def _held(self) -> int:
        """How many bytes at the end may be the beginning of the marker, or of a line end that belongs to it."""
        at = self._data.rfind(self._end.begin)
        if at >= 0:
            return len(self._data) - at + (self._data[at - 1 : at] == b"\n")
        whole = b"\n" + self._end.begin
        returns = len(self._data) - len(self._data.rstrip(b"\r"))
        if returns:
            return returns
        return next((size for size in range(len(whole), 0, -1) if self._data.endswith(whole[:size])), 0)


def _line(text: str) -> bytes:
    """With a blank in front, which keeps it out of the history of many shells."""
    return b" " + text.encode("ascii") + ENTER


def _octal(data: bytes) -> list[str]:
    """In pieces of LINE characters at most, each for printf's %b."""
    pieces = [""]
    for byte in data:
        code = chr(byte) if byte in _SAFE else f"\\0{byte:03o}"
        if len(pieces[-1]) + len(code) > LINE:
            pieces.append("")
        pieces[-1] += code
    return pieces
