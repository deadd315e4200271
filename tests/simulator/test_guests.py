"""What is behind a port, without any port: echo, stream, script, shell, a serial device."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.simulator.stories import ALL_BYTES, MEGABYTE, alive, in_loop, poll, standstill
from vspcd.simulator import script, shell
from vspcd.simulator.guests import Connected, Echo, Guest, GuestFactory, Report, Stream, opener
from vspcd.simulator.pipe import CHUNK, LIMIT
from vspcd.simulator.script import Script, ScriptError, Step, parse
from vspcd.simulator.shell import Shell


@contextlib.asynccontextmanager
async def running(factory: GuestFactory, report: Report = lambda line: None) -> AsyncIterator[Guest]:
    guest = factory(report)
    life = asyncio.ensure_future(guest.run())
    try:
        yield guest
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def said(guest: Guest, count: int) -> bytes:
    """The next so many bytes that a guest says."""
    data = bytearray()
    while len(data) < count:
        await asyncio.wait_for(guest.output.ready(), 10)
        piece = guest.output.peek(count - len(data))
        guest.output.consume(len(piece))
        data += piece
    return bytes(data)


async def said_until(guest: Guest, end: bytes) -> bytes:
    """What a guest says up to some text."""
    data = b""
    while not data.endswith(end):
        data += await said(guest, 1)
    return data


async def typed(guest: Guest, data: bytes) -> None:
    for at in range(0, len(data), 4096):
        await guest.input.put(data[at : at + 4096])


# -- echo and stream


def test_an_echo_that_nobody_reads_stops_taking() -> None:
    async def story() -> None:
        async with running(Echo) as guest:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(typed(guest, ALL_BYTES * 4), 0.2)
            assert guest.input.full

    in_loop(story())


def test_a_stream_is_its_numbered_lines() -> None:
    async def story() -> None:
        async with running(partial(Stream, rate=0)) as guest:
            assert await said(guest, MEGABYTE) == Stream.text(MEGABYTE // Stream.LINE)

    in_loop(story())


def test_each_line_of_a_stream_has_its_number_and_size() -> None:
    assert Stream.line(42).startswith(b"000000000042 a")
    assert {len(Stream.line(number)) for number in (0, 42, 10**11)} == {Stream.LINE}


def test_a_stream_of_so_many_lines_ends_with_the_last() -> None:
    async def story() -> None:
        async with running(partial(Stream, rate=0, lines=3)) as guest:
            assert await said(guest, 3 * Stream.LINE) == Stream.text(3)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(guest.output.ready(), 0.1)

    in_loop(story())


def test_a_stream_keeps_its_rate() -> None:
    async def story() -> None:
        async with running(partial(Stream, rate=64000)) as guest:
            clock = asyncio.get_running_loop().time
            started = clock()
            await said(guest, 32000)
            assert 0.4 < clock() - started < 2

    in_loop(story())


def test_a_stream_forgets_what_is_typed() -> None:
    async def story() -> None:
        async with running(partial(Stream, rate=1)) as guest:
            await asyncio.wait_for(typed(guest, ALL_BYTES * 8), 10)

    in_loop(story())


# -- script


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (b"hello", [Step("line", b"hello\r\n")]),
        (b"one\r\n\ntwo\n", [Step("line", b"one\r\n"), Step("line", b"\r\n"), Step("line", b"two\r\n")]),
        (b"\xff\x00 raw", [Step("line", b"\xff\x00 raw\r\n")]),
        (b"@@home", [Step("line", b"@home\r\n")]),
        (b"@send login: ", [Step("send", b"login: ")]),
        (b"@send \\x00\\xFF\\r\\n\\t\\e\\\\", [Step("send", b"\x00\xff\r\n\t\x1b\\")]),
        ("@expect é".encode(), [Step("expect", "é".encode())]),
        (b"@delay 0.5", [Step("delay", number=0.5)]),
        (b"@pause 2", [Step("pause", number=2.0)]),
        (b"@repeat", [Step("repeat", number=float("inf"))]),
        (b"@repeat 3", [Step("repeat", number=3)]),
        (b"@# nothing\n@#nothing", []),
    ],
)
def test_a_script_is_read(text: bytes, steps: list[Step]) -> None:
    assert parse(text) == steps


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"fine\n@shout x", "line 2: no instruction is named @shout"),
        (b"@send", "line 1: @send: a text is missing"),
        (b"@send \\q", r"line 1: @send: unknown escape \\q"),
        (b"@pause soon", "line 1: @pause: could not convert"),
        (b"@pause -1", "line 1: @pause: -1 is not a number of seconds"),
        (b"@repeat often", "line 1: @repeat: invalid literal"),
    ],
)
def test_a_bad_script_is_refused_with_its_line(text: bytes, complaint: str) -> None:
    with pytest.raises(ScriptError, match=complaint):
        parse(text)


def test_a_bad_script_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "boot.txt"
    path.write_bytes(b"@shout")
    with pytest.raises(ScriptError, match=r"boot\.txt, line 1: no instruction"):
        script.load(path)


def test_a_script_answers_what_is_typed() -> None:
    steps = parse(b"@delay 0\n@send login: \n@expect root\\r\nWelcome\n@expect exit\nbye")

    async def story() -> None:
        async with running(partial(Script, steps=steps)) as guest:
            assert await said(guest, 7) == b"login: "
            await typed(guest, b"ro")
            await typed(guest, b"ot\rex")
            assert await said(guest, 9) == b"Welcome\r\n"
            await typed(guest, b"it")
            assert await said(guest, 5) == b"bye\r\n"

    in_loop(story())


def test_what_a_script_has_heard_is_used_up() -> None:
    steps = parse(b"@delay 0\n@expect x\none\n@expect x\ntwo")

    async def story() -> None:
        async with running(partial(Script, steps=steps)) as guest:
            await typed(guest, b"x")
            assert await said(guest, 5) == b"one\r\n"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(guest.output.ready(), 0.1)
            await typed(guest, b"x")
            assert await said(guest, 5) == b"two\r\n"

    in_loop(story())


def test_a_script_repeats_itself_so_often_as_it_says() -> None:
    steps = parse(b"@delay 0\ntick\n@repeat 3\nend")

    async def story() -> None:
        async with running(partial(Script, steps=steps)) as guest:
            assert await said(guest, 23) == b"tick\r\ntick\r\ntick\r\nend\r\n"

    in_loop(story())


# -- shell


def test_the_shell_has_the_terminal_as_its_own() -> None:
    async def story() -> None:
        async with running(partial(Shell, command="echo mine > /dev/tty; sleep 60")) as guest:
            assert await said(guest, 6) == b"mine\r\n"

    in_loop(story())


def test_control_c_interrupts_what_runs_in_the_shell() -> None:
    async def story() -> None:
        command = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done"
        async with running(partial(Shell, command=command)) as guest:
            await said_until(guest, b"ready\r\n")
            await typed(guest, b"\x03")
            assert await said_until(guest, b"\r\n") == b"^Cinterrupted\r\n"

    in_loop(story())


def test_all_bytes_pass_a_raw_terminal_both_ways() -> None:
    async def story() -> None:
        async with running(partial(Shell, command="stty raw -echo; echo ready; exec cat")) as guest:
            await said_until(guest, b"ready\n")
            typing = asyncio.ensure_future(typed(guest, ALL_BYTES * 8))
            assert await said(guest, len(ALL_BYTES) * 8) == ALL_BYTES * 8
            await typing

    in_loop(story())


def test_the_last_words_of_a_shell_are_heard(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(ALL_BYTES * 8)

    async def story() -> None:
        command = f"stty raw -echo; cat {tmp_path}/words; printf END"
        async with running(partial(Shell, command=command)) as guest:
            assert await said(guest, len(ALL_BYTES) * 8 + 3) == ALL_BYTES * 8 + b"END"

    in_loop(story())


def test_a_shell_that_nobody_listens_to_stops_talking() -> None:
    async def story() -> None:
        async with running(partial(Shell, command="exec yes")) as guest:
            await standstill(lambda: len(guest.output))
            assert len(guest.output) <= LIMIT + CHUNK

    in_loop(story())


def test_a_shell_that_ends_is_started_again() -> None:
    async def story() -> None:
        async with running(partial(Shell, command="echo $$")) as guest:
            first = await said_until(guest, b"\n")
            assert await said_until(guest, b"\n") != first

    in_loop(story())


C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33 are the C library's own: nobody else can set them back."""


