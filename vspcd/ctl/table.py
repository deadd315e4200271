"""Lays out rows of text for a terminal of some width, and gives numbers few characters.

Does: aligns columns; in too little room shortens or leaves out what matters least, then cuts cells.
Owns: nothing.
Never: prints; knows what a console is; asks the clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional

GAP = "  "
ELLIPSIS = "…"
CELL_MINIMUM = 8
"""A cell is never cut below this many columns."""

COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Column(NamedTuple):
    """A column: its heading, how soon it goes (0: never), its side, and a shorter form of its cells."""

    heading: str
    rank: int = 0
    right: bool = False
    short: int = 0
    """When not 0, cells may be cut to this width before any column is left out."""


class Line(NamedTuple):
    """A line for people; ``part`` is what of it has the colour, None for all."""

    text: str
    colour: Optional[str] = None
    part: Optional[str] = None


class Layout(NamedTuple):
    lines: list[str]
    complete: bool
    """Whether every column is there in full."""


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: Optional[int]) -> Layout:
    """The heading and one line per row, none wider than ``width`` where that is possible; None: any width."""
    kept = list(range(len(columns)))
    # By columns: of a thousand rows that takes a third of the time.
    cells = [[column.heading, *(row[i] for row in rows)] for i, column in enumerate(columns)]
    widths = [_widest(column) for column in cells]
    full = list(widths)
    if width is not None:
        _shorten(columns, widths, width)
        _leave_out(columns, kept, widths, width)
        _cut(columns, kept, widths, width)
    padded = [_padded(cells[i], widths[i], columns[i].right) for i in kept]
    lines = [GAP.join(row).rstrip() for row in zip(*padded)]
    return Layout(lines, len(kept) == len(columns) and widths == full)


def _total(kept: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + len(GAP) * (len(kept) - 1)


def _shorten(columns: Sequence[Column], widths: list[int], width: int) -> None:
    for i, column in enumerate(columns):
        if column.short and _total(range(len(columns)), widths) > width:
            widths[i] = min(widths[i], column.short)


def _leave_out(columns: Sequence[Column], kept: list[int], widths: Sequence[int], width: int) -> None:
    for i in sorted(kept, key=lambda i: -columns[i].rank):
        if columns[i].rank == 0 or _total(kept, widths) <= width:
            return
        kept.remove(i)


def _cut(columns: Sequence[Column], kept: Sequence[int], widths: list[int], width: int) -> None:
    """Take what is still too much from the left-aligned columns, the widest first."""
    excess = _total(kept, widths) - width
    for i in sorted((i for i in kept if not columns[i].right), key=lambda i: -widths[i]):
        taken = min(max(excess, 0), max(widths[i] - CELL_MINIMUM, 0))
        widths[i] -= taken
        excess -= taken


def _widest(cells: Sequence[str]) -> int:
    return max(map(len if "".join(cells).isascii() else display_width, cells))


def _padded(cells: Sequence[str], width: int, right: bool) -> list[str]:
    """The cells of one column, all of one width."""
    if "".join(cells).isascii():
        fitting = [cell if len(cell) <= width else cut(cell, width) for cell in cells]
        return [cell.rjust(width) if right else cell.ljust(width) for cell in fitting]
    return [_pad(cut(cell, width), width, right) for cell in cells]


def _pad(text: str, width: int, right: bool) -> str:
    if text.isascii():
        return text.rjust(width) if right else text.ljust(width)
    space = " " * (width - display_width(text))
    return space + text if right else text + space


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns; what was cut off is marked."""
    if display_width(text) <= width:
        return text
    kept = text[: max(width - 1, 0)]
    while display_width(kept) > max(width - 1, 0):
        kept = kept[:-1]
    return kept + ELLIPSIS


def display_width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def terminal_width(fd: int) -> Optional[int]:
    """The width of the terminal at ``fd``; None when it is none. COLUMNS goes first."""
    if not os.isatty(fd):
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return int(columns)
    return os.get_terminal_size(fd).columns or 80


def colours_wanted(fd: int) -> bool:
    """Colours are for terminals, and never with NO_COLOR (https://no-color.org) or on a dumb one."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def rendered(line: Line, width: Optional[int], colours: bool) -> str:
    """The line as it is printed: wrapped to the width, and in its colour if colours are wanted."""
    text = _wrapped(line.text, width)
    if line.colour is None or not colours:
        return text
    begin, end = f"\x1b[{COLOURS[line.colour]}m", "\x1b[0m"
    whole = line.part is None or line.part not in text  # the part may have been wrapped
    return begin + text + end if whole else text.replace(str(line.part), begin + str(line.part) + end, 1)


def _wrapped(text: str, width: Optional[int]) -> str:
    if width is None or display_width(text) <= width:
        return text
    import textwrap

    indent = "    " if width > CELL_MINIMUM else ""
    return "\n".join(textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False))


def size(count: Optional[float]) -> str:
    """A number of bytes in at most five characters: 999, 1.2K, 34M."""
    if count is None:
        return "-"
    if count < 1000:
        return f"{count:.0f}"
    for unit in "KMGTP":
        count /= 1024
        if count < 999.5:
            return f"{count:.1f}{unit}" if count < 9.95 else f"{count:.0f}{unit}"
    return f"{count:.0f}P"


def age(seconds: Optional[float]) -> str:
    """A duration in few characters: 5s, 12m, 3h05m, 4d02h."""
    if seconds is None:
        return "-"
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes}m"
    if days < 1:
        return f"{hours}h{minutes % 60:02}m"
    return f"{days}d{hours % 24:02}h"


def moment(when: object, now: float) -> str:
    """A Unix time both ways: how long ago, and when."""
    if not isinstance(when, (int, float)):
        return "-"
    return f"{age(now - when)} ago ({time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))})"


def words(key: str) -> str:
    """A field's name as people read it."""
    return key.replace("_", " ")


def cpu_time(seconds: Optional[float]) -> str:
    """Processor time in few characters: 0.42s, 12s, 3m20s."""
    if seconds is None:
        return "-"
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    whole = int(seconds + 0.5)
    return f"{whole}s" if whole < 60 else f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else age(whole)
