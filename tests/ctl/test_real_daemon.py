"""vspcctl with the real daemon: the JSON contract, and how sessions end when a process of the daemon does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.ctl.conftest import Terminal, command, run
from tests.system.daemon import Daemon
from tests.system.simulator import Simulator

Terminals = Callable[..., Terminal]

CONTRACT = {
    "status": {"version", "pid", "uptime", "listeners", "certificate", "totals", "consoles", "refused"},
    "certificate": {"sha1", "sha256", "not_after", "subject", "names"},
    "console": {
        *(
            "id",
            "uuid",
            "label",
            "name",
            "state",
            "since",
            "last_seen",
            "peer",
            "tls",
            "port",
            "socket",
            "log",
            "log_trouble",
        ),
        *("worker", "bytes_in", "bytes_out", "not_logged", "bios_uuid", "location_uuid", "line", "moves"),
        "clients",
    },
    "worker": {"pid", "uss", "cpu"},
    "client": {"id", "kind", "from", "mode", "lag", "since"},
    "move": {"when", "from", "to", "goahead_ms", "peer_ms", "complete_ms", "done_ms", "held", "outcome"},
}
"""What programs rely on in the JSON; it may only grow."""


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path: the name of a Unix socket holds 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vspcctl-"))
    yield path
    shutil.rmtree(path)


def running(daemon: Daemon) -> Iterator[Daemon]:
    try:
        yield daemon.start()
    finally:
        daemon.clean_up()


@pytest.fixture
def daemon(root: Path) -> Iterator[Daemon]:
    yield from running(Daemon(root))


@pytest.fixture
def secured(root: Path) -> Iterator[Daemon]:
    """A daemon with a certificate."""
    made = run("cert", "--self-signed", "localhost", "--out", str(root))
    assert made.returncode == 0, made.stderr
    files = (f"tls.certificate={root}/vspcd-cert.pem", f"tls.key={root}/vspcd-key.pem")
    yield from running(Daemon(root, *files))


def attached(daemon: Daemon, terminals: Terminals) -> Terminal:
    daemon.wait_open("lab")
    terminal = terminals(*command("--root", str(daemon.root), "console", "lab"))
    daemon.wait_clients("lab", 1)
    terminal.see(b"[vspcctl: on lab")
    return terminal


def records(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """One record of each kind."""
    status = json.loads(daemon.ctl("status", "--json").stdout)
    (console,) = status["consoles"]
    return {
        "status": status,
        "certificate": status["certificate"],
        "console": console,
        "worker": console["worker"],
        "client": console["clients"][0],
        "move": console["moves"][0],
    }


def test_the_json_has_every_promised_key(secured: Daemon, terminals: Terminals) -> None:
    with Simulator(secured, "lab", "--vmotion-every", "0.3", "--hosts", "127.0.0.2,127.0.0.3"):
        attached(secured, terminals)
        secured.wait_console("lab", lambda console: bool(console["moves"]), "has moved")
        found = records(secured)
    assert {kind: keys - set(found[kind]) for kind, keys in CONTRACT.items() if keys - set(found[kind])} == {}


def test_a_stop_of_the_daemon_is_its_loss_for_a_session(daemon: Daemon, terminals: Terminals) -> None:
    with Simulator(daemon, "lab"):
        session = attached(daemon, terminals)
        assert daemon.ctl("stop").returncode == 0
        assert (session.wait(), session.is_restored) == (4, True)
    assert b"[vspcctl: the daemon has ended the session: vspcd is stopping]" in session.output


def test_a_session_goes_on_when_the_daemon_is_killed(daemon: Daemon, terminals: Terminals) -> None:
    with Simulator(daemon, "lab"):
        session = attached(daemon, terminals)
        daemon.signal(signal.SIGKILL)
        daemon.wait_end()
        session.type(b"meanwhile")
        session.see(b"meanwhile")
        daemon.start()
        session.type(b"afterwards")
        session.see(b"afterwards")
        daemon.wait_clients("lab", 1)


def test_a_session_goes_on_when_the_worker_is_killed(daemon: Daemon, terminals: Terminals) -> None:
    with Simulator(daemon, "lab"):
        session = attached(daemon, terminals)
        session.type(b"before")
        session.see(b"before")
        os.kill(daemon.worker("lab"), signal.SIGKILL)
        session.type(b" and after")
        assert b"before" not in session.see(b" and after")
        session.type(b"\x1d.")
        assert (session.wait(), session.is_restored) == (0, True)