def test_a_shell_starts_with_no_signal_ignored() -> None:
    async def story() -> None:
        async with running(partial(Shell, command="grep SigIgn: /proc/self/status; sleep 60")) as guest:
            ignored = int((await said_until(guest, b"\n")).split()[1], 16)
            assert ignored & ~C_LIBRARY == 0

    in_loop(story())


@pytest.mark.parametrize(
    "command",
    [
        "trap '' HUP; sleep 1000 & echo $$ $!; wait; sleep 1000",
        "(trap '' HUP; exec sleep 1000) & echo $$ $!; wait",
    ],
)
def test_everything_that_a_shell_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(shell, "GRACE", 0.1)

    async def story() -> None:
        async with running(partial(Shell, command=command)) as guest:
            pids = [int(pid) for pid in (await said_until(guest, b"\n")).split()]
            assert all(psutil.pid_exists(pid) for pid in pids)
        await poll(lambda: not any(alive(pid) for pid in pids))
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    in_loop(story())


# -- a serial device


def test_a_terminal_device_is_the_serial_port() -> None:
    async def story() -> None:
        master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            async with running(partial(Connected, address=f"pty:{os.ttyname(slave)}")) as guest:
                await typed(guest, b"\x00\xff\x11typed")
                await poll(lambda: not guest.input)
                assert os.read(master, 100) == b"\x00\xff\x11typed"
                os.write(master, b"\xff\x00said")
                assert await said(guest, 6) == b"\xff\x00said"
        finally:
            os.close(master)
            os.close(slave)

    in_loop(story())


def test_a_serial_socket_that_comes_later_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vspcd.simulator.guests.REOPEN_DELAY", 0.01)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        writer.close()

    async def story() -> None:
        path = tmp_path / "serial"
        told: list[str] = []
        async with running(partial(Connected, address=f"unix:{path}"), told.append) as guest:
            await poll(lambda: told == [f"serial port unix:{path}: No such file or directory; trying again"])
            server = await asyncio.start_unix_server(greet, path)
            assert await said(guest, 5) == b"hello"
            server.close()

    in_loop(story())


@pytest.mark.parametrize("address", ["", "unix:", "tcp:nohost", "/dev/ttyS0", "tcp:127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        opener(address)
