"""How people name consoles: what a query means, and how a name that a VM chose is shown and filed.

Owns no console. Never trusts a name: it is data that a stranger wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Callable, Optional, Protocol, TypeVar

FILE_NAME_LIMIT = 100  # bytes
LISTED_LIMIT = 10  # candidates that an error names
COMPARED_LIMIT = 20  # names on either side that are compared in full for a suggestion

_UUID = re.compile(r"[0-9a-f]{32}")
_UUID_BEGUN = re.compile(r"[0-9a-f]{1,32}")
_UNUSABLE = re.compile(r"[/\s]")


class Named(Protocol):
    """id is `uuid` or `uuid.label`, the uuid in 8-4-4-4-12 lower case. An unknown name is None or empty."""

    @property
    def id(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def label(self) -> Optional[str]: ...
    @property
    def name(self) -> Optional[str]: ...


Console = TypeVar("Console", bound=Named)


class NotFound(Exception):
    def __init__(self, query: str, suggestions: Sequence[str]) -> None:
        self.suggestions = list(suggestions)
        meant = " or ".join(visible(name) for name in suggestions)
        hint = f"; did you mean {meant}?" if meant else ""
        super().__init__(f"no console is named {visible(query)}{hint}")


class Ambiguous(Exception):
    def __init__(self, query: str, candidates: Sequence[Named]) -> None:
        self.candidates = [console.id for console in candidates]
        listed = ", ".join(_described(console) for console in candidates[:LISTED_LIMIT])
        more = len(candidates) - LISTED_LIMIT
        rest = f" and {more} more" if more > 0 else ""
        super().__init__(f"{visible(query)} could be any of {len(candidates)} consoles: {listed}{rest}")


def resolve(query: str, consoles: Iterable[Console], whole: bool = False) -> Console:
    """The one console that the query means; NotFound or Ambiguous otherwise. ``whole``: a beginning is not enough.

    Ids go first: a VM that calls itself by the id of another one must not draw its users.
    """
    known = list(consoles)
    console = found(query, known, whole)
    if console is None:
        raise NotFound(query, _suggestions(query, known))
    return console


def found(query: str, known: Sequence[Console], whole: bool = False) -> Optional[Console]:
    """The one console that the query means, None when there is none: ``resolve``, for who wants no suggestions, which
    are dear. Raises Ambiguous.
    """
    for rule in _RULES[:-1] if whole else _RULES:
        accepts = rule(query)
        matches = [console for console in known if accepts(console)] if query else []
        if matches:
            return _only(query, matches)
    return None


def _only(query: str, matches: Sequence[Console]) -> Console:
    if len(matches) == 1:
        return matches[0]
    # The bare name or UUID of a VM with several ports means the one without a label.
    bare = [console for console in matches if not console.label]
    if len(bare) == 1 and len({console.uuid for console in matches}) == 1:
        return bare[0]
    raise Ambiguous(query, sorted(matches, key=lambda console: (console.name or "", console.id)))


def _by_id(query: str) -> Callable[[Named], bool]:
    head, _, label = query.rpartition(".") if "." in query else (query, "", "")
    spelled = _hex(head)
    if not _UUID.fullmatch(spelled):
        return lambda console: False
    return lambda console: _hex(console.uuid) == spelled and (console.label or "") == label


def _by_name(query: str) -> Callable[[Named], bool]:
    return lambda console: console.name == query


def _by_uuid(query: str) -> Callable[[Named], bool]:
    spelled = _hex(query)
    return lambda console: _hex(console.uuid) == spelled


def _by_labelled_name(query: str) -> Callable[[Named], bool]:
    return lambda console: _labelled(console) == query


def _by_prefix(query: str) -> Callable[[Named], bool]:
    spelled = _hex(query)
    begun = _UUID_BEGUN.fullmatch(spelled) is not None
    return lambda console: (
        (console.name or "").startswith(query)
        or _labelled(console).startswith(query)
        or (begun and _hex(console.uuid).startswith(spelled))
        or console.id.startswith(query.lower())
    )


_RULES = (_by_id, _by_name, _by_uuid, _by_labelled_name, _by_prefix)  # the last one takes beginnings


def _labelled(console: Named) -> str:
    return f"{console.name}.{console.label}" if console.name and console.label else ""


def _hex(text: str) -> str:
    return text.replace("-", "").replace(" ", "").lower()


def _described(console: Named) -> str:
    return f"{visible(_labelled(console) or console.name or 'unnamed')} ({console.id})"


def _suggestions(query: str, known: Iterable[Named]) -> list[str]:
    import difflib  # a command that has found its console does without

    # A full comparison of 16,000 names takes a second. The likely ones begin or end like the query, and
    # stand beside it in the order of the names, or of the names read backwards.
    names = {console.name for console in known if console.name}
    ends = _neighbours(query[::-1], [name[::-1] for name in names])
    likely = {*_neighbours(query, names), *(name[::-1] for name in ends)}
    return difflib.get_close_matches(query, sorted(likely), n=3)


def _neighbours(query: str, names: Iterable[str]) -> list[str]:
    from bisect import bisect

    ordered = sorted(names)
    at = bisect(ordered, query)
    return ordered[max(0, at - COMPARED_LIMIT) : at + COMPARED_LIMIT]


def visible(text: str) -> str:
    """The text with everything escaped that a terminal might obey or hide: `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def file_name(name: str) -> str:
    """The name as a link's: never empty, no slash, no leading dot or dash, at most FILE_NAME_LIMIT bytes."""
    shown = "".join(char if char.isprintable() else "_" for char in _UNUSABLE.sub("_", name))
    if shown.startswith((".", "-")):
        shown = "_" + shown[1:]
    return shown.encode()[:FILE_NAME_LIMIT].decode(errors="ignore") or "unnamed"
