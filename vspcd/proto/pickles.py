"""Python's pickles, as far as they hold plain values: text, whole numbers, booleans, None, and dicts of these.

Does: reads values from bytes as they come in, and writes values that Python 2 and Python 3 read.
Owns: the opcodes that are understood. All others, above all those that call or import something, are the peer's fault.
Never: imports ``pickle``, builds anything but the values above, touches a socket.

The opcodes are those of the module pickletools, protocols 0 to 5. A pickle may be cut anywhere: an opcode is dealt with
once all of it is there. Python 2's ``str`` is read as bytes, its ``unicode`` and Python 3's ``str`` as text.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Callable, Optional, Union

from vspcd.proto.errors import PeerError

LIMIT = 8192  # bytes that all pickles of one reader may have
TEXT_LIMIT = 4096
DEPTH_LIMIT = 200  # values that wait for the dict that they belong to
NUMBER_LIMIT = 8  # bytes
HIGHEST = 5

Scalar = Union[str, bytes, int, bool, None]
Value = Union[Scalar, dict[Any, Any]]

Read = Callable[["Reader", bytes], None]


class _Mark:
    """A place on the stack."""


_MARK = _Mark()


class Reader:
    """Reads ``count`` pickles that follow each other; ``values`` are those that are whole."""

    def __init__(self, count: int, limit: int = LIMIT) -> None:
        self.values: list[Value] = []
        self._count = count
        self._limit = limit
        self._data = bytearray()
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    @property
    def complete(self) -> bool:
        """Whether there are as many values as were wanted."""
        return len(self.values) >= self._count

    def receive(self, data: bytes) -> int:
        """How many of these bytes belong to the pickles: all, unless the last one ends among them. Raises PeerError."""
        known = len(self._data)
        self._data += data
        while not self.complete and self._step():
            pass
        if self.complete:
            used = self._at - known
            del self._data[self._at :]
            return used
        if len(self._data) > self._limit:
            raise PeerError(f"pickles of more than {self._limit} bytes")
        return len(data)

    def _step(self) -> bool:
        """Deal with one opcode, if all of it is there."""
        if self._at >= len(self._data):
            return False
        code = self._data[self._at]
        if code == _STOP:
            self._at += 1
            self._stop()
            return True
        rule = _OPCODES.get(code)
        if rule is None:
            raise PeerError(f"a pickle of something else than plain values (opcode {code:#04x})")
        width, act = rule
        argument = self._line() if width == _LINE else self._fixed(width)
        if argument is None:
            return False
        act(self, argument)
        return True

    def _stop(self) -> None:
        value = self.pop()
        if self._stack:
            raise PeerError("a pickle that leaves something over")
        if self._at > self._limit:
            raise PeerError(f"pickles of more than {self._limit} bytes")
        self.values.append(value)
        self._begin()

    def _line(self) -> Optional[bytes]:
        end = self._data.find(b"\n", self._at + 1)
        if end < 0:
            return None
        return self._taken(self._at + 1, end, end + 1)

    def _fixed(self, width: int) -> Optional[bytes]:
        """An argument of so many bytes; a negative number is that of the bytes of its length."""
        begin = self._at + 1 + max(0, -width)
        if len(self._data) < begin:
            return None
        if width < 0:
            width = int.from_bytes(self._data[self._at + 1 : begin], "little")
            if width > TEXT_LIMIT:
                raise PeerError(f"a pickle with a text of {width} bytes")
        end = begin + width
        return self._taken(begin, end, end) if len(self._data) >= end else None

    def _taken(self, begin: int, end: int, following: int) -> bytes:
        self._at = following
        return bytes(self._data[begin:end])

    # The stack.

    def push(self, value: Any) -> None:
        """Another value."""
        if len(self._stack) >= DEPTH_LIMIT:
            raise PeerError(f"a pickle with more than {DEPTH_LIMIT} values in one another")
        self._stack.append(value)

    def pop(self) -> Any:
        """The latest value. Raises PeerError when there is none."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PeerError("a pickle that takes what it has not put")
        return self._stack.pop()

    def since_mark(self) -> list[Any]:
        """The values behind the latest mark, which is gone then."""
        found: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return found[::-1]
            found.append(value)
        raise PeerError("a pickle that takes what it has not put")

    def mark(self) -> None:
        """What follows belongs together."""
        self.push(_MARK)

    def remember(self, key: Optional[int]) -> None:
        """The latest value has a number. Only scalars can be had again, so no dict holds itself."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PeerError("a pickle that takes what it has not put")
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def again(self, key: int) -> None:
        """The value with that number once more."""
        if key not in self._memo or isinstance(self._memo[key], dict):
            raise PeerError("a pickle that refers to what is no plain value in it")
        self.push(self._memo[key])

    def fill(self, items: list[Any]) -> None:
        """Keys and values for the dict below them."""
        target = self.pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise PeerError("a pickle that fills what is no dict")
        for key, value in zip(items[::2], items[1::2]):
            if isinstance(key, dict):
                raise PeerError("a pickle with a dict as a key")
            target[key] = value
        self.push(target)


def _whole(text: bytes) -> int:
    """A decimal number. Raises PeerError."""
    if not re.fullmatch(rb"-?[0-9]{1,19}", text):
        raise PeerError("a pickle with a number that is none")
    return int(text)


def _integer(reader: Reader, argument: bytes) -> None:
    """INT: protocol 0 has no booleans of its own."""
    booleans = {b"00": False, b"01": True}
    reader.push(booleans[argument] if argument in booleans else _whole(argument))


def _long(reader: Reader, argument: bytes) -> None:
    reader.push(_whole(argument[:-1] if argument.endswith(b"L") else argument))


def _little(signed: bool) -> Read:
    return lambda reader, argument: reader.push(int.from_bytes(argument, "little", signed=signed))


def _short_long(reader: Reader, argument: bytes) -> None:
    if len(argument) > NUMBER_LIMIT:
        raise PeerError(f"a pickle with a number of {len(argument)} bytes")
    reader.push(int.from_bytes(argument, "little", signed=True))


def _text(codec: str) -> Read:
    def read(reader: Reader, argument: bytes) -> None:
        try:
            text = argument.decode(codec)
            text.encode()
        except UnicodeError:
            raise PeerError("a pickle with a text that is none") from None
        reader.push(text)

    return read


_ESCAPED = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Mapping[bytes, bytes] = MappingProxyType(
    {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\", b"'": b"'", b'"': b'"'}
)


def _quoted(reader: Reader, argument: bytes) -> None:
    """STRING: as Python 2's repr() shows it."""
    if len(argument) < 2 or argument[:1] not in (b"'", b'"') or argument[-1:] != argument[:1]:
        raise PeerError("a pickle with a string without quotes")

    def plain(found: re.Match[bytes]) -> bytes:
        code = found[1]
        if len(code) == 3:
            return bytes([int(code[1:], 16)])
        if code not in _ESCAPES:
            raise PeerError("a pickle with an unknown escape in a string")
        return _ESCAPES[code]

    reader.push(_ESCAPED.sub(plain, argument[1:-1]))


