"""`vspcctl status --json` is a contract: these keys, of these types."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any, Union

import pytest

import vspcd
from tests.system.clients import TcpClient, TelnetClient, UnixClient
from tests.system.conftest import Dial
from tests.system.daemon import Daemon
from tests.system.vm import DO_PROXY, FakeVm, vmware

Types = Union[type, tuple[type, ...]]

NUMBER = (int, float)
NONE = type(None)
TOP: dict[str, Types] = {
    "version": str,
    "pid": int,
    "uptime": NUMBER,
    "listeners": dict,
    "consoles": list,
    "refused": list,
}
CONSOLE: dict[str, Types] = {
    "id": str,
    "uuid": str,
    "label": (str, NONE),
    "name": str,
    "state": str,
    "peer": (str, NONE),
    "port": (int, NONE),
    "socket": str,
    "log": (str, NONE),
    "worker": (dict, NONE),
    "bytes_in": int,
    "bytes_out": int,
    "clients": list,
}
WORKER: dict[str, Types] = {"pid": int, "uss": int, "cpu": NUMBER}
CLIENT: dict[str, Types] = {"id": (int, str), "kind": str, "from": str, "mode": str, "lag": int}
REFUSED: dict[str, Types] = {"peer": str, "reason": str, "when": NUMBER}


def status(daemon: Daemon) -> dict[str, Any]:
    done = daemon.ctl("status", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def breaches(record: dict[str, Any], contract: dict[str, Types]) -> list[str]:
    missing = [f"{key} is missing" for key in contract if key not in record]
    wrong = [
        f"{key} is {record[key]!r}"
        for key, types in contract.items()
        if key in record and not isinstance(record[key], types)
    ]
    return missing + wrong


@pytest.fixture
def full(daemon: Daemon, dial: Dial, stack: ExitStack) -> dict[str, Any]:
    """The status of a daemon with one of everything."""
    vm = dial()
    dial(name="gone").close()
    stack.enter_context(UnixClient(daemon.socket_path(vm.name)))
    stack.enter_context(TcpClient(daemon.port(vm.name))).send(b"raw")
    stack.enter_context(TelnetClient(daemon.port(vm.name))).negotiated()
    daemon.wait_clients(vm.name, 3)
    assert vm.read(3) == b"raw"
    vm.send(b"hello")
    daemon.wait_console(vm.name, lambda c: bool(c["bytes_in"] == 5 and c["bytes_out"] == 3), "has counted")
    stranger = stack.enter_context(FakeVm(daemon.proxy, uri="elsewhere"))
    for step in stranger.steps()[:4]:
        stranger.take_step(step)
    stranger.send_raw(vmware(DO_PROXY, b"Selsewhere"))
    daemon.wait_refusal("elsewhere")
    daemon.wait_state("gone", "waiting")
    return status(daemon)


def test_status_has_its_promised_keys(full: dict[str, Any]) -> None:
    assert breaches(full, TOP) == []


def test_consoles_have_their_promised_keys(full: dict[str, Any]) -> None:
    assert [breach for console in full["consoles"] for breach in breaches(console, CONSOLE)] == []


def test_workers_have_their_promised_keys(full: dict[str, Any]) -> None:
    workers = [console["worker"] for console in full["consoles"] if console["state"] == "connected"]
    assert [breach for worker in workers for breach in breaches(worker, WORKER)] == []
    assert len(workers) == 1


def test_clients_have_their_promised_keys(full: dict[str, Any]) -> None:
    clients = [client for console in full["consoles"] for client in console["clients"]]
    assert [breach for client in clients for breach in breaches(client, CLIENT)] == []
    assert len({client["id"] for client in clients}) == 3


def test_refusals_have_their_promised_keys(full: dict[str, Any]) -> None:
    assert [breach for refusal in full["refused"] for breach in breaches(refusal, REFUSED)] == []
    assert len(full["refused"]) == 1


def test_states_are_connected_and_waiting(full: dict[str, Any]) -> None:
    states = {console["name"]: (console["state"], console["peer"] is None) for console in full["consoles"]}
    assert states == {"web01": ("connected", False), "gone": ("waiting", True)}


def test_status_names_version_process_and_listeners(daemon: Daemon) -> None:
    found = status(daemon)
    assert (found["version"], found["pid"]) == (vspcd.__version__, daemon.pid)
    assert set(found["listeners"]) >= {"proxy", "admin"}
    assert [address.rpartition(":")[0] for address in found["listeners"]["proxy"]] == ["127.0.0.1"]


def test_status_for_people_shows_the_consoles(daemon: Daemon, dial: Dial) -> None:
    vm = dial()
    shown = daemon.ctl("status").stdout
    assert [word for word in (vm.name, vm.uuid, str(daemon.port(vm.name)[1])) if word not in shown] == []


def test_status_of_no_daemon_is_an_error_in_plain_words(daemon: Daemon) -> None:
    daemon.stop()
    done = daemon.ctl("status", "--json")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    daemon.start()
