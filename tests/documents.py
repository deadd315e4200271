"""What the documents say, taken apart for tests: tables, code spans, command lines. And what the code can say.

Owns nothing. Never: knows what is right.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, Optional

TOP = Path(__file__).resolve().parent.parent
DOCS = TOP / "docs"
GAP = "…"
"""Stands for what differs, in the documents and in the texts of the code."""


def pages() -> list[Path]:
    """README.md and all that is in docs/."""
    return [TOP / "README.md", *sorted(DOCS.glob("*.md"))]


def text_of(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def rows(name: str, heading: str) -> Iterator[list[str]]:
    """The rows of all tables of a page whose heading row begins with this cell."""
    inside = False
    for line in text_of(name).splitlines():
        cells = cells_of(line)
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not set(line) <= set("|-: "):
            yield cells


def cells_of(line: str) -> list[str]:
    """What stands in a row of a table; nothing when the line is none. A | in a code span is no border."""
    if not line.startswith("|"):
        return []
    hidden = re.sub(r"`[^`]*`", lambda span: span[0].replace("|", "\0"), line)
    return [cell.strip().replace("\0", "|") for cell in hidden.strip().strip("|").split("|")]


def spans(text: str) -> list[str]:
    """The code spans of a text."""
    return re.findall(r"`([^`]+)`", text)


def words(name: str, heading: str, column: int = 0) -> set[str]:
    """All code spans in a column of such tables."""
    return {span for cells in rows(name, heading) for span in spans(cells[column])}


# The code.


class Call(NamedTuple):
    """A call of a method: ``first`` is the text of its first argument, or, when that is none, its source."""

    place: str
    object: str
    method: str
    first: str
    constant: bool


@cache
def trees(*folders: str) -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(TOP)), ast.parse(path.read_text(encoding="utf-8")))
        for folder in folders
        for path in sorted((TOP / folder).rglob("*.py"))
    ]


DAEMON = ("vspcd", "workers")
NOT_THE_DAEMON = ("vspcd/ctl/", "vspcd/simulator/", "vspcd/demo.py")


def calls() -> Iterator[Call]:
    """The daemon's calls of methods, and of functions, that have an argument."""
    for place, tree in trees(*DAEMON):
        if place.startswith(NOT_THE_DAEMON):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                first, function = node.args[0], node.func
                constant = isinstance(first, ast.Constant) and isinstance(first.value, str)
                said = first.value if isinstance(first, ast.Constant) and constant else ast.unparse(first)
                if isinstance(function, ast.Attribute):
                    yield Call(place, ast.unparse(function.value), function.attr, str(said), constant)
                elif isinstance(function, ast.Name):
                    yield Call(place, "", function.id, str(said), constant)


def constant(module: object, name: str) -> Optional[str]:
    found = getattr(module, name, None)
    return found if isinstance(found, str) else None


@cache
def texts(but: tuple[str, ...] = ()) -> list[str]:
    """Every text in the code, with a gap for what is filled in; ``but``: not in files that begin so."""
    found: list[str] = []
    for place, tree in trees(*DAEMON):
        if place.startswith(but):
            continue
        inner = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(_part(each) for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
                found.append(node.value)
    return found


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else GAP


# Command lines.

OURS = ("vspcctl", "vspcd")
SEPARATORS = frozenset({"|", "||", "&", "&&", ";", ";;", "(", ")", "<", ">", ">>", "<("})
ELSEWHERE = frozenset({"<", ">", ">>"})


class Command(NamedTuple):
    """A command line of ours: the page, the words behind the program's name, and whether it is shown to be copied."""

    page: str
    program: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join((self.program, *self.words))}"


def commands() -> list[Command]:
    """All in the pages, each once a page. Those in running text may be mentioned without their arguments."""
    found: dict[Command, None] = {}
    for page in pages():
        for line, whole in code_lines(page):
            for words_ in _simple_commands(line):
                name = words_[0].rpartition("/")[2]
                if name in OURS and GAP not in line and "..." not in line:
                    found[Command(page.name, name, tuple(words_[1:]), whole)] = None
    return list(found)


def code_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Lines of code blocks without what explains them, and code spans; True for the former."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield _unexplained(line.strip()), True
        else:
            yield from ((span, False) for span in spans(line) if span.startswith(OURS))


def _unexplained(line: str) -> str:
    """Two spaces outside of quotes begin an explanation."""
    quote = ""
    for at, char in enumerate(line):
        quote = "" if char == quote else quote or (char if char in "'\"" else "")
        if not quote and line.startswith("  ", at):
            return line[:at]
    return line


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a shell's line, without redirections. Brackets around what may be left out go."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>()")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        return  # no shell's line
    command: list[str] = []
    file_follows = False
    for token in [*tokens, ";"]:
        if token in ELSEWHERE:
            file_follows = True
        elif token in SEPARATORS:
            if command and command[0] == "sudo":
                del command[0]
            if command:
                yield command
            command = []
        elif file_follows:
            file_follows = False
        else:
            command.append(token.strip("[]") if re.fullmatch(r"\[?[-A-Za-z]+\]?", token) else token)
