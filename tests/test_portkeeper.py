"""The port map's two halves, the master's and the keeper's process: what was acknowledged survives everything."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.unix.test_process import status_of
from tests.unix.turning import turn, until
from vspcd import config as configuration
from vspcd import portkeeper
from vspcd.portkeeper import PortKeeper
from vspcd.portmap.base import Backend, Change, Entry, PortMapError
from vspcd.portmap.sqlite import SqliteBackend
from vspcd.spawn import Nursery
from vspcd.unix import channel
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop


def entry(number: int, name: str = "web01", port: Optional[int] = None) -> Entry:
    uuid = f"{number:032x}"
    return Entry(f"console-{number}", uuid, "", name, 50000 + number if port is None else port, 1.5)


class Refusing:
    """A map whose disk refuses as long as a file is there."""

    def __init__(self, inner: Backend, sign: Path) -> None:
        self._inner = inner
        self._sign = sign

    @property
    def notes(self) -> Sequence[str]:
        return self._inner.notes

    def load(self) -> list[Entry]:
        return self._inner.load()

    def apply(self, changes: Sequence[Change]) -> None:
        if self._sign.exists():
            raise PortMapError("no space left on device")
        self._inner.apply(changes)

    def close(self) -> None:
        self._inner.close()


class Half:
    """The master's half, with a real keeper process behind it."""

    def __init__(self, root: Path) -> None:
        config = configuration.load(None, [], root)
        config.dirs.state.mkdir(parents=True, exist_ok=True)
        self.path = config.dirs.state / "portmap.db"
        self.sign = root / "disk-is-full"
        self.loop = Loop()
        self.loaded: Optional[list[Entry]] = None
        self.kept: list[str] = []
        self.nursery = Nursery(config)
        self.keeper = PortKeeper(self.loop, Log("error"), self.nursery, self._open, self._loaded)
        self.until(lambda: self.loaded is not None)

    def _open(self) -> Backend:
        return Refusing(SqliteBackend(self.path), self.sign)

    def _loaded(self, entries: Sequence[Entry]) -> None:
        self.loaded = list(entries)

    def until(self, condition: Callable[[], object]) -> None:
        until(self.loop, condition, seconds=20)

    def put(self, made: Entry) -> None:
        self.keeper.put(made, lambda: self.kept.append(made.console))

    def kill(self) -> None:
        """The keeper dies, and the master's reaper tells its half."""
        pid = self.keeper.pid
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        assert self.keeper.died("killed by SIGKILL")

    def stop(self) -> None:
        """End in order; the keeper's process with it."""
        pid = self.keeper.pid
        self.keeper.stop()
        assert os.WEXITSTATUS(status_of(pid)) == 0

    def close(self) -> None:
        """Let go of what a nursery has for ever."""
        self.loop.close()
        nursery = self.nursery
        for fd in (nursery._arena.fd, nursery._log_directory, nursery._sync_reader, nursery._sync_writer):
            os.close(fd)

    def content(self) -> dict[str, Entry]:
        """What the file holds, once nobody has it open."""
        base = SqliteBackend(self.path)
        found = {each.console: each for each in base.load()}
        base.close()
        return found


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Half]:
    monkeypatch.setattr(portkeeper, "RESTART_AFTER", 0.05)
    monkeypatch.setattr(portkeeper, "RETRY_AFTER", 0.05)
    made = Half(tmp_path)
    yield made
    if made.keeper.pid and not made.keeper._stopping:
        made.keeper.stop()
        status_of(made.keeper.pid)
    made.close()


def test_what_was_put_is_there_after_a_restart(half: Half, tmp_path: Path) -> None:
    for number in range(3):
        half.put(entry(number))
    half.until(lambda: len(half.kept) == 3)
    half.stop()
    again = Half(tmp_path)
    assert again.loaded == [entry(number) for number in range(3)]
    again.stop()
    again.close()


def test_an_acknowledged_change_survives_the_sudden_death_of_everything(half: Half) -> None:
    half.put(entry(1))
    half.until(lambda: half.kept)
    pid = half.keeper.pid
    os.kill(pid, signal.SIGKILL)
    status_of(pid)
    half.keeper._stopping = True
    assert half.content() == {"console-1": entry(1)}


def test_a_storm_of_new_consoles_needs_few_batches(half: Half) -> None:
    for number in range(500):
        half.put(entry(number))
    half.until(lambda: len(half.kept) == 500)
    assert half.keeper._number <= 10


@pytest.mark.parametrize("name", ["\x01" * 256, "\U0001f4bb" * 256, "\udcff" * 10], ids=ascii)
def test_names_of_any_sort_fit_into_the_packets_both_ways(half: Half, tmp_path: Path, name: str) -> None:
    if name.startswith("\udcff"):
        name = name.encode("utf-8", "replace").decode()
    for number in range(300):
        half.put(entry(number, name))
    half.until(lambda: len(half.kept) == 300)
    half.stop()
    again = Half(tmp_path)
    assert again.loaded is not None
    assert {each.name for each in again.loaded} == {name}
    assert len(again.loaded) == 300
    again.stop()
    again.close()


def test_only_the_last_word_about_a_console_counts(half: Half) -> None:
    for name in ("a", "b", "c"):
        half.put(entry(1, name))
    half.until(lambda: len(half.kept) == 3)
    half.stop()
    assert half.content()["console-1"].name == "c"


def test_a_port_can_go_from_one_console_to_another(half: Half) -> None:
    half.put(entry(1, port=50000))
    half.until(lambda: len(half.kept) == 1)
    half.keeper.forget("console-1")
    half.put(entry(2, port=50000))
    half.until(lambda: len(half.kept) == 2)
    half.stop()
    assert half.content() == {"console-2": entry(2, port=50000)}


