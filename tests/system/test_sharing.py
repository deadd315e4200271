"""Sharing a console with the real daemon: modes, locks, kicks, by every way in, through deaths and upgrades."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.system.clients import PtyClient, TcpClient, TelnetClient, UnixClient
from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.test_worker_death import kill_worker
from tests.system.tls_peers import Pair, self_signed, signed, trusting
from tests.system.vm import FakeVm
from tests.system.wait import until

NOBODY = 65534
SOMEBODY = 64321


def session(daemon: Daemon, name: str, *options: str) -> PtyClient:
    return PtyClient([VSPCCTL, "--root", str(daemon.root), "console", "--replay", "0", *options, name])


def on(daemon: Daemon, vm: FakeVm, client: PtyClient) -> PtyClient:
    """Wait until somebody is on the console."""
    client.read_until(b"helps]")
    return client


def known(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(daemon.ctl("who", name, "--json").stdout)["clients"]
    return found


def modes(daemon: Daemon, name: str) -> dict[str, str]:
    return {each["kind"]: each["mode"] for each in known(daemon, name)}


def audit(daemon: Daemon) -> list[dict[str, Any]]:
    path = daemon.root / "log" / "audit.log"
    text = path.read_text() if path.exists() else ""
    # The last one may be half written.
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def refusals(daemon: Daemon) -> list[dict[str, Any]]:
    return [each for each in audit(daemon) if each["outcome"] == "refused"]


@pytest.fixture
def vm(dial: Dial) -> FakeVm:
    return dial(name="web01")


def test_a_lock_keeps_every_way_in_from_typing_until_it_ends(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    unix = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    daemon.wait_clients(vm.name, 2)
    alice = on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--lock", "--reason", "an update")))
    telnet.read_until(b"the write lock now: an update]")
    assert modes(daemon, vm.name) == {"raw": "ro", "telnet": "ro", "vspcctl": "rw"}
    unix.send(b"not this")
    telnet.send(b"nor this")
    alice.send(b"but this")
    assert vm.read(8) == b"but this"
    late = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    late.read_until(b"locked by ")
    late.read_until(b"an update]")
    refused = daemon.ctl("console", vm.name)
    assert refused.returncode == 5
    assert "web01 is locked by " in refused.stderr
    assert "an update" in refused.stderr
    watcher = stack.enter_context(session(daemon, vm.name, "--or-read-only"))
    watcher.read_until(b"read-only: locked by ")
    on(daemon, vm, watcher)
    watcher.send(b"nor that")
    watcher.read_until(b"what you type is not sent")
    assert "unlocked" in daemon.ctl("unlock", vm.name).stdout
    telnet.read_until(b"has ended: unlocked by ")
    until(lambda: modes(daemon, vm.name)["raw"] == "rw", "all may type again")
    unix.send(b"u")
    telnet.send(b"t")
    watcher.read_until(b"has ended")
    watcher.send(b"w")
    assert sorted(vm.read(3)) == sorted(b"utw")


def test_an_exclusive_console_lets_nobody_in(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--exclusive")))
    telnet = stack.enter_context(TcpClient(daemon.port(vm.name)))
    assert b"web01 is locked by " in telnet.read_to_end()
    unix = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    assert unix.read_to_end() == b""
    assert daemon.ctl("console", "-r", "--or-read-only", vm.name).returncode == 5
    assert len(daemon.console(vm.name)["clients"]) == 1


def test_who_lock_takeover_and_kick_by_command(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    first = on(daemon, vm, stack.enter_context(session(daemon, vm.name)))
    number = known(daemon, vm.name)[0]["id"]
    assert daemon.ctl("lock", vm.name, "--reason", "x").returncode == 0
    assert known(daemon, vm.name)[0]["lock"] is True
    assert "lock" in daemon.ctl("who").stdout
    second = on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--or-read-only")))
    other = next(each["id"] for each in known(daemon, vm.name) if each["id"] != number)
    assert daemon.ctl("lock", vm.name, str(other)).returncode == 5
    assert daemon.ctl("lock", vm.name, str(other), "--take-over").returncode == 0
    first.read_until(b"has taken over the write lock")
    second.send(b"mine")
    assert vm.read(4) == b"mine"
    assert daemon.ctl("kick", vm.name, str(number), "--reason", "enough").returncode == 0
    first.read_until(b"kicked by ")
    first.read_until(b"enough")
    assert first.wait() == 1
    second.send(b"\x1d.")
    assert second.wait() == 0
    until(lambda: daemon.console(vm.name)["lock"] is None, "the lock has ended with its holder")
    assert daemon.ctl("kick", vm.name, "99999").returncode == 3


def test_a_lock_lives_through_kills_of_the_worker_an_upgrade_and_the_masters_death(
    daemon: Daemon, vm: FakeVm, stack: ExitStack
) -> None:
    holder = on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--lock", "--reason", "an update")))
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    telnet.read_until(b"an update]")
    unix = stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    daemon.wait_clients(vm.name, 3)
    before = daemon.console(vm.name)["lock"]
    people = {each["id"]: (each["user"], each["since"]) for each in known(daemon, vm.name)}

    def holds() -> None:
        assert daemon.console(vm.name)["lock"] == before
        assert modes(daemon, vm.name) == {"vspcctl": "rw", "telnet": "ro", "raw": "ro"}
        unix.send(b"not this")
        telnet.send(b"nor this")
        holder.send(b"this")
        assert vm.read(4) == b"this"

    holds()
    for _ in range(3):
        kill_worker(daemon, vm.name)
        holds()
    assert daemon.ctl("upgrade", timeout=90).returncode == 0
    holds()
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    holds()
    assert {each["id"]: (each["user"], each["since"]) for each in known(daemon, vm.name)} == people
    assert daemon.ctl("unlock", vm.name).returncode == 0
    telnet.read_until(b"has ended")
    telnet.send(b"now")
    assert vm.read(3) == b"now"


def test_an_idle_lock_ends(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("locks.idle=2s")
    vm = stack.enter_context(daemon.dial(name="web01"))
    holder = on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--lock")))
    holder.read_until(b"your lock has ended: nothing typed for 2 s")
    assert daemon.console(vm.name)["lock"] is None


# Who may


def opened(root: Path) -> None:
    """Let other users come as far as the sockets."""
    for each in (root, root / "run"):
        each.chmod(0o755)


def as_user(daemon: Daemon, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
    """vspcctl as another user: one process that asks, since that user may not be able to read the interpreter."""
    script = (
        "import os,sys; from vspcd.ctl import commandline, main, people, status, commands, console, session, info\n"
        "import vspcd.ctl.overview, vspcd.ctl.details, encodings.idna, locale, grp, pwd\n"
        "commandline.parse(sys.argv[1:])\n"
        f"os.setgroups([]); os.setresgid({uid},{uid},{uid}); os.setresuid({uid},{uid},{uid})\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "--root", str(daemon.root), *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def connect_as(path: str, uid: int) -> socket.socket:
    """A connection that this user has opened."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    os.seteuid(uid)
    try:
        sock.connect(path)
    finally:
        os.seteuid(0)
    return sock


