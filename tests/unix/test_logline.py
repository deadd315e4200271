"""The daemon's own log: one line per event that a program can read back, and never a wait."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.core.names import visible
from vspcd.unix.logline import Log, line, quote

FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)')


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass  # the test closed it


def read(reader: int) -> str:
    """All that is in the pipe."""
    found = b""
    while True:
        try:
            found += os.read(reader, 65536)
        except BlockingIOError:
            return found.decode()


def fill(writer: int, room: int) -> None:
    """Fill a pipe up to some room."""
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"#" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    if room:
        os.read(writer - 1, room)


def test_a_line_names_the_event_and_its_fields() -> None:
    assert line("vm-connected", {"name": "web01", "port": 50000, "peer": None}) == (
        "vm-connected name=web01 port=50000 peer=-"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        (1.5, "1.5"),
        (None, "-"),
    ],
)
def test_a_value_is_quoted_when_it_is_not_one_plain_word(value: object, written: str) -> None:
    assert quote(value) == written  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["\x1b]0;x\x07", "a\nb", "a\r\nvm-connected name=x", "\u202e", "\x9b31m"])
def test_no_value_can_move_the_cursor_or_begin_a_line(name: str) -> None:
    text = line("e", {"name": name})
    assert text.isprintable()


@given(st.dictionaries(st.sampled_from(["name", "peer", "reason"]), st.text(max_size=30)))
def test_no_value_can_forge_a_field(fields: dict[str, str]) -> None:
    text = line("event", dict(fields))
    found = FIELD.findall(text.partition(" ")[2])
    assert [name for name, _ in found] == list(fields)
    assert "event " * bool(fields) + " ".join(f"{name}={value}" for name, value in found) == (
        text if fields else ""
    )


@pytest.mark.parametrize("value", ['x\\" peer="evil', "ends with \\", "\\\\", "\\"])
def test_backslashes_end_no_quotes(value: str) -> None:
    ((_, written),) = FIELD.findall(f"name={quote(value)}")
    assert re.sub(r"\\(.)", r"\1", written[1:-1]) == visible(value)


def test_a_line_goes_out_whole_with_time_and_level(pipe: tuple[int, int]) -> None:
    Log("info", pipe[1]).info("ready", pid=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info ready pid=1\n", read(pipe[0]))


def test_under_systemd_the_priority_stands_in_front(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    Log("info", pipe[1]).error("broken")
    assert read(pipe[0]) == "<3>broken\n"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", "dbug info warn fail"),
        ("info", "info warn fail"),
        ("warning", "warn fail"),
        ("error", "fail"),
    ],
)
def test_only_what_is_important_enough_is_written(pipe: tuple[int, int], level: str, heard: str) -> None:
    log = Log(level, pipe[1])
    log.debug("dbug")
    log.info("info")
    log.warning("warn")
    log.error("fail")
    assert " ".join(text.split()[-1] for text in read(pipe[0]).splitlines()) == heard


@pytest.mark.parametrize("size", [10, 5000, 100000])
def test_when_nobody_reads_the_process_does_not_wait(pipe: tuple[int, int], size: int) -> None:
    """A pipe with a free page counts as writable, however long the line is."""
    log = Log("info", pipe[1])
    fill(pipe[1], 4096)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(10)
    try:
        for _ in range(3):
            log.info("event", text="x" * size)
    finally:
        signal.alarm(0)


def test_lines_that_were_dropped_are_counted_in_the_next_one_that_goes_out(pipe: tuple[int, int]) -> None:
    log = Log("info", pipe[1])
    fill(pipe[1], 0)
    for _ in range(3):
        log.info("lost")
    read(pipe[0])
    log.info("seen")
    log.info("again")
    words = [text.split(" ", 1)[1] for text in read(pipe[0]).splitlines()]
    assert words == ["warning log-lines-dropped count=3", "info seen", "info again"]


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int]) -> None:
    log = Log("info", pipe[1])
    os.close(pipe[0])
    log.info("nobody-hears")


def test_a_closed_stderr_is_no_error(pipe: tuple[int, int]) -> None:
    log = Log("info", pipe[1])
    os.close(pipe[1])
    log.info("nobody-hears")


def test_a_line_costs_little_even_when_nobody_reads(pipe: tuple[int, int]) -> None:
    log = Log("info", pipe[1])
    fill(pipe[1], 0)
    begun = time.process_time()
    for _ in range(1000):
        log.info("lost", text="x" * 100)
    assert time.process_time() - begun < 2
