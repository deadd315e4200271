"""The disk of the logs is full, fails, or is read-only: the console goes on, and what is not logged is counted."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.clients import TcpClient, TelnetClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.disks import (
    Disk,
    broken,
    image,
    is_complete,
    joined,
    missing,
    mount,
    small_disk,
    wait_trouble,
    wait_works,
)
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.wait import until

FULL = "No space left on device"
LINE = 64


@pytest.fixture
def disk(root: Path, stack: ExitStack) -> Disk:
    """The daemon's log folder is a file system of its own."""
    return stack.enter_context(small_disk(root / "log", "2M"))


@pytest.fixture
def start(disk: Disk, start_daemon: StartDaemon) -> StartDaemon:
    return lambda *settings: start_daemon("log.reserve=off", *settings)


class Stream:
    """A VM that says numbered lines; ``said`` is all of them. A client watches."""

    def __init__(
        self, daemon: Daemon, stack: ExitStack, name: str = "web01", kind: type[TcpClient] = TcpClient
    ) -> None:
        self.daemon = daemon
        self.vm: FakeVm = stack.enter_context(daemon.dial(name=name))
        self.name = self.vm.console
        self.log = daemon.log_file(self.name)
        # TCP, whose counters make it exact over a death; a Unix socket may see one send twice.
        self.client = stack.enter_context(kind(daemon.port(self.name)))
        if isinstance(self.client, TelnetClient):
            self.client.negotiated()
        self.client.send(b"!")
        assert self.vm.read(1) == b"!"
        self.said = b""

    def say(self, lines: int) -> None:
        """Say so many lines, and see them at the client."""
        more = numbered(len(self.said) // LINE, lines)
        self.said += more
        self.vm.send(more)
        assert self.client.read(len(more)) == more

    def wait_complete(self) -> None:
        until(lambda: is_complete(self.log, self.said), "all that waited is in the log")

    def not_logged(self) -> int:
        return int(self.daemon.console(self.name)["not_logged"])

    def told_by_index(self) -> int:
        lines = [line.split(" ", 3) for line in self.log.with_suffix(".idx").read_text().splitlines()]
        return sum(json.loads(line[3])["bytes"] for line in lines if line[2] == "lost")


def test_what_is_said_while_the_disk_is_full_is_logged_when_there_is_room(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start(), stack)
    stream.say(1000)
    disk.fill()
    stream.say(5000)
    wait_trouble(stream.daemon, stream.name, FULL)
    disk.make_room()
    stream.wait_complete()  # the VM says nothing more
    wait_works(stream.daemon, stream.name)
    assert joined(stream.log) == stream.said
    assert stream.not_logged() == 0


def test_what_the_spool_has_no_room_for_is_counted_everywhere(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start("log.spool=64K"), stack)
    stream.say(1000)
    disk.fill()
    stream.say(3000)
    wait_trouble(stream.daemon, stream.name, FULL)
    before = stream.not_logged()
    disk.make_room()
    wait_works(stream.daemon, stream.name)
    stream.say(1000)
    stream.wait_complete()
    lost = missing(joined(stream.log), stream.said)
    assert 0 < lost < 3000 * LINE - 60000
    assert lost == before == stream.not_logged() == stream.told_by_index()


def test_without_a_spool_the_marker_tells_all(disk: Disk, start: StartDaemon, stack: ExitStack) -> None:
    stream = Stream(start("log.spool=off"), stack)
    stream.say(100)
    disk.fill()
    stream.say(1000)
    disk.make_room()
    wait_works(stream.daemon, stream.name)
    stream.say(100)
    lost = missing(joined(stream.log), stream.said)
    assert 0 < lost <= 1000 * LINE
    assert lost == stream.not_logged() == stream.told_by_index()


@pytest.mark.parametrize("kind", [TcpClient, TelnetClient])
@pytest.mark.parametrize("spool", ["off", "64K", "1M"])
def test_a_worker_that_dies_while_the_disk_is_full_costs_nothing_that_is_not_counted(
    disk: Disk, start: StartDaemon, stack: ExitStack, spool: str, kind: type[TcpClient]
) -> None:
    stream = Stream(start(f"log.spool={spool}"), stack, kind=kind)
    stream.say(1000)
    disk.fill()
    for _ in range(3):
        stream.say(1000)
        kill_worker(stream)
    stream.say(1000)
    counted = stream.not_logged()
    disk.make_room()
    wait_works(stream.daemon, stream.name)
    stream.say(1000)
    stream.wait_complete()
    lost = missing(joined(stream.log), stream.said)
    assert lost == counted == stream.not_logged() == stream.told_by_index()
    assert bool(lost) == (spool != "1M")


def kill_worker(stream: Stream) -> None:
    pid = stream.daemon.worker(stream.name)
    processes.kill(pid)
    until(
        lambda: (stream.daemon.console(stream.name)["worker"] or {"pid": pid})["pid"] != pid,
        "another goes on",
    )


def test_what_waits_in_the_spool_outlives_the_daemon(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start(), stack)
    stream.say(1000)
    disk.fill()
    stream.say(1000)
    wait_trouble(stream.daemon, stream.name, FULL)
    stream.daemon.stop()
    disk.make_room()
    stream.daemon.start()
    stack.enter_context(FakeVm(stream.daemon.proxy, uuid=stream.vm.uuid).handshake())
    stream.wait_complete()
    assert joined(stream.log) == stream.said


@pytest.mark.parametrize("worker_first", [False, True])
@pytest.mark.parametrize("spool", ["off", "64K"])
def test_what_the_spool_had_no_room_for_is_counted_after_the_death_of_everybody(
    disk: Disk, start: StartDaemon, stack: ExitStack, spool: str, worker_first: bool
) -> None:
    stream = Stream(start(f"log.spool={spool}"), stack)
    stream.say(1000)
    disk.fill()
    stream.say(2000)
    wait_trouble(stream.daemon, stream.name, FULL)
    if worker_first:
        kill_worker(stream)
    counted = stream.not_logged()
    processes.kill_session(stream.daemon.pid)
    stream.daemon.wait_end()
    stream.daemon.start()
    again = stack.enter_context(FakeVm(stream.daemon.proxy, uuid=stream.vm.uuid).handshake())
    wait_trouble(stream.daemon, stream.name, FULL)
    assert stream.not_logged() == counted
    disk.make_room()
    wait_works(stream.daemon, stream.name)
    again.send(b"after it all" * 6)
    stream.said += b"after it all" * 6
    stream.wait_complete()
    lost = missing(joined(stream.log), stream.said)
    assert lost == counted == stream.not_logged() == stream.told_by_index() > 0


def spool_that_waits(disk: Disk, stream: Stream) -> Path:
    """A spool whose console has nobody any more: the daemon was killed and started again."""
    disk.fill()
    stream.say(100)
    wait_trouble(stream.daemon, stream.name, FULL)
    processes.kill_session(stream.daemon.pid)
    stream.daemon.wait_end()
    stream.daemon.start()
    (spool,) = (stream.daemon.root / "run" / "journal").iterdir()
    return spool


def test_a_spool_goes_with_the_console_that_is_forgotten(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start(), stack)
    spool = spool_that_waits(disk, stream)
    assert stream.daemon.ctl("forget", stream.name).returncode == 0
    assert not spool.exists()
    stream.daemon.wait_log("spool-forgotten", stream.name, "bytes=")


def test_a_spool_goes_with_the_console_that_expires(disk: Disk, start: StartDaemon, stack: ExitStack) -> None:
    stream = Stream(start("ports.expire=1s"), stack)
    spool = spool_that_waits(disk, stream)
    until(lambda: not spool.exists(), "the spool has gone")
    assert stream.daemon.find(stream.name) is None


def test_neither_an_upgrade_nor_the_masters_death_costs_what_waits(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start("log.spool=64K"), stack)
    stream.say(1000)
    disk.fill()
    stream.say(1500)
    before = stream.daemon.worker(stream.name)
    assert stream.daemon.ctl("upgrade", "--workers").returncode == 0
    assert stream.daemon.worker(stream.name) != before
    stream.say(500)
    processes.kill(stream.daemon.pid)
    stream.daemon.wait_end()
    stream.daemon.start()
    stream.daemon.wait_state(stream.name, "connected")
    stream.say(500)
    counted = stream.not_logged()
    disk.make_room()
    wait_works(stream.daemon, stream.name)
    stream.say(10)
    stream.wait_complete()
    lost = missing(joined(stream.log), stream.said)
    assert lost == counted == stream.not_logged() == stream.told_by_index() > 0


def test_what_waits_is_logged_when_vm_and_client_are_gone(
    disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    stream = Stream(start(), stack, kind=TelnetClient)  # which is gone as soon as it closes
    stream.say(1000)
    disk.fill()
    stream.say(1000)
    wait_trouble(stream.daemon, stream.name, FULL)
    stream.vm.close()
    stream.client.close()
    stream.daemon.wait_clients(stream.name, 0)
    stream.daemon.wait_state(stream.name, "waiting")
    disk.make_room()
    stream.wait_complete()
    assert joined(stream.log) == stream.said
    stream.daemon.wait_console(stream.name, lambda c: c["worker"] is None, "has no worker any more")


def test_a_lagging_client_is_fed_from_the_spool(disk: Disk, start: StartDaemon, stack: ExitStack) -> None:
    stream = Stream(start(), stack)
    stream.say(1000)
    disk.fill()
    sleeper = stack.enter_context(TcpClient(stream.daemon.port(stream.name), receive_buffer=4096))
    sleeper.send(b"!")
    assert stream.vm.read(1) == b"!"
    begin = len(stream.said)
    stream.say(12000)
    assert sleeper.read(len(stream.said) - begin) == stream.said[begin:]


def test_a_disk_that_fails_each_write_is_left_alone_until_it_works(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    with ExitStack() as trouble:
        vm = stack.enter_context(FakeVm(daemon.proxy, name="web01"))
        log = daemon.root / "log" / f"{vm.console}.log"
        log.touch()
        trouble.enter_context(broken(log, daemon.pid))
        vm.handshake()
        daemon.wait_open(vm.console)
        said = numbered(0, 1000)
        vm.send(said)
        wait_trouble(daemon, vm.console, "Input/output error")
    until(lambda: joined(log) == said, "all that was said is in the log")
    wait_works(daemon, vm.console)
    assert daemon.console(vm.console)["not_logged"] == 0


def test_a_file_system_that_has_become_read_only_is_left_for_the_one_in_its_place(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    with image(root / "log", root / "ext4.img"):
        stream = Stream(start_daemon(), stack)
        stream.say(1000)
        mount("-o", "remount,abort", stream.log.parent)
        stream.say(1000)
        wait_trouble(stream.daemon, stream.name, "Read-only file system")
    stream.wait_complete()
    wait_works(stream.daemon, stream.name)
    assert joined(stream.log) == stream.said[1000 * LINE :]


def test_an_operator_sees_the_trouble_and_its_end(disk: Disk, start: StartDaemon, stack: ExitStack) -> None:
    stream = Stream(start(), stack)
    disk.fill()
    stream.say(1000)
    stream.daemon.wait_log("log-trouble", FULL)
    assert f"Logs in trouble on 1 consoles: web01 ({FULL})" in stream.daemon.ctl("status").stdout
    disk.make_room()
    stream.daemon.wait_log("log-works-again")
    assert "in trouble" not in stream.daemon.ctl("status").stdout


def test_a_console_in_trouble_does_not_touch_another_one(
    root: Path, disk: Disk, start: StartDaemon, stack: ExitStack
) -> None:
    daemon = start()
    one, two = Stream(daemon, stack, "web01"), Stream(daemon, stack, "web02")
    one.say(100)
    two.say(100)
    with broken(one.log, daemon.pid):
        one.say(100)
        two.say(1000)
        until(lambda: joined(two.log) == two.said, "the other is logged")