RULES = (
    f"access=[{{users: ['{NOBODY}'], consoles: ['web*'], may: watch}},"
    f" {{users: ['{SOMEBODY}'], may: write}}, {{addresses: [127.0.0.1], consoles: ['web*'], may: watch}}]"
)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_rules_hold_for_tools_sockets_and_ports(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon(RULES, "sockets.mode=0666")
    opened(daemon.root)
    vm = stack.enter_context(daemon.dial(name="web01"))
    other = stack.enter_context(daemon.dial(name="db01"))
    listed = as_user(daemon, NOBODY, "list")
    assert "web01" in listed.stdout, listed.stderr
    assert "db01" not in listed.stdout
    assert "db01" in as_user(daemon, SOMEBODY, "list").stdout
    denied = as_user(daemon, NOBODY, "console", "db01")
    assert denied.returncode == 5
    assert "may not watch db01" in denied.stderr
    denied = as_user(daemon, NOBODY, "console", "web01")
    assert denied.returncode == 5
    assert "may only watch web01" in denied.stderr
    for words in (("stop",), ("reload",), ("upgrade",), ("forget", "web01")):
        done = as_user(daemon, SOMEBODY, *words)
        assert (done.returncode, "may not" in done.stderr) == (5, True), (words, done)
    watcher = connect_as(daemon.socket_path(vm.name), NOBODY)
    writer = connect_as(daemon.socket_path(other.name), SOMEBODY)
    stranger = connect_as(daemon.socket_path(other.name), NOBODY)
    assert stranger.recv(10) == b""
    watcher.send(b"not this")
    writer.send(b"this")
    assert other.read(4) == b"this"
    vm.send(b"seen")
    assert watcher.recv(4) == b"seen"
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    telnet.read_until(b"you may only watch web01]")
    closed = stack.enter_context(TcpClient(daemon.port(other.name)))
    assert b"may not watch db01" in closed.read_to_end()
    whose = {NOBODY, SOMEBODY, None}
    until(lambda: {each.get("uid") for each in refusals(daemon)} >= whose, "all refusals are written down")
    assert any("may not watch db01" in each["reason"] for each in refusals(daemon) if "from" in each)
    for sock in (watcher, writer, stranger):
        sock.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_one_user_cannot_lock_for_another(start_daemon: StartDaemon, stack: ExitStack) -> None:
    rules = f"access=[{{users: ['{NOBODY}', '{SOMEBODY}'], may: write}}]"
    daemon = start_daemon(rules, "sockets.mode=0666")
    opened(daemon.root)
    vm = stack.enter_context(daemon.dial(name="web01"))
    sock = connect_as(daemon.socket_path(vm.name), NOBODY)
    daemon.wait_clients(vm.name, 1)
    number = str(known(daemon, vm.name)[0]["id"])
    assert as_user(daemon, SOMEBODY, "lock", "web01", number).returncode == 5
    assert as_user(daemon, NOBODY, "lock", "web01").returncode == 0
    assert as_user(daemon, SOMEBODY, "unlock", "web01").returncode == 5
    assert as_user(daemon, SOMEBODY, "kick", "web01", number).returncode == 5
    assert as_user(daemon, NOBODY, "unlock", "web01").returncode == 0
    sock.close()


# What is written down


def test_the_audit_log_tells_who_did_what(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    on(daemon, vm, stack.enter_context(session(daemon, vm.name, "--lock", "--reason", "an update")))
    telnet.close()
    daemon.ctl("reload")
    until(lambda: {"attach", "detach", "reload"} <= {each["what"] for each in audit(daemon)}, "it is written")
    found = audit(daemon)
    assert {"what": "attach", "via": "telnet", "name": "web01"}.items() <= found[0].items()
    assert found[0]["from"].startswith("127.0.0.1:")
    assert {"what": "attach", "via": "vspcctl", "mode": "lock", "uid": os.getuid()}.items() <= found[
        1
    ].items()
    assert oct((daemon.root / "log" / "audit.log").stat().st_mode & 0o777) == "0o640"


def test_what_happens_at_the_end_of_the_daemon_is_written_down(
    start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon()
    vm = stack.enter_context(daemon.dial(name="web01"))
    clients = [stack.enter_context(UnixClient(daemon.socket_path(vm.name))) for _ in range(30)]
    daemon.wait_clients(vm.name, len(clients))
    assert daemon.ctl("stop").returncode == 0
    told = [each["what"] for each in audit(daemon)]
    assert [told.count(what) for what in ("attach", "stop", "detach")] == [30, 1, 30]


def test_a_rotated_audit_log_is_begun_anew(daemon: Daemon, vm: FakeVm) -> None:
    path = daemon.root / "log" / "audit.log"
    daemon.ctl("reload")
    until(path.exists, "it is there")
    path.rename(path.with_suffix(".1"))
    daemon.ctl("reload")
    until(lambda: len(audit(daemon)) == 1, "another one is begun")


@pytest.mark.parametrize("wanted", [True, False])
def test_typing_is_written_down_only_where_it_is_wanted(
    wanted: bool, start_daemon: StartDaemon, stack: ExitStack
) -> None:
    daemon = start_daemon(f"audit.typing=[{'web*' if wanted else 'db*'}]")
    vm = stack.enter_context(daemon.dial(name="web01"))
    telnet = stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    daemon.wait_clients(vm.name, 1)
    telnet.send(b"pass\xff\x1bword\r")
    telnet.socket.sendall(b"\xff\xf3")
    typed = daemon.log_file(vm.name).with_suffix(".typed")
    until(lambda: any(each["what"] == "break" for each in audit(daemon)), "the break is written down")
    if not wanted:
        assert not typed.exists()
        return
    until(lambda: typed.exists() and typed.read_bytes().endswith(b"\n"), "what is typed is written down")
    lines: list[dict[str, Any]] = [json.loads(line) for line in typed.read_text().splitlines()]
    assert "".join(line["typed"] for line in lines).encode("latin-1") == b"pass\xff\x1bword\r"
    assert sum(line.get("break", 0) for line in lines) == 1
    assert lines[0]["from"].startswith("127.0.0.1:")
    assert b"\x1b" not in typed.read_bytes()
    assert oct(typed.stat().st_mode & 0o777) == "0o600"


# Certificates


def test_a_certificate_says_who_comes_to_a_tls_port(
    start_daemon: StartDaemon, stack: ExitStack, tmp_path: Path
) -> None:
    ours, authority = self_signed(tmp_path, "vspc"), self_signed(tmp_path, "authority")
    alice, bob = signed(authority, "alice"), signed(authority, "bob")
    rules = "access=[{certificates: [alice], may: write}]"
    trust = f"ports.client_ca={authority.certificate}"
    daemon = start_daemon(*ours.settings, "ports.tls=true", trust, rules)
    vm = stack.enter_context(daemon.dial(name="web01"))

    def connect(pair: Optional[Pair]) -> TcpClient:
        client = stack.enter_context(TcpClient(daemon.port(vm.name)))
        context = trusting()
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        client.socket = context.wrap_socket(client.socket)
        return client

    typist = connect(alice)
    typist.send(b"typed")
    assert vm.read(5) == b"typed"
    (known_as,) = known(daemon, vm.name)
    assert (known_as["user"], known_as["mode"]) == ("alice", "rw")
    assert b"bob may not watch web01" in connect(bob).read_to_end()
    nobody = connect(None)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        nobody.socket.recv(100)
    until(lambda: len(refusals(daemon)) == 2, "both refusals are written down")
    assert {each.get("certificate") for each in refusals(daemon)} == {"bob", None}
    assert len(daemon.console(vm.name)["clients"]) == 1


def test_locks_and_breaks_for_programs(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> None:
    on(daemon, vm, stack.enter_context(session(daemon, vm.name)))

    def told(*words: str) -> Any:
        return json.loads(daemon.ctl(*words, vm.name, "--json").stdout)

    assert told("unlock") == {"exit": 1, "error": f"{vm.name} is not locked"}
    assert (told("lock")["exit"], told("unlock")["said"]) == (0, [f"{vm.name} is unlocked"])
    done = json.loads(daemon.ctl("kick", vm.name, "9999", "--json").stdout)
    assert done == {"exit": 3, "error": f"{vm.name} has no client 9999"}
    sent = told("break", "--yes")
    assert (sent["exit"], sent["name"], sent["said"]) == (0, vm.name, ["break sent"])
