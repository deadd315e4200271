"""The client's side of RFC 2217: what a VM's serial port tells about its line. Pure.

Does: encodes the guest's settings and breaks.
Owns: nothing.
Never: reads the answers; a virtual line works whatever the concentrator makes of them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vspcd.proto.comport import SET_BAUDRATE, SET_CONTROL, SET_DATASIZE, SET_PARITY, SET_STOPSIZE

BREAK_ON, BREAK_OFF = 5, 6


class SerialLine(NamedTuple):
    """The guest's line, in the numbers of RFC 2217: parity 1 is none."""

    baud: int = 115200
    data_size: int = 8
    parity: int = 1
    stop_size: int = 1


PC_LINE = SerialLine()


def announcement(line: SerialLine) -> list[bytes]:
    """The payloads that tell the settings, in the order of their codes."""
    return [
        struct.pack("!BI", SET_BAUDRATE, line.baud),
        bytes([SET_DATASIZE, line.data_size]),
        bytes([SET_PARITY, line.parity]),
        bytes([SET_STOPSIZE, line.stop_size]),
    ]


def break_signal(on: bool) -> bytes:
    """The payload that begins or ends a break."""
    return bytes([SET_CONTROL, BREAK_ON if on else BREAK_OFF])
