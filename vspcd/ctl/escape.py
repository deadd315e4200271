"""The escape key of a console session: what of the typing goes to the VM, and what is meant for the tool.

Owns: how much of the escape key has just been typed, and the line that answers a question.
Never: reads a terminal; acts. Any chunking of the same typing gives the same result.

The key may be two keys, such as conserver's ^Ec: the first one alone goes to the VM with what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional, Union

from vspcd.ctl.lineedit import ENTER, LineEdit, SequenceFilter

DETACH, HELP, BREAK, INFO, WHO, SUSPEND, CANCEL, UNKNOWN = (
    "detach",
    "help",
    "break",
    "info",
    "who",
    "suspend",
    "cancel",
    "unknown",
)
LOCK, UNLOCK, TAKE_OVER, MODE, WATCH, TYPE = ("lock", "unlock", "take over", "mode", "watch", "type")
REPLAY, SEND, COPY, SWITCH, BROADCAST = ("replay", "send", "copy", "switch", "broadcast")

KEYS: Mapping[str, str] = {
    DETACH: ".q",
    HELP: "?h",
    INFO: "iI",
    WHO: "w",
    LOCK: "l",
    UNLOCK: "u",
    TAKE_OVER: "tfF",
    MODE: "o",
    WATCH: "sM",
    TYPE: "aJ",
    BREAK: "bB",
    REPLAY: "rp",
    SEND: ">",
    COPY: "L",
    SWITCH: "c",
    BROADCAST: "*",
    SUSPEND: "zZ",
    CANCEL: "\r\n \x1b",
}
"""The keys behind the escape key; besides our own the usual ones of conserver and conman, where they do not differ."""

MENU: Mapping[int, str] = {ord(key): name for name, keys in KEYS.items() for key in keys}
"""What each key does. The escape key itself sends the escape key."""

EXPLAINED = (
    (".", "detach: leave the console, the VM goes on"),
    ("i", "information about the console and this session"),
    ("w", "who is on the console"),
    ("l", "lock: nobody else may type"),
    ("u", "unlock"),
    ("t", "take over the lock of somebody else"),
    ("o", "only watch, or type again"),
    ("b", "break, alone or with a magic SysRq key"),
    ("r", "replay the last lines"),
    (">", "send a file, paced by its echo"),
    ("L", "log a local copy, or end it"),
    ("c", "change to another console"),
    ("*", "broadcast: type on several consoles, or end it"),
    ("z", "suspend (fg brings it back)"),
    ("?", "show this list"),
    ("Enter", "back to the console; Ctrl-C leaves a question"),
)


class Action(NamedTuple):
    """A menu command; ``key`` is the byte that was typed."""

    name: str
    key: int


class Answer(NamedTuple):
    """The answer to the question that was asked; None: it was cancelled."""

    text: Optional[str]


Piece = Union[bytes, Action, Answer]


class EscapeKeys:
    """Separates the typing into bytes for the VM, actions, and answers to questions."""

    def __init__(self, escape: Optional[bytes]) -> None:
        """``escape`` is the escape key, one or two bytes; None for none, then every byte goes to the VM."""
        self._escape = escape or b""
        self._begun = 0  # bytes of the escape key that have just been typed, outside the menu or in it
        self._sequence: Optional[SequenceFilter] = None
        self._line: Optional[LineEdit] = None
        self.pending = False
        """Whether the escape key was typed and the menu waits for a key."""

    @property
    def line(self) -> Optional[str]:
        """What was typed so far at a question; None: there is none."""
        return None if self._line is None else self._line.text

    def ask(self) -> None:
        """What is typed from now on, up to Enter, answers a question."""
        self._line = LineEdit()

    def give_up(self) -> None:
        """The question needs no answer any more."""
        self._line = None

    def receive(self, data: bytes) -> Iterator[Piece]:
        """What was typed, in order: bytes to send, never empty, actions and answers.

        Act on each piece before the next one is asked for: an action may ask a question, and what follows answers it.
        """
        at = 0
        while at < len(data):
            if self._line is not None:
                answer = self._answered(data[at])
                at += 1
                if answer is not None:
                    yield answer
            elif self.pending or self._begun:
                piece = self._continued(data[at])
                at += 1
                if piece:
                    yield piece
            else:
                if self._passes_sequence(data[at]):
                    at += 1
                    continue
                end = data.find(self._escape[:1], at) if self._escape else -1
                end = len(data) if end < 0 else end
                if end > at:
                    yield data[at:end]
                if end < len(data):
                    self._begin()
                at = end + 1

    def _begin(self) -> None:
        """The first byte of the escape key."""
        self.pending = len(self._escape) == 1
        self._begun = 0 if self.pending else 1

    def _continued(self, key: int) -> Optional[Piece]:
        """A byte behind the escape key, or behind the first half of it."""
        if not self._begun:
            if key == self._escape[0] and len(self._escape) == 2:
                self._begun = 1
                return None
            self.pending = False
            return self._escape if key == self._escape[0] else self._chosen(key)
        self._begun = 0
        whole, in_menu = key == self._escape[1], self.pending
        self.pending = whole and not in_menu
        if self.pending:
            return None
        if in_menu:
            return self._escape if whole else Action(UNKNOWN, key)
        if key == self._escape[0]:
            self._begun = 1
            return self._escape[:1]
        return self._escape[:1] + bytes([key])

    def _chosen(self, key: int) -> Action:
        if key == 0x1B:
            self._sequence = SequenceFilter()
            self._sequence.takes(key)
        return Action(MENU.get(key, UNKNOWN), key)

    def _passes_sequence(self, key: int) -> bool:
        """Whether this belongs to the function key that has just ended the menu."""
        if self._sequence is not None and key != 0x1B and self._sequence.takes(key):
            return True
        self._sequence = None
        return False

    def _answered(self, key: int) -> Optional[Answer]:
        assert self._line is not None
        end = self._line.feed(key)
        # Two keys could be cut between: the second one would go to the VM.
        left = self._escape == bytes([key]) and key < 0x20
        if end is None and not left:
            return None
        text = self._line.text if end == ENTER else None
        self._line = None
        return Answer(text)


def parse_key(text: str) -> Optional[bytes]:
    """The escape key as people write it: ``^]``, ``C-a``, one ASCII character, ``^Ec`` for two keys, or ``none``.

    Raises ValueError with what would be right.
    """
    if text.lower() == "none":
        return None
    first, rest = _one_key(text)
    second_fits = not rest or (len(rest) == 1 and rest.isascii() and first is not None and first[0] < 0x20)
    # The key of that name begins every function key.
    if first in (None, b"\x1b") or not second_fits:
        raise ValueError(f"{text!r} is not a key; write ^] or C-a, a single character, ^Ec for two, or none")
    return (first or b"") + rest.encode()


def _one_key(text: str) -> tuple[Optional[bytes], str]:
    """The key at the front, and what is behind it."""
    mark = 1 if text.startswith("^") else 2 if text.upper().startswith("C-") else 0
    control = text[mark : mark + 1]
    if mark and control and "@" <= control.upper() <= "_":
        return bytes([ord(control.upper()) & 0x1F]), text[mark + 1 :]
    if len(text) == 1 and text.isascii() and text != "^":
        return text.encode(), ""
    return None, ""


def key_name(key: int) -> str:
    """A key as people write it."""
    return f"^{chr(key | 0x40)}" if key < 0x20 else chr(key) if key < 0x7F else f"0x{key:02x}"


def escape_name(escape: bytes) -> str:
    return "".join(map(key_name, escape))
