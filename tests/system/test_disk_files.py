"""Somebody deletes, replaces or cuts the log files, or their folder: the log goes on, and nothing is lost by it."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import UnixClient
from tests.system.daemon import Daemon
from tests.system.disks import joined
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.wait import Deadline, until

LINE = 64
STEP = 0.05


class Talker:
    """A VM that says a few numbered lines every now and then, as long as somebody waits for something."""

    def __init__(self, daemon: Daemon, vm: FakeVm, client: UnixClient) -> None:
        self.daemon, self.vm, self.client = daemon, vm, client
        self.log = daemon.log_file(vm.console)
        self.said = b""

    def say(self, lines: int = 3) -> None:
        """Say some lines, and see them at the client."""
        more = numbered(len(self.said) // LINE, lines)
        self.said += more
        self.vm.send(more)
        assert self.client.read(len(more)) == more

    def talk(self, seconds: float) -> None:
        """Go on for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.say()
            time.sleep(STEP)
        self.say()

    def wait_seen(self) -> None:
        """Talk until the worker has looked after its files, which it does once a second."""
        self.talk(1.3)

    def wait_file(self, path: Path) -> float:
        """Talk until this file is there and holds something: how long that took."""
        deadline, begun = Deadline(f"{path} is there"), time.monotonic()
        while not path.exists() or not path.stat().st_size:
            deadline.left()
            self.say()
            time.sleep(STEP)
        return time.monotonic() - begun

    def has_all_since(self, position: int) -> bool:
        """Whether the log holds all that was said from there on, and nothing wrong before."""
        log = joined(self.log)
        return self.said.endswith(log) and len(log) >= len(self.said) - position

    def not_logged(self) -> int:
        return int(self.daemon.console(self.vm.console)["not_logged"])


@pytest.fixture
def talker(daemon: Daemon, stack: ExitStack) -> Talker:
    vm = stack.enter_context(daemon.dial())
    client = stack.enter_context(UnixClient(daemon.socket_path(vm.console)))
    daemon.wait_clients(vm.console, 1)
    talker = Talker(daemon, vm, client)
    talker.wait_seen()
    return talker


def test_a_deleted_log_directory_is_made_again_within_a_second_and_loses_nothing_said_since(
    talker: Talker,
) -> None:
    folder, before = talker.log.parent, len(talker.said)
    shutil.rmtree(folder)
    took = talker.wait_file(talker.log)
    assert took < 1.5  # a second, and what the test itself takes
    until(lambda: talker.has_all_since(before), "all that was said since is in the log")
    assert folder.stat().st_mode & 0o777 == 0o750
    until((folder / "by-name" / "web01.log").exists, "the link by name is there again")
    assert talker.not_logged() == 0


def test_a_console_that_begins_after_the_directory_was_deleted_is_logged(
    daemon: Daemon, stack: ExitStack
) -> None:
    shutil.rmtree(daemon.root / "log")
    vm = stack.enter_context(daemon.dial())
    vm.send(b"hello")
    until(lambda: joined(daemon.log_file(vm.console)) == b"hello", "it is in the log")


def test_a_log_directory_that_was_moved_away_is_made_again(talker: Talker) -> None:
    folder = talker.log.parent
    folder.rename(folder.with_name("moved"))
    moved = folder.with_name("moved") / talker.log.name
    talker.wait_file(talker.log)
    until(lambda: moved.read_bytes() + joined(talker.log) == talker.said, "each byte is in one of the two")


def test_a_deleted_log_is_begun_again_with_all_that_was_said_since(talker: Talker) -> None:
    before = len(talker.said)
    talker.log.unlink()
    talker.wait_file(talker.log)
    until(lambda: talker.has_all_since(before), "all that was said since is in the log")
    assert talker.not_logged() == 0


def test_a_log_that_was_replaced_goes_on_behind_what_the_new_file_holds(talker: Talker) -> None:
    before = len(talker.said)
    other = talker.log.with_name("other")
    other.write_bytes(b"not ours\n")
    other.rename(talker.log)
    talker.wait_seen()
    log = talker.log.read_bytes()
    assert log.startswith(b"not ours\n")
    assert talker.said.endswith(log[9:])
    assert len(log) - 9 >= len(talker.said) - before


def test_a_log_that_was_renamed_goes_on_in_a_new_one_without_a_signal(talker: Talker) -> None:
    moved = talker.log.with_suffix(".moved")
    talker.log.rename(moved)
    talker.wait_file(talker.log)
    until(lambda: moved.read_bytes() + joined(talker.log) == talker.said, "each byte is in one of the two")


def test_a_log_that_was_cut_is_found_by_its_positions_again(talker: Talker) -> None:
    talker.log.write_bytes(b"")
    begun = len(talker.said)
    talker.wait_seen()
    assert talker.log.read_bytes() == talker.said[begun:]
    lines = [line.split(" ") for line in talker.log.with_suffix(".idx").read_text().splitlines()]
    assert [line[1] for line in lines if line[2] == "base"][-1] == str(begun)


def test_a_deleted_index_is_begun_again(talker: Talker) -> None:
    index = talker.log.with_suffix(".idx")
    index.unlink()
    talker.wait_seen()
    assert index.read_text().splitlines()[0].endswith(" 0 base")
    assert talker.log.read_bytes() == talker.said
