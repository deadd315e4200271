"""The escape key of a console session: what of the typing goes to the VM, and what is meant for the tool.

Owns: whether the escape key has just been typed.
Never: reads a terminal; acts. Any chunking of the same typing gives the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional, Union

DETACH, HELP, BREAK, INFO, SUSPEND, CANCEL, UNKNOWN = (
    "detach",
    "help",
    "break",
    "info",
    "suspend",
    "cancel",
    "unknown",
)

MENU: Mapping[int, str] = {
    ord("."): DETACH,
    ord("q"): DETACH,
    ord("?"): HELP,
    ord("h"): HELP,
    ord("b"): BREAK,
    ord("s"): INFO,
    ord("z"): SUSPEND,
    ord("\r"): CANCEL,
    ord("\n"): CANCEL,
    ord(" "): CANCEL,
    0x1B: CANCEL,
}
"""What each key does behind the escape key. The escape key itself sends the escape key."""

EXPLAINED = (
    (". q", "detach: leave the console, the VM goes on"),
    ("b", "send a serial break to the VM"),
    ("s", "show information about this session"),
    ("z", "suspend the tool (fg brings it back)"),
    ("?", "show this list"),
    ("Enter", "back to the console"),
)


class Action(NamedTuple):
    """A menu command; ``key`` is the byte that was typed."""

    name: str
    key: int


class EscapeKeys:
    """Separates the typing into bytes for the VM and actions."""

    def __init__(self, escape: Optional[int]) -> None:
        """``escape`` is the byte of the escape key; None for none, then every byte goes to the VM."""
        self._escape = escape
        self.pending = False
        """Whether the escape key was typed and the menu waits for a key."""

    def receive(self, data: bytes) -> list[Union[bytes, Action]]:
        """What was typed, in order: bytes to send, never empty, and actions."""
        if self._escape is None:
            return [data] if data else []
        found: list[Union[bytes, Action]] = []
        while data:
            if self.pending:
                self.pending = False
                found.append(self._chosen(data[0]))
                data = data[1:]
                continue
            typed, escape, data = data.partition(bytes([self._escape]))
            self.pending = bool(escape)
            if typed:
                found.append(typed)
        return found

    def _chosen(self, key: int) -> Union[bytes, Action]:
        if key == self._escape:
            return bytes([key])
        return Action(MENU.get(key, UNKNOWN), key)


def parse_key(text: str) -> Optional[int]:
    """The byte of a key as people write it: ``^]``, ``C-a``, a single ASCII character, or ``none``.

    Raises ValueError with what would be right.
    """
    if text.lower() == "none":
        return None
    control = text[1:] if text.startswith("^") else text[2:] if text.upper().startswith("C-") else ""
    if len(control) == 1 and "@" <= control.upper() <= "_":
        return ord(control.upper()) & 0x1F
    if len(text) == 1 and text.isascii() and text != "^":
        return ord(text)
    raise ValueError(f"{text!r} is not a key; write ^] or C-a, a single character, or none")


def key_name(key: int) -> str:
    """A key as people write it."""
    return f"^{chr(key | 0x40)}" if key < 0x20 else chr(key) if key < 0x7F else f"0x{key:02x}"
