"""How lines of logs are shown: as they are, as a terminal may see them, or as JSON.

Does: adds times and names, takes out what would steer a terminal, marks what matches.
Owns: nothing.
Never: writes; looks up a time.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl.pattern import Pattern
from vspcd.ctl.plain import PlainText
from vspcd.ctl.times import stamp

UNKNOWN_TIME = "-" * len("2026-01-01 00:00:00")
MATCH, NAMES = b"\x1b[1;31m", (b"36", b"33", b"32", b"35", b"34", b"96", b"93", b"92", b"95", b"94")
RESET = b"\x1b[0m"
GAP = b"--\n"

_OVERPRINTED = re.compile(rb"\r+")


class Look(NamedTuple):
    """How lines are to look. ``plain``: without what steers a terminal; ``matches``: what is to be coloured."""

    plain: bool = False
    timestamps: bool = False
    colours: bool = False
    matches: Optional[Pattern] = None


class Owner(NamedTuple):
    """Whose line it is, where lines of several consoles are shown."""

    id: str
    name: str

    @property
    def shown(self) -> bytes:
        return visible(self.name or self.id).encode("utf-8", "replace")


def time_before(moment: Optional[float]) -> bytes:
    return f"{UNKNOWN_TIME if moment is None else stamp(moment)}  ".encode()


def rendered(
    text: bytes, look: Look, moment: Optional[float] = None, owner: Optional[Owner] = None, mark: bytes = b":"
) -> bytes:
    """A line in full. With an ``owner`` it stands alone, between others' lines, and ends with a bare newline."""
    body, end = split_end(text)
    if owner is not None:
        end = b"\n"
    if look.plain:
        body = harmless(body)
    if look.colours and look.matches is not None:
        body = highlighted(body, look.matches)
    before = time_before(moment) if look.timestamps else b""
    return before + (b"" if owner is None else name_before(owner, look.colours, mark)) + body + end


def name_before(owner: Owner, colours: bool, mark: bytes = b":") -> bytes:
    if not colours:
        return owner.shown + mark + b" "
    import zlib

    colour = NAMES[zlib.crc32(owner.id.encode()) % len(NAMES)]
    return b"\x1b[" + colour + b"m" + owner.shown + RESET + mark + b" "


def as_json(
    text: bytes, moment: Optional[float], owner: Optional[Owner] = None, context: bool = False
) -> bytes:
    """One object, on a line. Nothing in it steers a terminal: JSON escapes control characters."""
    whose = {} if owner is None else {"console": owner.id, "name": owner.name}
    beside = {"context": True} if context else {}
    line = split_end(text)[0].decode("utf-8", "replace")
    return json.dumps({**whose, "time": moment, "line": line, **beside}).encode() + b"\n"


def split_end(text: bytes) -> tuple[bytes, bytes]:
    """A line without its end, and the end."""
    body = text.rstrip(b"\r\n")
    return body, text[len(body) :]


def harmless(body: bytes) -> bytes:
    """What a terminal may see of one line without its end: it can neither leave its place nor change what follows."""
    plain = PlainText()
    shown = plain.feed(body) + plain.finish()
    return _OVERPRINTED.sub(b" ", shown.replace(b"\b", b""))


def highlighted(body: bytes, pattern: Pattern) -> bytes:
    """The line with what matches in colour. A colour of the VM's own goes on behind it."""
    return pattern.line.sub(lambda match: _coloured(match[0]), body)


def _coloured(text: bytes) -> bytes:
    return MATCH + text + RESET if text else b""
