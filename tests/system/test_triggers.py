"""Triggers with the real daemon: what is found, how often it is told, and that nothing slows a console."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.configuring import problems
from tests.system import processes
from tests.system.clients import UnixClient
from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon
from tests.system.test_hooks import at_work, events, noting
from tests.system.vm import FakeVm
from tests.system.wait import throughout, until

TITLE = "vspcd: watcher"


def trigger(root: Path, more: str = "", pattern: str = "panic") -> str:
    return f"triggers=[{{name: one, pattern: '{pattern}', gather: 100ms, run: {noting(root)}{more}}}]"


def watcher(daemon: Daemon) -> int:
    found = until(
        lambda: [pid for pid in processes.children(daemon.pid) if processes.title(pid) == TITLE],
        "the watcher is there",
    )
    return found[0]


def told(root: Path, number: int = 1) -> list[dict[str, Any]]:
    return until(lambda: events(root) if len(events(root)) >= number else None, f"{number} were told")


def test_a_line_that_matches_is_told_with_all_facts(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root))
    with daemon.dial(name="web01") as vm:
        vm.send(b"booting\r\n\x1b[31mKernel pa")
        vm.send(b"nic\x1b[0m - not syncing\r\n")
        (event,) = told(root)
        assert (event["event"], event["trigger"], event["name"]) == ("triggered", "one", "web01")
        assert (event["line"], event["consoles"], event["console"]) == (
            "Kernel panic - not syncing", 1, vm.console
        )  # fmt: skip
    daemon.wait_log("triggered", "trigger=one", "name=web01")


def test_a_prompt_is_a_line_too_and_is_told_once(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms", "login: "))
    with daemon.dial(name="web01") as vm:
        vm.send(b"web01 login: ")
        told(root)
        vm.send(b"root\r\nPassword: ")
        vm.send(b"\r\nweb01 login: ")
        assert [each["matches"][0]["lines"] for each in told(root, 2)] == [1, 1]


def test_many_vms_are_told_together_and_each_once_in_a_while(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root, ", every: 1h").replace("100ms", "2s"))
    vms = [daemon.dial(name=f"web{number:02}") for number in range(5)]
    for _ in range(3):
        for vm in vms:
            vm.send(b"panic\r\n")
    (event,) = told(root)
    assert event["consoles"] == 5
    assert sorted(each["name"] for each in event["matches"]) == [vm.name for vm in vms]
    vms[0].send(b"panic again\r\n")
    assert throughout(lambda: len(events(root)) == 1, 3)
    for vm in vms:
        vm.close()


def test_patterns_of_consoles_are_obeyed(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms, consoles: ['db*']"))
    with daemon.dial(name="web01") as web, daemon.dial(name="db01") as db:
        web.send(b"panic of web\r\n")
        db.send(b"panic of db\r\n")
        assert [each["line"] for each in told(root)] == ["panic of db"]
        web.rename("db02")
        daemon.wait_console(web.console, lambda c: bool(c["name"] == "db02"), "is renamed")
        web.send(b"panic of the renamed\r\n")
        assert [each["line"] for each in told(root, 2)][1] == "panic of the renamed"


def test_hooks_can_wait_for_triggers(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        "triggers=[{name: one, pattern: panic, gather: 0}]",
        f"hooks.rules=[{{events: [triggered], run: {noting(root)}}}]",
    )
    with daemon.dial(name="web01") as vm:
        vm.send(b"panic\r\n")
        assert told(root)[0]["trigger"] == "one"


def test_a_pattern_without_end_is_named_and_left_out(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        f"triggers=[{{name: bad, pattern: '(a+)+$', run: {noting(root)}}},"
        f" {{name: good, pattern: panic, gather: 0, every: 10ms, run: {noting(root)}}}]"
    )
    with daemon.dial(name="web01") as vm, UnixClient(daemon.socket_path("web01")) as client:
        at_work(vm, client)
        vm.send(b"a" * 100 + b"!\r\npanic\r\n")
        client.read_until(b"panic\r\n")
        daemon.wait_log("trigger-too-slow", "trigger=bad", 'pattern="(a+)+$"')
        assert told(root)[0]["trigger"] == "good"
        vm.send(b"a" * 100 + b"!\r\npanic\r\n")
        told(root, 2)
    assert daemon.log().count("trigger-too-slow") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watcher_that_dies_or_hangs_is_replaced_and_misses_nothing(
    root: Path, start_daemon: StartDaemon, number: signal.Signals
) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms"))
    with daemon.dial(name="web01") as vm, daemon.dial(name="web02") as other:
        vm.send(b"panic 1\r\n")
        told(root)
        until((root / "run" / "triggers.places").exists, "the places are kept")
        os.kill(watcher(daemon), number)
        vm.send(b"panic 2\r\n")
        other.send(b"panic of the other\r\n")
        until(
            lambda: (
                {"panic 2", "panic of the other"}
                <= {match["line"] for each in events(root) for match in each["matches"]}
            ),
            "both are told",
        )


def master_dies(daemon: Daemon) -> None:
    processes.kill(daemon.pid)
    daemon.wait_end()
    daemon.start()


def upgraded(daemon: Daemon) -> None:
    assert daemon.ctl("upgrade").returncode == 0


@pytest.mark.parametrize("what", [master_dies, upgraded])
def test_what_a_vm_says_while_there_is_no_master_is_told_afterwards(
    root: Path, start_daemon: StartDaemon, what: Any
) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms"))
    with daemon.dial(name="web01") as vm:
        vm.send(b"panic 1\r\n")
        told(root)
        what(daemon)
        vm.send(b"panic 2\r\n")
        assert [each["line"] for each in told(root, 2)][:2] == ["panic 1", "panic 2"]


def test_rotations_hide_nothing(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms", "panic [0-9]+"), "log.max_size=20000")
    with daemon.dial(name="web01") as vm, UnixClient(daemon.socket_path("web01")) as client:
        at_work(vm, client)
        for number in range(5):
            vm.send(b"x" * 78 + b"\r\n")
            vm.send((b"y" * 78 + b"\r\n") * 240 + b"panic %d\r\n" % number)
            client.read_until(b"panic %d\r\n" % number)
            told(root, number + 1)
    assert [each["line"] for each in events(root)] == [f"panic {number}" for number in range(5)]


def test_a_stop_begins_anew_and_a_reload_changes_triggers(root: Path, start_daemon: StartDaemon) -> None:
    config = root / "vspcd.yaml"
    text = "{{name: {0}, pattern: {0}, gather: 0, every: 10ms, run: %s}}" % noting(root)  # noqa: UP031
    config.write_text("triggers:\n  - " + text.format("panic"))
    daemon = start_daemon(config=config)
    with daemon.dial(name="web01") as vm:
        vm.send(b"panic\r\n")
        told(root)
        config.write_text("triggers:\n  - " + text.format("oops"))
        assert daemon.ctl("reload").returncode == 0
        vm.send(b"panic\r\noops\r\n")
        assert [each["trigger"] for each in told(root, 2)] == ["panic", "oops"]
        config.write_text("")
        assert daemon.ctl("reload").returncode == 0
        until(lambda: TITLE not in daemon.titles().values(), "the watcher has ended")
        assert not (root / "run" / "triggers.places").exists()


def test_a_flood_does_not_slow_the_console(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root, ", every: 10ms", "xyz z|panic"))
    with daemon.dial(name="web01") as vm, UnixClient(daemon.socket_path("web01")) as client:
        flood(vm, client)
        vm.send(b"\r\npanic\r\n")
        assert told(root)[-1]["line"] == "panic"


def flood(vm: FakeVm, client: UnixClient) -> None:
    at_work(vm, client)
    piece = (b"xyz " * 19 + b"\r\n") * 100
    for _ in range(50):
        vm.send(piece)
        client.read(len(piece))


def test_triggers_without_logs_or_without_anything_to_do_are_told_at_the_check(root: Path) -> None:
    some = "triggers=[{name: one, pattern: x, run: /bin/true}]"
    (problem,) = problems(some, "log.dir=off")
    assert "there are none; set log.dir" in problem
    (problem,) = problems("triggers=[{name: one, pattern: x}]")
    assert "trigger 'one' does nothing" in problem


def test_facts_are_json(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(trigger(root))
    with daemon.dial(name="web01") as vm:
        vm.send(b'panic \xff "quoted" $(x)\r\n')
        assert json.dumps(told(root)[0]["line"]) == json.dumps('panic � "quoted" $(x)')