def _protocol(_reader: Reader, argument: bytes) -> None:
    if argument[0] > HIGHEST:
        raise PeerError(f"a pickle of protocol {argument[0]}; the latest one known is {HIGHEST}")


def _set(reader: Reader, _argument: bytes) -> None:
    value = reader.pop()
    reader.fill([reader.pop(), value])


def _dict(reader: Reader, _argument: bytes) -> None:
    items = reader.since_mark()
    reader.push({})
    reader.fill(items)


def _put(reader: Reader, argument: bytes) -> None:
    reader.remember(int.from_bytes(argument, "little"))


def _push(value: Scalar) -> Read:
    return lambda reader, _argument: reader.push(value)


_LINE = 1 << 20  # no width: up to the end of the line
_STOP = ord(".")
_OPCODES: Mapping[int, tuple[int, Read]] = MappingProxyType(
    {
        0x80: (1, _protocol),
        0x95: (8, lambda _reader, _argument: None),  # FRAME: it only helps those who read files
        ord("("): (0, lambda reader, _argument: reader.mark()),
        ord("0"): (0, lambda reader, _argument: [reader.pop(), None][1]),
        ord("N"): (0, _push(None)),
        0x88: (0, _push(True)),
        0x89: (0, _push(False)),
        ord("I"): (_LINE, _integer),
        ord("L"): (_LINE, _long),
        ord("J"): (4, _little(signed=True)),
        ord("K"): (1, _little(signed=False)),
        ord("M"): (2, _little(signed=False)),
        0x8A: (-1, _short_long),
        ord("S"): (_LINE, _quoted),
        ord("T"): (-4, lambda reader, argument: reader.push(argument)),
        ord("U"): (-1, lambda reader, argument: reader.push(argument)),
        ord("B"): (-4, lambda reader, argument: reader.push(argument)),
        ord("C"): (-1, lambda reader, argument: reader.push(argument)),
        ord("V"): (_LINE, _text("raw-unicode-escape")),
        ord("X"): (-4, _text("utf-8")),
        0x8C: (-1, _text("utf-8")),
        ord("}"): (0, lambda reader, _argument: reader.push({})),
        ord("d"): (0, _dict),
        ord("s"): (0, _set),
        ord("u"): (0, lambda reader, _argument: reader.fill(reader.since_mark())),
        ord("p"): (_LINE, lambda reader, argument: reader.remember(_whole(argument))),
        ord("q"): (1, _put),
        ord("r"): (4, _put),
        0x94: (0, lambda reader, _argument: reader.remember(None)),
        ord("g"): (_LINE, lambda reader, argument: reader.again(_whole(argument))),
        ord("h"): (1, lambda reader, argument: reader.again(int.from_bytes(argument, "little"))),
        ord("j"): (4, lambda reader, argument: reader.again(int.from_bytes(argument, "little"))),
    }
)


def load(data: bytes) -> Value:
    """The value of one whole pickle. Raises PeerError."""
    reader = Reader(1, max(LIMIT, len(data)))
    used = reader.receive(data)
    if not reader.complete or used != len(data):
        raise PeerError("not one whole pickle")
    return reader.values[0]


# Writing.

START, END = b"\x80\x02", b"."


def dump(value: object, strings: type = str) -> bytes:
    """A pickle of protocol 2. ``strings``: ``bytes`` makes texts Python 2's str, which Python 3 takes if in ASCII."""
    return START + item(value, strings) + END


def item(value: object, strings: type = str) -> bytes:
    """A scalar or a dict inside a pickle."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, Mapping):
        pairs = (item(each, strings) for pair in value.items() for each in pair)
        return b"}(" + b"".join(pairs) + b"u"
    return _string(value, strings)


def _string(value: object, strings: type) -> bytes:
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    if strings is str:
        raw = raw.decode("utf-8", "replace").encode()
    return (b"X" if strings is str else b"T") + struct.pack("<I", len(raw)) + raw
