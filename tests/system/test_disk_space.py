"""How much the logs may take: a quota for each console, and a reserve that is left to the quiet ones."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.disks import Disk, joined, missing, run, small_disk, wait_trouble, wait_works
from tests.system.payload import numbered
from tests.system.vm import FakeVm
from tests.system.wait import Deadline, throughout, until

KIB = 1024
MIB = 1 << 20


def size_of_all(log: Path) -> int:
    """Bytes in all files of a console."""
    sizes = []
    for path in log.parent.glob(f"{log.stem}.*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            pass  # it has just been rotated
    return sum(sizes)


def test_all_files_of_a_console_stay_within_its_quota(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("log.max_size=64K", "log.keep=20", "log.quota=256K")
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.console)
    said = numbered(0, 32 * KIB)
    most = 0
    for at in range(0, len(said), 32 * KIB):
        vm.send(said[at : at + 32 * KIB])
        most = max(most, size_of_all(log))
    until(lambda: joined(log).endswith(said[-64:]), "the end is logged")
    assert said.endswith(joined(log))
    assert max(most, size_of_all(log)) <= 256 * KIB
    assert len(joined(log)) >= 128 * KIB


def test_a_quota_smaller_than_a_log_makes_rotation_earlier(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon("log.quota=64K")
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.console)
    said = numbered(0, 8 * KIB)
    vm.send(said)
    until(lambda: joined(log).endswith(said[-64:]), "the end is logged")
    assert said.endswith(joined(log))
    assert size_of_all(log) <= 64 * KIB


def test_a_quota_that_is_made_smaller_takes_effect_on_reload(
    start_daemon: StartDaemon, stack: ExitStack, tmp_path: Path
) -> None:
    config = tmp_path / "vspcd.yaml"
    config.write_text("log: {max_size: 32K, keep: 20}")
    daemon = start_daemon(config=config)
    vm = stack.enter_context(daemon.dial())
    log = daemon.log_file(vm.console)
    said = numbered(0, 8 * KIB)
    vm.send(said[: 4096 * 64])
    until(lambda: len(joined(log)) == 4096 * 64, "all is logged")
    config.write_text("log: {max_size: 32K, keep: 20, quota: 96K}")
    assert daemon.ctl("reload").returncode == 0
    vm.send(said[4096 * 64 :])
    until(lambda: joined(log).endswith(said[-64:]), "the end is logged")
    assert size_of_all(log) <= 96 * KIB


class Vms:
    """Two VMs on one small disk: one floods, one says a line now and then."""

    def __init__(self, daemon: Daemon, stack: ExitStack) -> None:
        self.daemon = daemon
        self.chatty: FakeVm = stack.enter_context(daemon.dial(name="chatty"))
        self.quiet: FakeVm = stack.enter_context(daemon.dial(name="quiet"))
        self.client = stack.enter_context(UnixClient(daemon.socket_path(self.chatty.console)))
        daemon.wait_clients(self.chatty.console, 1)
        self.flooded = b""

    def flood(self, size: int) -> None:
        while size > 0:
            more = numbered(len(self.flooded) // 64, KIB)
            self.flooded += more
            self.chatty.send(more)
            assert self.client.read(len(more)) == more
            size -= len(more)

    def flood_until_stopped(self) -> None:
        deadline = Deadline("the chatty log stops")
        while not self.trouble():
            deadline.left()
            self.flood(64 * KIB)
            throughout(lambda: True, 0.2)  # as a real disk would not be full within the second

    def trouble(self) -> str:
        return str(self.daemon.console(self.chatty.console)["log_trouble"] or "")


def start(daemon: StartDaemon, root: Path, stack: ExitStack, *settings: str) -> tuple[Vms, Disk]:
    disk = stack.enter_context(small_disk(root / "log", "8M"))
    return Vms(daemon("log.reserve=25%", "log.spool=64K", *settings), stack), disk


def test_a_flooding_vm_leaves_the_reserve_to_the_quiet_ones(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    vms, disk = start(start_daemon, root, stack, "log.keep=0")
    vms.flood(5 * MIB + 512 * KIB)
    vms.flood_until_stopped()
    assert vms.trouble() == "log.reserve"
    free = disk.free()
    vms.quiet.send(b"quiet but heard\n")
    log = vms.daemon.log_file(vms.quiet.console)
    until(lambda: joined(log) == b"quiet but heard\n", "the quiet one is logged")
    vms.flood(MIB)
    assert disk.free() >= free - 64 * KIB
    assert throughout(lambda: vms.trouble() == "log.reserve", 0.6)


def test_a_flooding_vm_gives_up_its_own_rotated_logs_first(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    vms, disk = start(start_daemon, root, stack, "log.max_size=256K", "log.keep=99")
    log = vms.daemon.log_file(vms.chatty.console)
    vms.flood(10 * MIB)
    until(lambda: joined(log).endswith(vms.flooded[-64:]), "the end is logged")
    assert vms.flooded.endswith(joined(log))
    assert disk.free() >= 1700 * KIB  # the reserve, but for the log that is written
    assert vms.trouble() == ""


def test_a_log_stopped_for_the_reserve_goes_on_when_there_is_more_room(
    root: Path, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    vms, disk = start(start_daemon, root, stack, "log.keep=0")
    vms.flood(5 * MIB + 512 * KIB)
    vms.flood_until_stopped()
    wait_trouble(vms.daemon, vms.chatty.console, "log.reserve")
    vms.flood(MIB)
    run("mount", "-o", "remount,size=16M", disk.path)
    wait_works(vms.daemon, vms.chatty.console)
    vms.flood(MIB)
    log = vms.daemon.log_file(vms.chatty.console)
    until(lambda: joined(log).endswith(vms.flooded[-64:]), "the end is logged")
    lost = missing(joined(log), vms.flooded)
    assert lost == vms.daemon.console(vms.chatty.console)["not_logged"] > 0
    assert b": log.reserve]" in joined(log)
