"""The telnet side of a console port: who is there, a telnet client or a raw one, and what it means.

Owns the client's options and whether it has turned out to speak telnet. Never touches a socket or a clock.
A raw client's bytes pass unchanged both ways, for good: a gdb session must not be hit by a telnet byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional, Union

from vspcd.proto import telnet
from vspcd.proto.errors import LocalError, PeerError
from vspcd.proto.telnet import (
    BINARY,
    ECHO,
    IAC,
    NAWS,
    NOP,
    SGA,
    Command,
    Negotiation,
    Options,
    Subnegotiation,
    Token,
)

UNDECIDED, RAW, TELNET = "undecided", "raw", "telnet"

AYT_ANSWER = b"\r\n[vspcd: yes]\r\n"
LOCAL_OPTIONS = frozenset((ECHO, SGA, BINARY))
REMOTE_OPTIONS = frozenset((BINARY, SGA, NAWS))
_OFFERED, _ASKED = (ECHO, SGA, BINARY), (BINARY, SGA)

# What may follow IAC in a telnet client's first two bytes: NOP and everything above it but IAC itself.
_OPENERS = range(NOP, IAC)
# A line's end as a client sends it that has not agreed to BINARY (RFC 854): the console gets Enter.
_LINE_END = re.compile(rb"\r[\n\0]")


@dataclass(frozen=True)
class Break:
    """The user wants a serial break."""


@dataclass(frozen=True)
class Resized:
    """The user's window, in characters; 0 is unknown."""

    columns: int
    rows: int


Input = Union[bytes, Break, Resized, None]


class Terminal:
    """One client. kind is 'undecided' until its first bytes, then 'raw' or 'telnet'."""

    def __init__(self) -> None:
        self.kind = UNDECIDED
        self._options = Options(LOCAL_OPTIONS, REMOTE_OPTIONS)
        self._after_return = False  # the last byte was a CR: its LF or NUL may follow
        self._output = bytearray()

    def offer(self) -> None:
        """Speak first, to a client that is silent. Without effect on options that were offered before."""
        if self.kind == RAW:
            return
        for option in _OFFERED:
            self._options.ask_local(option)
        for option in _ASKED:
            self._options.ask_remote(option)

    def receive(self, data: Union[bytes, bytearray]) -> list[tuple[Input, int]]:
        """The complete tokens at the front of data, each with the offset just behind it.

        bytes are for the VM; None is a token that means nothing to it. What is not covered is to be
        offered again with more behind it. PeerError as in telnet.tokens().
        """
        if self.kind == UNDECIDED:
            self._decide(data)
        if self.kind == UNDECIDED or not data:
            return []
        if self.kind == RAW:
            return [(bytes(data), len(data))]
        return self._receive(data)

    def encode(self, data: bytes) -> bytes:
        return telnet.escape(data) if self.kind == TELNET else data

    def take_output(self) -> bytes:
        self._queue(b"")
        output = bytes(self._output)
        self._output.clear()
        return output

    def snapshot(self) -> dict[str, object]:
        self._queue(b"")
        return {
            "kind": self.kind,
            "options": self._options.snapshot(),
            "after_return": self._after_return,
            "output": self._output.hex(),
        }

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> Terminal:
        """The terminal that snapshot() wrote down; LocalError when it is not one."""
        terminal = cls()
        try:
            terminal._restore(saved)
        except (KeyError, TypeError, ValueError) as error:
            raise LocalError(f"not a snapshot of a terminal: {error!r}") from error
        return terminal

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved["kind"] not in (UNDECIDED, RAW, TELNET) or not isinstance(saved["after_return"], bool):
            raise ValueError(saved)
        self.kind = saved["kind"]
        self._options = Options.restore(saved["options"])
        self._after_return = saved["after_return"]
        self._output = bytearray.fromhex(saved["output"])

    def _decide(self, data: Union[bytes, bytearray]) -> None:
        if not data or data == bytes((IAC,)):
            return
        if data[0] != IAC or data[1] not in _OPENERS:
            self.kind = RAW
            return
        self.kind = TELNET
        # It would stay in line mode if it alone had spoken.
        self.offer()

    def _receive(self, data: Union[bytes, bytearray]) -> list[tuple[Input, int]]:
        received: list[tuple[Input, int]] = []
        for token, end in telnet.tokens(data):
            try:
                received.append((self._take(token), end))
            except PeerError:
                if received:
                    break
                raise
        return received

    def _take(self, token: Token) -> Input:
        if isinstance(token, bytes):
            return self._typed(token)
        if isinstance(token, Command):
            return self._command(token.code)
        if isinstance(token, Subnegotiation):
            return _resized(token.payload) if token.option == NAWS else None
        self._negotiate(token)
        return None

    def _typed(self, run: bytes) -> Optional[bytes]:
        if self._options.remote(BINARY):
            return run
        skip = self._after_return and run[:1] in (b"\n", b"\0")
        rest = run[1:] if skip else run
        self._after_return = rest.endswith(b"\r")
        return _LINE_END.sub(b"\r", rest) or None

    def _command(self, code: int) -> Optional[Break]:
        if code == telnet.AYT:
            self._queue(AYT_ANSWER)
        return Break() if code == telnet.BREAK else None

    def _negotiate(self, token: Negotiation) -> None:
        for change in self._options.receive(token):
            if (change.side, change.option) == ("remote", BINARY):
                self._after_return = False

    def _queue(self, data: bytes) -> None:
        # What the options queued came first.
        self._output += self._options.take_output()
        self._output += data


def _resized(payload: bytes) -> Resized:
    if len(payload) != 4:
        raise PeerError(f"window size of {len(payload)} bytes, not 4")
    return Resized(int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))
