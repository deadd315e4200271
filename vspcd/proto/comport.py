"""RFC 2217, COM-PORT-OPTION: the VM is the client and tells us how its guest set the serial line.

Owns nothing: answer() is a function of the message and the line as it was. There is no real line behind
it, so every possible setting is accepted, and an impossible one is answered with the setting in force.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Callable, NamedTuple, Optional, Union

from vspcd.proto.errors import LocalError, PeerError

SIGNATURE, SET_BAUDRATE, SET_DATASIZE, SET_PARITY, SET_STOPSIZE, SET_CONTROL = range(6)
NOTIFY_LINESTATE, NOTIFY_MODEMSTATE, FLOWCONTROL_SUSPEND, FLOWCONTROL_RESUME = 6, 7, 8, 9
SET_LINESTATE_MASK, SET_MODEMSTATE_MASK, PURGE_DATA = 10, 11, 12
ACKNOWLEDGED = 100  # an acknowledgement's code is that of its command and this

BREAK_DETECTED = 0x10  # of the line's state

OUR_SIGNATURE = b"vspcd"


@dataclass(frozen=True)
class LineSettings:
    """The line as the guest set it; before it set anything, a PC's usual one."""

    baud: int = 9600
    data_size: int = 8
    parity: str = "none"
    stop_size: str = "1"
    flow: str = "none"
    break_on: bool = False
    dtr: bool = False
    rts: bool = False


@dataclass(frozen=True)
class Break:
    """The guest began or ended a break."""

    on: bool


Event = Union[LineSettings, Break]
Answer = tuple[bytes, list[Event]]

PARITY = {1: "none", 2: "odd", 3: "even", 4: "mark", 5: "space"}
STOP_SIZE = {1: "1", 2: "2", 3: "1.5"}
DATA_SIZE = {5: 5, 6: 6, 7: 7, 8: 8}


class _Setting(NamedTuple):
    """One byte on the wire and what it means for a field of the line."""

    field: str
    meanings: dict[int, object]


_SETTINGS: dict[int, _Setting] = {
    SET_DATASIZE: _Setting("data_size", dict(DATA_SIZE)),
    SET_PARITY: _Setting("parity", dict(PARITY)),
    SET_STOPSIZE: _Setting("stop_size", dict(STOP_SIZE)),
}

# SET-CONTROL packs several settings into one number space; each group starts with the question for it.
_FLOW = _Setting("flow", {1: "none", 2: "xon/xoff", 3: "hardware", 17: "dcd", 19: "dsr"})
_BREAK = _Setting("break_on", {5: True, 6: False})
_DTR = _Setting("dtr", {8: True, 9: False})
_RTS = _Setting("rts", {11: True, 12: False})
_QUESTIONS = {0: _FLOW, 4: _BREAK, 7: _DTR, 10: _RTS}
_CONTROLS = {value: setting for setting in _QUESTIONS.values() for value in setting.meanings}
# The flow control of the other direction is not noted; its question is answered with "none".
_INBOUND_QUESTION, _INBOUND_NONE = 13, 14


def answer(payload: bytes, line: LineSettings) -> Answer:
    """The payload of our reply, or b"", and what the VM told: the line as it is now, or a Break.

    PeerError when the payload is not as long as its command demands. Unknown commands are ignored.
    """
    if not payload:
        raise PeerError("empty COM-PORT message")
    code, value = payload[0], payload[1:]
    if code not in _COMMANDS:
        return b"", []
    size, respond = _COMMANDS[code]
    if size is not None and len(value) != size:
        raise PeerError(f"COM-PORT command {code} with {len(value)} bytes, not {size}")
    reply, events = respond(code, value, line)
    return bytes((code + ACKNOWLEDGED,)) + reply, events


def break_notice() -> bytes:
    """The payload that tells of a break on the line, to a VM that wants to be told."""
    return bytes((NOTIFY_LINESTATE + ACKNOWLEDGED, BREAK_DETECTED))


def wants_breaks(payload: bytes) -> Optional[bool]:
    """Whether the VM asks to be told of breaks from now on; None: this says nothing of it."""
    if payload[:1] != bytes((SET_LINESTATE_MASK,)) or len(payload) != 2:
        return None
    return bool(payload[1] & BREAK_DETECTED)


def _signature(code: int, value: bytes, line: LineSettings) -> Answer:
    return OUR_SIGNATURE, []


def _baudrate(code: int, value: bytes, line: LineSettings) -> Answer:
    asked = int.from_bytes(value, "big") or line.baud
    told: list[Event] = [replace(line, baud=asked)] if any(value) else []
    return asked.to_bytes(4, "big"), told


def _setting(code: int, value: bytes, line: LineSettings) -> Answer:
    setting = _SETTINGS[code]
    if value[0] not in setting.meanings:
        return _current(setting, line), []
    return value, [_set(line, setting, value[0])]


def _control(code: int, value: bytes, line: LineSettings) -> Answer:
    asked = value[0]
    if asked == _INBOUND_QUESTION:
        return bytes((_INBOUND_NONE,)), []
    if asked in _QUESTIONS:
        return _current(_QUESTIONS[asked], line), []
    if asked not in _CONTROLS:
        return value, []
    setting = _CONTROLS[asked]
    if setting is _BREAK:
        return value, [Break(bool(_BREAK.meanings[asked]))]
    return value, [_set(line, setting, asked)]


def _echo(code: int, value: bytes, line: LineSettings) -> Answer:
    return value, []


def _current(setting: _Setting, line: LineSettings) -> bytes:
    now = getattr(line, setting.field)
    return bytes((next(value for value, meaning in setting.meanings.items() if meaning == now),))


def _set(line: LineSettings, setting: _Setting, value: int) -> LineSettings:
    return replace(line, **{setting.field: setting.meanings[value]})  # type: ignore[arg-type]


_Respond = Callable[[int, bytes, LineSettings], Answer]
# code -> (bytes behind the code, who answers). FLOWCONTROL-SUSPEND and -RESUME have no acknowledgement:
# 108 from us would tell the VM to fall silent.
_COMMANDS: dict[int, tuple[Union[int, None], _Respond]] = {
    SIGNATURE: (None, _signature),
    SET_BAUDRATE: (4, _baudrate),
    SET_DATASIZE: (1, _setting),
    SET_PARITY: (1, _setting),
    SET_STOPSIZE: (1, _setting),
    SET_CONTROL: (1, _control),
    SET_LINESTATE_MASK: (1, _echo),
    SET_MODEMSTATE_MASK: (1, _echo),
    PURGE_DATA: (1, _echo),
}


def line_as_dict(line: LineSettings) -> dict[str, object]:
    return vars(line).copy()


def line_from_dict(saved: object) -> LineSettings:
    """LocalError unless saved is what line_as_dict() gave."""
    pattern = asdict(LineSettings())
    if not isinstance(saved, dict) or saved.keys() != pattern.keys():
        raise LocalError(f"not a snapshot of line settings: {saved!r}")
    line = LineSettings(**saved)
    if any(type(saved[field]) is not type(usual) for field, usual in pattern.items()):
        raise LocalError(f"not a snapshot of line settings: {saved!r}")
    named = all(getattr(line, each.field) in each.meanings.values() for each in (*_SETTINGS.values(), _FLOW))
    if not named or not 0 < line.baud < 1 << 32:
        raise LocalError(f"impossible line settings: {saved!r}")
    return line
