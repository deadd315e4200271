"""The simulator as people run it."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.simulator.concentrator import Concentrator, Leg
from tests.simulator.stories import alive, in_loop, poll
from vspcd.simulator import main, vmotion
from vspcd.simulator.host import quiet
from vspcd.simulator.options import VARIANTS, add_arguments


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(options)


@contextlib.contextmanager
def simulate(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "vspcd.simulator", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize(
    ("pattern", "count", "names"),
    [
        (None, 1, ["vm"]),
        (None, 2, ["vm1", "vm2"]),
        ("web01", 1, ["web01"]),
        ("web%02d", 2, ["web01", "web02"]),
        ("100%", 1, ["100%"]),
    ],
)
def test_names(pattern: str, count: int, names: list[str]) -> None:
    assert main.names_of(pattern, count) == names


@pytest.mark.parametrize("pattern", ["web", "web%s%s", "web%", "%%"])
def test_a_pattern_that_gives_no_names_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="--name"):
        main.names_of(pattern, 2)


def test_a_vm_s_uuid_is_always_the_same() -> None:
    first, again = (main.machines_of(parsed("--name", "web01"), quiet)[0] for _ in range(2))
    other = main.machines_of(parsed("--name", "web02"), quiet)[0]
    assert first.identity.uuid == again.identity.uuid != other.identity.uuid


def test_hosts_share_the_vms() -> None:
    machines = main.machines_of(parsed("--vms", "3", "--hosts", "127.0.0.2,127.0.0.3"), quiet)
    assert [machine.port.source for machine in machines] == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


def test_random_is_every_variant() -> None:
    assert parsed("--vmotion", "random").vmotion == list(vmotion.VARIANTS)


def test_the_help_names_the_variants_that_there_are() -> None:
    assert list(VARIANTS) == list(vmotion.VARIANTS)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--vms", "2", "--uuid", "0" * 32], "--uuid is for one VM"),
        (["--vms", "2", "--connect", "unix:/x"], "--connect is for one port"),
        (["--vms", "2", "--name", "web"], "is no pattern such as web%02d"),
        (["--vmotion-every", "1"], "--vmotion-every needs --hosts"),
        (["--vms", "0"], "is not a number from 1 up"),
        (["--uuid", "12"], "not a UUID"),
        (["--proxy", "13370"], "is not HOST:PORT"),
        (["--vmotion", "sideways"], "no variant is named 'sideways'"),
        (["--script", "/nowhere"], "No such file"),
        (["--connect", "/dev/ttyS0"], "is not unix:PATH"),
        (["--echo", "--shell"], "not allowed with"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(options: list[str], complaint: str) -> None:
    with simulate(*options) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 2
        assert complaint in errors


def test_events_are_one_line_each_and_sigterm_ends_it_cleanly() -> None:
    async def story() -> None:
        async with Concentrator() as proxy:
            address = f"127.0.0.1:{proxy.address[1]}"
            with simulate("--proxy", address, "--name", "web01", "--shell", "sleep 1000") as process:
                await proxy.until(lambda: bool(proxy.consoles))
                await poll(lambda: bool(psutil.Process(process.pid).children(recursive=True)))
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                await proxy.legs[0].ended.wait()
                output, errors = process.communicate(timeout=10)
            assert (process.returncode, errors) == (0, "")
            lines = output.splitlines()
            assert lines[0].startswith(f"web01: dialled {address} from 127.0.0.1:")
            assert lines[1] == "web01: accepted: WILL-PROXY"
            await poll(lambda: not any(alive(child.pid) for child in children))

    in_loop(story())


def test_once_tells_by_its_status_that_a_vm_was_not_accepted(nowhere: str) -> None:
    with simulate("--proxy", nowhere, "--once") as process:
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "vm: cannot dial: Connection refused\n")


def test_quiet_prints_no_events(nowhere: str) -> None:
    with simulate("--proxy", nowhere, "--once", "--quiet") as process:
        assert process.communicate(timeout=30) == ("", "")


def test_vms_are_moved_and_the_moves_counted() -> None:
    async def story() -> None:
        async with Concentrator() as proxy:
            options = ["--proxy", f"127.0.0.1:{proxy.address[1]}", "--vms", "2", "--quiet"]
            moves = ["--vmotion-every", "0.05", "--hosts", "127.0.0.2,127.0.0.3"]
            with simulate(*options, *moves) as process:
                await proxy.until(lambda: len(proxy.legs) > 10)
                process.send_signal(signal.SIGINT)
                await poll(lambda: process.poll() is not None)
                output, errors = process.communicate(timeout=10)
            assert (process.returncode, errors) == (0, "")
            assert "normal: " in output
            assert "GOAHEAD after" in output

    in_loop(story())


def test_a_failed_move_is_the_exit_status() -> None:
    class Gullible(Concentrator):
        def peer(self, leg: Leg, pair: bytes) -> None:
            self.console.target = leg
            leg.session.peer_ok(pair[:4])

    async def story() -> None:
        async with Gullible() as proxy:
            moves = ["--vmotion-every", "0.05", "--hosts", "127.0.0.2,127.0.0.3", "--vmotion", "stranger"]
            with simulate("--proxy", f"127.0.0.1:{proxy.address[1]}", "--quiet", *moves) as process:
                await proxy.until(lambda: len(proxy.legs) > 4)
                process.send_signal(signal.SIGTERM)
                await poll(lambda: process.poll() is not None)
                output, _ = process.communicate(timeout=10)
            assert process.returncode == 1
            assert "stranger: " in output

    in_loop(story())
