"""The load generators find what is wrong with the bytes: a benchmark that cannot is worth nothing."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import loads
from bench.build import CannotBuild, Programs, build

SIZE = 3000


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def pattern(programs: Programs, pair: tuple[socket.socket, socket.socket]) -> bytes:
    """What every source says first."""
    loads.Stream(programs, pair[0], [], 5, SIZE).result()
    return pair[1].recv(2 * SIZE)


def judged(programs: Programs, heard: bytes) -> dict[str, Any]:
    """The result of a stream whose only sink has heard this."""
    source, nobody = socket.socketpair()
    sink, filled = socket.socketpair()
    with source, nobody, sink, filled:
        filled.sendall(heard)
        return loads.Stream(programs, source, [sink], 5, SIZE).result()


def test_a_source_says_as_much_as_it_is_told(pattern: bytes) -> None:
    assert len(pattern) == SIZE
    assert b"\xff" not in pattern


def test_the_right_bytes_are_right(programs: Programs, pattern: bytes) -> None:
    result = judged(programs, pattern)
    assert (result["said"], result["heard"], loads.flaw(result)) == (SIZE, SIZE, "")


def test_one_wrong_byte_is_found_where_it_is(programs: Programs, pattern: bytes) -> None:
    wrong = pattern[:1234] + b"?" + pattern[1235:]
    result = judged(programs, wrong)
    assert (result["wrong_at"], loads.flaw(result)) == (1234, "wrong bytes")


def test_bytes_in_another_place_are_found(programs: Programs, pattern: bytes) -> None:
    assert loads.flaw(judged(programs, pattern[80:160] + pattern[:80] + pattern[160:])) == "wrong bytes"


def test_missing_bytes_are_counted(programs: Programs, pattern: bytes) -> None:
    result = judged(programs, pattern[:-300])
    assert (result["lost"], loads.flaw(result)) == (300, "lost 10 %")


@pytest.mark.timeout(30)
def test_a_stream_that_is_given_up_leaves_nobody_who_says_anything(
    programs: Programs, pair: tuple[socket.socket, socket.socket]
) -> None:
    source, far = pair
    with loads.Stream(programs, source, [], 600):
        assert far.recv(1)
        hearer = subprocess.Popen(["cat"], stdin=far.fileno(), stdout=subprocess.DEVNULL)
    with hearer:
        source.close()
        assert hearer.wait(20) == 0


def test_a_log_is_read_to_its_last_byte(programs: Programs, pattern: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before" + pattern)
    assert loads.flaw(loads.verify(programs, log, 6, SIZE)) == ""
    log.write_bytes(b"before" + pattern[:-1] + b"?")
    assert loads.verify(programs, log, 6, SIZE)["wrong_at"] == SIZE - 1
    log.write_bytes(b"before" + pattern[:-3])
    assert loads.verify(programs, log, 6, SIZE)["lost"] == 3


def test_an_echo_of_another_byte_is_no_echo(
    programs: Programs, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, other = pair
    vm, nobody = socket.socketpair()
    with vm, nobody:
        other.sendall(b"?")
        assert loads.echo(programs, client, vm, 5, 10)["wrong"] == 1


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CannotBuild, match=r"no compiler 'no-such-compiler'(.|\n)*apt-get install gcc"):
        build(tmp_path)
