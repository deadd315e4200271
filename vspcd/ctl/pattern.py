"""The regular expressions of log, grep and tail: Python's, over bytes, and within one line.

Does: compiles a pattern for lines, for whole blocks of them, and for ripgrep, as far as these mean the same.
Owns: the rules which patterns mean the same.
Never: matches over a line's end; shows Python's reading of what grep's users mean by ``[[:digit:]]`` or ``\\<``.

A line is searched without its end, ``\\n`` or ``\\r\\n``. Letters beyond ASCII are bytes, and -i leaves them alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from vspcd.ctl.failure import USAGE, Failure

_TOKEN = re.compile(
    r"(?P<escape>\\.)"
    r"|(?P<set>\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\])"
    r"|(?P<group>\(\?(?:P?<[A-Za-z_]\w*>|[ims]+[:)]|.)?)"
    r"|(?P<repeat>[*+?]|\{[0-9,]*\})"
    r"|(?P<other>.)",
    re.DOTALL,
)
_POSIX = re.compile(r"\[:(\^?)([a-z]+):\]")
_CLASSES: Mapping[str, str] = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}
_WORD_ENDS = (r"\<", r"\>")
_PLAIN_GROUPS = re.compile(r"\(\?(?:[ims]+[:)]|:|P<[A-Za-z_]\w*>)")
_LITERAL_ESCAPE = re.compile(r"\\[^A-Za-z0-9]|\\[tx]")
_REPEATED = re.compile(r"[*+]\+|[?}]\+")


class Pattern(NamedTuple):
    """``line`` searches a line without its end. ``block`` finds, in many lines at once, the first place from which on a
    line may match; None when only single lines tell. ``needle`` is in every line that matches; it may be empty.
    ``tool`` is the pattern for ripgrep; None when that means another thing by it."""

    line: re.Pattern[bytes]
    block: Optional[re.Pattern[bytes]]
    needle: bytes
    tool: Optional[bytes]
    fixed: bool
    ignore_case: bool

    def matches(self, line: bytes) -> bool:
        """Whether a line, with or without its end, matches."""
        return self.line.search(line.rstrip(b"\r\n")) is not None

    def candidate(self, block: bytes, at: int, end: int) -> int:
        """The first place from ``at`` on whose line may match, in a block of lines; -1 for none before ``end``."""
        if self.needle:
            return block.find(self.needle, at, end)
        if self.block is None:
            return at
        match = self.block.search(block, at, end)
        return min(match.start(), end - 1) if match else -1


def compiled(text: str, ignore_case: bool = False, fixed: bool = False) -> Pattern:
    """Raises Failure for a pattern that is none."""
    if "\n" in text or "\r" in text or "\0" in text:
        raise Failure("a pattern is one line of text", USAGE)
    flags = re.IGNORECASE if ignore_case else 0
    if fixed:
        wire = os.fsencode(text)
        exact = re.compile(re.escape(wire), flags)
        return Pattern(exact, exact, b"" if ignore_case else wire, wire, True, ignore_case)
    tokens = [(str(match.lastgroup), match[0]) for match in _TOKEN.finditer(text)]
    spelled = [(kind, _spelled(kind, token)) for kind, token in tokens]
    line = _compile("".join(token for _, token in spelled), flags, text)
    block = None
    if _block_tells(spelled):
        ends = "".join(r"(?=\r?$)" if (kind, token) == ("other", "$") else token for kind, token in spelled)
        block = _compile(ends, flags | re.MULTILINE, text)
    tool = "".join(token for _, token in spelled) if _tool_agrees(spelled) else None
    needle = "" if ignore_case else _needle(spelled)
    encoded = None if tool is None else os.fsencode(tool)
    return Pattern(line, block, os.fsencode(needle), encoded, False, ignore_case)


def _compile(text: str, flags: int, given: str) -> re.Pattern[bytes]:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(os.fsencode(text), flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise Failure(
            f"{given!r} is no regular expression: {error} (-F takes it as plain text)", USAGE
        ) from None


def _spelled(kind: str, token: str) -> str:
    """The token as Python and ripgrep both understand it."""
    if kind == "escape" and token in _WORD_ENDS:
        return r"\b"
    if kind == "set":
        return _POSIX.sub(lambda match: _CLASSES.get(match[2], match[0]) if not match[1] else match[0], token)
    return token


def _block_tells(tokens: Sequence[tuple[str, str]]) -> bool:
    """Whether a line that matches by itself also matches as one of many.

    It does, if nothing in the pattern is true at the ends of a text alone, and no repetition refuses to give back.
    """
    text = "".join(token for _, token in tokens)
    return not (
        any(kind == "group" and not _PLAIN_GROUPS.fullmatch(token) for kind, token in tokens)
        or any(kind == "escape" and token in (r"\A", r"\Z") for kind, token in tokens)
        or _REPEATED.search(text)
    )


def _needle(tokens: Sequence[tuple[str, str]]) -> str:
    """The longest text that is in whatever matches; empty when nothing is sure to be."""
    if any(kind == "group" or token == "|" for kind, token in tokens):
        return ""
    runs, depth = [""], 0
    for kind, token in tokens:
        depth += {"(": 1, ")": -1}.get(token, 0)
        if kind == "repeat":
            runs[-1] = runs[-1][:-1]  # It may be there as often as not.
        literal = kind == "other" and token not in "().^$" and depth == 0
        if literal:
            runs[-1] += token
        else:
            runs.append("")
    return max(runs, key=len)


def _tool_agrees(tokens: Sequence[tuple[str, str]]) -> bool:
    """Whether ripgrep, which takes it, finds the same lines. The end of a line is what the two may differ in."""
    if _REPEATED.search("".join(token for _, token in tokens)):
        return False
    before = ""
    for kind, token in tokens:
        if kind == "group" and not _PLAIN_GROUPS.fullmatch(token):
            return False
        if kind == "set" and (re.search(r"&&|--|~~", token) or "[" in token[1:].replace(r"\[", "")):
            return False
        if (kind, token) == ("other", "$") and not before:
            return False
        if kind == "escape":
            before = token if _LITERAL_ESCAPE.fullmatch(token) else ""
        elif kind == "other":
            before = "" if token in ".()|^$" else token
        else:
            before = ""
    return not any(kind == "escape" and token[1] in "AZzpPhHRQEUK0123456789" for kind, token in tokens)
