"""Test data: every byte value in every neighbourhood that matters, and streams whose gaps show."""

from __future__ import annotations

import random

KIB64 = 65536


def all_bytes(seed: int) -> bytes:
    """64 KiB with each byte value 256 times, shuffled, beginning with what telnet and terminals trip over."""
    awkward = b"\xff\xff\xff\xf0\xff\xfa\xe8\x00\x11\x13\r\n\r\x00\r\xff\x1d\x03\x7f"
    rest = bytearray(bytes(range(256)) * 256)
    for value in awkward:
        rest.remove(value)
    random.Random(seed).shuffle(rest)
    return awkward + bytes(rest)


def numbered(first: int, count: int) -> bytes:
    """Lines of 64 bytes, each with its number."""
    return b"".join(b"%08d %s\n" % (number, b"." * 54) for number in range(first, first + count))