def test_what_was_on_its_way_when_the_keeper_died_is_told_to_the_next_one(half: Half) -> None:
    pid = half.keeper.pid
    os.kill(pid, signal.SIGSTOP)
    for number in range(5):
        half.put(entry(number))
    half.keeper.flush()
    half.kill()
    half.until(lambda: len(half.kept) == 5)
    half.stop()
    assert len(half.content()) == 5


def test_what_is_put_while_there_is_no_keeper_waits_for_the_next_one(half: Half) -> None:
    half.kill()
    half.put(entry(1))
    half.until(lambda: half.kept)
    half.stop()
    assert half.content() == {"console-1": entry(1)}


def test_a_keeper_that_dies_again_and_again_costs_nothing(half: Half) -> None:
    for number in range(5):
        half.put(entry(number))
        half.kill()
        half.until(lambda: half.keeper.pid)
    half.until(lambda: len(half.kept) == 5)
    half.stop()
    assert len(half.content()) == 5


def test_a_keeper_that_cannot_load_the_map_is_told_apart_from_one_that_dies_later(half: Half) -> None:
    half.keeper._on_loaded = lambda _entries: None
    alive = half.keeper.pid
    assert not half.keeper.died("exited with 70")
    half.keeper._on_loaded = None
    pid = half.keeper.pid
    half.keeper.stop()
    assert pid == 0
    assert status_of(alive) == 0


def test_what_the_disk_refuses_is_kept_when_it_takes_it(half: Half) -> None:
    half.sign.touch()
    half.put(entry(1))
    for _ in range(10):
        turn(half.loop)
    assert half.kept == []
    half.sign.unlink()
    half.until(lambda: half.kept)
    half.stop()
    assert half.content() == {"console-1": entry(1)}


def test_what_the_disk_refused_does_not_overwrite_what_came_later(half: Half) -> None:
    half.sign.touch()
    half.put(entry(1, "old"))
    half.until(lambda: half.keeper._failing)
    half.put(entry(1, "new"))
    half.keeper.flush()
    half.keeper.forget("console-2")
    half.sign.unlink()
    half.until(lambda: len(half.kept) == 2)
    half.stop()
    assert half.content()["console-1"].name == "new"


def test_the_last_changes_are_on_the_disk_when_the_keeper_has_ended(half: Half) -> None:
    """Also when the master has not read what was acknowledged before."""
    for number in range(200):
        half.put(entry(number))
        if number % 20 == 0:
            half.keeper.flush()
    half.stop()
    assert len(half.content()) == 200


def test_the_last_changes_are_on_the_disk_though_the_disk_refused_before(half: Half) -> None:
    half.sign.touch()
    half.put(entry(1))
    half.until(lambda: half.keeper._failing)
    half.put(entry(2))
    half.sign.unlink()
    half.stop()
    assert set(half.content()) == {"console-1", "console-2"}


def test_a_keeper_whose_master_was_killed_ends_with_everything_written(half: Half) -> None:
    for number in range(50):
        half.put(entry(number))
    half.keeper.flush()
    half.keeper._stopping = True
    pid = half.keeper.pid
    assert half.keeper.channel is not None
    half.keeper.channel.close()  # as the kernel does when the master dies
    assert os.WEXITSTATUS(status_of(pid)) == 0
    assert len(half.content()) == 50


def test_what_finds_no_room_while_the_disk_stalls_is_kept_in_its_order(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "QUEUE_LIMIT", 300)
    pid = half.keeper.pid
    os.kill(pid, signal.SIGSTOP)
    for number in range(1000):
        half.put(entry(number % 300, f"{number}"))
        half.keeper.flush()
    os.kill(pid, signal.SIGCONT)
    half.until(lambda: len(half.kept) == 1000)
    assert half.keeper.settled
    assert half.keeper.pid == pid
    half.stop()
    names = {each.name for each in half.content().values()}
    assert names == {str(number) for number in range(700, 1000)}


def test_a_keeper_that_cannot_be_told_something_is_replaced_and_the_next_one_is_told_in_order(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "QUEUE_LIMIT", 5)
    monkeypatch.setattr(portkeeper, "AHEAD", 1000)
    pid = half.keeper.pid
    os.kill(pid, signal.SIGSTOP)
    for number in range(1000):
        half.put(entry(number % 10, f"{number}"))
        half.keeper.flush()
    assert half.keeper.channel is None
    monkeypatch.setattr(channel, "QUEUE_LIMIT", 4096)
    status_of(pid)
    assert half.keeper.died("killed by SIGKILL")
    half.until(lambda: len(half.kept) == 1000)
    half.stop()
    assert {each.name for each in half.content().values()} == {str(number) for number in range(990, 1000)}


def test_a_keeper_that_has_gone_before_it_is_told_anything_is_replaced(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    half.kill()
    fork = half.nursery.keeper

    def stillborn(open_map: Callable[[], Backend]) -> tuple[int, socket.socket]:
        pid, sock = fork(open_map)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid, sock

    monkeypatch.setattr(half.nursery, "keeper", stillborn)
    half.keeper._on_loaded = half._loaded
    half.keeper._required = False
    half.loaded = None
    half.until(lambda: half.keeper.pid)
    monkeypatch.setattr(half.nursery, "keeper", fork)
    assert half.keeper.channel is None
    status_of(half.keeper.pid)
    assert half.keeper.died("killed by SIGKILL")
    half.until(lambda: half.loaded is not None)
