"""Which consoles a list of patterns means, such as ``web*,!web-old``.

Pure. Owns: what a pattern matches.
Never: imports what only the daemon needs: commands that take patterns have to start quickly.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Optional

from vspcd.core.names import Named

ANYBODY = "*"
EXCEPT = "!"


def matches(patterns: Sequence[str], console: Named) -> bool:
    """Whether patterns mean a console: by its name, name.label, UUID or UUID.label. One that begins with ! takes out
    again what the others mean."""
    called = _called(console)
    taken_out = [each[1:] for each in patterns if each.startswith(EXCEPT)]
    meant = [each for each in patterns if not each.startswith(EXCEPT)]
    return _any(meant or [ANYBODY], called) and not _any(taken_out, called)


def _called(console: Named) -> list[str]:
    names = [console.id, console.id.partition(".")[0], console.uuid]
    if console.name:
        names.append(console.name)
        if console.label:
            names.append(f"{console.name}.{console.label}")
    return names


class Chosen:
    """The consoles that any of some lists of patterns mean: ``matches`` for many consoles, made ready once."""

    def __init__(self, lists: Iterable[Sequence[str]]) -> None:
        together: dict[tuple[str, ...], list[str]] = {}  # what is meant, by what is taken out again
        for patterns in lists:
            taken_out = tuple(each[1:] for each in patterns if each.startswith(EXCEPT))
            meant = [each for each in patterns if not each.startswith(EXCEPT)]
            together.setdefault(taken_out, []).extend(meant or [ANYBODY])
        self._all = ANYBODY in together.get((), ())
        self._parts = [
            (_either(tuple(dict.fromkeys(meant))), _either(taken_out))
            for taken_out, meant in together.items()
        ]

    def has(self, console: Named) -> bool:
        """Whether a console is one of them."""
        if self._all or not self._parts:
            return self._all
        called = _called(console)
        return any(_fits(meant, called) and not _fits(taken_out, called) for meant, taken_out in self._parts)


def _fits(pattern: Optional[re.Pattern[str]], names: Sequence[str]) -> bool:
    return pattern is not None and any(map(pattern.fullmatch, names))


@lru_cache(maxsize=1024)
def _either(patterns: tuple[str, ...]) -> Optional[re.Pattern[str]]:
    return re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(compiled(each).fullmatch(name) for each in patterns for name in names)


@lru_cache(maxsize=4096)
def compiled(text: str) -> re.Pattern[str]:
    """A pattern of a shell, as a regular expression for the whole of a name."""
    return re.compile(fnmatch.translate(text))
