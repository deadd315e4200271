"""Which consoles a list of patterns means, such as ``web*,!web-old``.

Pure. Owns: what a pattern matches.
Never: imports what only the daemon needs: commands that take patterns have to start quickly.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

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


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(compiled(each).fullmatch(name) for each in patterns for name in names)


@lru_cache(maxsize=4096)
def compiled(text: str) -> re.Pattern[str]:
    """A pattern of a shell, as a regular expression for the whole of a name."""
    return re.compile(fnmatch.translate(text))
