"""What a user means by the TEXT of a command: escapes become characters.

Pure. Owns: the escapes. Never: adds Enter by itself.
"""

from __future__ import annotations

import re

from vspcd.ctl.failure import USAGE, Failure

ENTER = b"\r"
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_KNOWN = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b", "b": "\b", "\\": "\\", "0": "\0"}


def typed(text: str) -> bytes:
    r"""The bytes of a text with \r \n \t \e \b \0 \\ and \xHH. Raises Failure on others."""
    found = bytearray()
    at = 0
    for match in _ESCAPE.finditer(text):
        found += text[at : match.start()].encode("utf-8", "surrogateescape")
        found += _character(match[1])
        at = match.end()
    return bytes(found + text[at:].encode("utf-8", "surrogateescape"))


def _character(escape: str) -> bytes:
    if len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    if escape not in _KNOWN:
        raise Failure(f"\\{escape} is no escape; there are \\r \\n \\t \\e \\b \\0 \\\\ and \\xHH", USAGE)
    return _KNOWN[escape].encode()
