"""The keeper's other duty: console logs are on the disk within a second of a worker's word."""

from __future__ import annotations

import fcntl
import os
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unix.test_process import status_of
from tests.unix.turning import until
from vspcd.portmap.base import Entry, Forget, Put
from vspcd.portmap.memory import MemoryBackend
from vspcd.unix.channel import Channel, pair
from vspcd.unix.loop import Loop
from vspcd.unix.process import fork
from workers.disksync import WORD
from workers.keeper import Keeper, KeeperStart, change_of, main


class Process:
    """A keeper's process, and our ends of its channel and its pipe."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = pair()
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        start = KeeperStart(Channel(theirs), self.reader, directory, MemoryBackend)
        self.pid = fork(lambda: main(start), {theirs.fileno(), self.reader, directory})
        theirs.close()
        os.close(directory)
        self.loop = Loop()
        self.channel = Channel(ours)
        self.messages: list[dict[str, object]] = []
        self.channel.serve(self.loop, lambda message, _fds: self.messages.append(message), self.loop.stop)

    def close(self) -> None:
        self.channel.close()
        self.loop.close()
        for fd in (self.reader, self.writer):
            os.close(fd)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.close()


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drained(reader: int) -> bool:
    """Whether the pipe is empty; looks without taking."""
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), "little") == 0


def test_a_workers_word_is_heard_within_a_second_and_many_count_once(keeper: Process) -> None:
    for _ in range(100):
        os.write(keeper.writer, WORD.pack(0, 1))
    until(keeper.loop, lambda: drained(keeper.reader), seconds=1.5)
    keeper.channel.close()
    assert status_of(keeper.pid) == 0


def test_a_quiet_keeper_does_not_wake_up(keeper: Process) -> None:
    os.write(keeper.writer, WORD.pack(0, 1))
    until(keeper.loop, lambda: drained(keeper.reader), seconds=5)
    before, end = cpu(keeper.pid), time.monotonic() + 1.5
    until(keeper.loop, lambda: time.monotonic() > end)
    assert cpu(keeper.pid) - before < 0.1
    keeper.channel.close()
    assert status_of(keeper.pid) == 0


def test_a_batch_is_answered_with_its_number(keeper: Process) -> None:
    for number in (7, 8):
        keeper.channel.send({"type": "changes", "number": number, "changes": [{"forget": "nobody"}]})
    until(keeper.loop, lambda: len(keeper.messages) == 2)
    assert keeper.messages == [{"type": "kept", "number": 7}, {"type": "kept", "number": 8}]
    keeper.channel.close()
    assert status_of(keeper.pid) == 0


def test_a_batch_that_cannot_be_kept_is_answered_with_the_reason(keeper: Process) -> None:
    same = [vars(Entry(f"c{number}", "0" * 32, "", "", 50000, 0.0)) for number in range(2)]
    keeper.channel.send({"type": "changes", "number": 1, "changes": [{"put": each} for each in same]})
    until(keeper.loop, lambda: keeper.messages)
    assert keeper.messages[0]["type"] == "failed"
    assert "50000" in str(keeper.messages[0]["reason"])
    keeper.channel.close()
    assert status_of(keeper.pid) == 0


def test_a_change_in_a_message_is_the_same_change() -> None:
    entry = Entry("c", "0" * 32, "gdb", "web01", 50000, 1.5, None, "1" * 32)
    assert change_of({"put": vars(entry)}) == Put(entry)
    assert change_of({"forget": "c"}) == Forget("c")


class Libc:
    """Counts the file systems that are synced."""

    def __init__(self) -> None:
        self.synced: list[int] = []

    def syncfs(self, fd: int) -> int:
        self.synced.append(fd)
        return 0


@pytest.mark.parametrize("words", [0, 1, 3])
def test_at_its_end_it_syncs_what_it_was_told_of_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    """With log.sync never, no worker says a word, and nothing is to be forced to the disk."""
    ours, theirs = pair()
    reader, writer = os.pipe2(os.O_NONBLOCK)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    libc = Libc()
    monkeypatch.setattr("ctypes.CDLL", lambda *_args, **_words: libc)
    keeper = Keeper(KeeperStart(Channel(theirs), reader, directory, MemoryBackend))
    for _ in range(words):
        os.write(writer, WORD.pack(0, 1))
    ours.close()
    keeper.run()
    assert libc.synced == [directory] * bool(words)
    for fd in (reader, writer, directory):
        os.close(fd)
