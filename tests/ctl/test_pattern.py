"""Patterns mean the same to Python, to Python over whole blocks, and to ripgrep; or ripgrep is not asked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.system.tools import tool
from vspcd.ctl.failure import Failure
from vspcd.ctl.pattern import compiled
from vspcd.ctl.search import Plan, ripgrep, search_files

LINES = [
    b"", b" ", b"foo", b"foo bar", b"a foo", b"foo ", b"Foo 12", b"x12.5y", b"[    0.000000] Linux version 6.1",
    b"tab\there", b"\x1b[31mred\x1b[0m", "grün €".encode(), b"nul\0byte", b"a-b_c", b"1234", b"\xff\xfe raw", b"a|b",
    b"panic: oops", b"end.", b"bb", b"aaa", b"--", b"{2}", b"back\\slash",
]  # fmt: skip
PATTERNS = [
    "foo", "^foo$", "foo$", "^$", ".", "o+", "f.o|bar", "[[:digit:]]{2,}", "[^a-z]$", r"\s$", r"\d+\.\d", r"\bfoo\b",
    r"\<foo\>", "(?i)FOO", "(?:foo|bar) ", "(a)(b)?", r"(\w)\1", "foo(?= )", "(?<!a )foo", "x*", r"\.$", "a-b", "[]|]",
    r"\[ +0\.0+\]", r"\x1b\[31m", "gr.?.?n", "€", "[€]", r"\|", "a{2}", r"\{2\}", r"\\", "--", "-", r"\Aend", r"d\.\Z",
    "[[]", r"[\]a]b", "panic.*oops$", ".*", r"\W\W", "$", "^", "r[ao]w$", "[[:alpha:]&&b]",
]  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines with both ends, and one without."""
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(b"".join(line + (b"\n", b"\r\n")[at % 2] for at, line in enumerate(LINES * 2)) + b"foo")
    return path


def by_line(path: Path, pattern: str, ignore_case: bool = False) -> list[bytes]:
    found = compiled(pattern, ignore_case)
    lines = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")
    return [line for line in lines if found.line.search(line)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_blocks_and_ripgrep_find_the_lines_that_match(text: Path, pattern: str, ignore_case: bool) -> None:
    tool("rg")
    found = compiled(pattern, ignore_case)
    wanted = by_line(text, pattern, ignore_case)
    assert searched(text, pattern, ignore_case) == wanted
    program = ripgrep(found)
    if program is not None:
        assert ripgrepped(text, pattern, ignore_case) == wanted


def searched(path: Path, pattern: str, ignore_case: bool) -> list[bytes]:
    """What the search in Python tells of one file."""
    reading, writing = os.pipe()
    fd = os.open(path, os.O_RDONLY)
    try:
        search_files([fd], Plan(compiled(pattern, ignore_case), key="/"), writing, bare=True)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            return split(pipe.read())
    finally:
        os.close(fd)


def ripgrepped(path: Path, pattern: str, ignore_case: bool) -> list[bytes]:
    from vspcd.ctl.search import command

    words = command(tool("rg"), Plan(compiled(pattern, ignore_case), key="/"), bare=True)
    done = subprocess.run([*words, str(path)], capture_output=True, check=False, timeout=20)
    return split(done.stdout)


def split(said: bytes) -> list[bytes]:
    return said.replace(b"\r\n", b"\n").split(b"\n")[:-1]


@pytest.mark.parametrize("pattern", ["foo", "foo$", "f.o|bar", "[[:digit:]]{2,}", r"\bfoo\b", "panic.*oops$"])
def test_usual_patterns_are_ripgreps(pattern: str) -> None:
    assert ripgrep(compiled(pattern)) == tool("rg")


POSSESSIVE = pytest.param(
    "a*+b", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
)


@pytest.mark.parametrize("pattern", ["foo(?= )", r"(\w)\1", r"\s$", r"\Aend", POSSESSIVE])
def test_patterns_that_ripgrep_reads_otherwise_are_kept_from_it(pattern: str) -> None:
    assert ripgrep(compiled(pattern)) is None


@pytest.mark.parametrize("text", ["(", "[a", "a\nb", "*"])
def test_what_is_no_pattern_is_wrong_usage(text: str) -> None:
    with pytest.raises(Failure) as caught:
        compiled(text)
    assert caught.value.exit_code == 2


def test_fixed_strings_are_plain_text() -> None:
    found = compiled("a.b*", fixed=True)
    assert found.matches(b"xa.b*\r\n")
    assert not found.matches(b"aXbb")


@given(
    st.lists(st.sampled_from(PATTERNS[:-1]), min_size=1, max_size=3),
    st.lists(st.sampled_from(LINES), max_size=5),
)
def test_a_block_shows_each_line_that_matches(parts: list[str], lines: list[bytes]) -> None:
    try:
        found = compiled("".join(parts))
    except Failure:
        return
    block = b"".join(line + b"\r\n" for line in lines)
    seen, at = set(), 0
    while at < len(block):
        place = found.candidate(block, at, len(block))
        if place < 0:
            break
        begin = block.rfind(b"\n", 0, place) + 1
        at = block.find(b"\n", place) + 1
        if found.matches(block[begin:at]):
            seen.add(begin)
    begins = [match.end() for match in re.finditer(rb"\A|\n", block)][: len(lines)]
    assert seen == {begin for begin, line in zip(begins, lines) if found.matches(line)}
