"""The control socket: whatever a tool asks, in whatever state the daemon is, it gets an answer and harms nobody."""

from __future__ import annotations

import array
import errno
import gc
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import pytest

from tests.stage import Player, Stage
from tests.unix.turning import descriptors_left, open_descriptors, turn, until
from tests.workers.bench import UUID
from vspcd import toolserver
from vspcd.attachments import Wish
from vspcd.config import ConfigError
from vspcd.config_schema import Config
from vspcd.core.rights import Who
from vspcd.proto.control import PACKET_LIMIT
from vspcd.table import ClientRecord, Console
from vspcd.toolserver import NAME


class Tool:
    """A program on the control socket."""

    def __init__(self, stage: ToolStage) -> None:
        self.stage = stage
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(str(stage.run / NAME))
        self.sock.setblocking(False)
        self.fds: list[int] = []
        self.packets: list[dict[str, Any]] = []
        self.over = False

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], ancillary)

    def read(self) -> None:
        while not self.over:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, PACKET_LIMIT, 8)
            except BlockingIOError:
                return
            except ConnectionError:
                data, fds = b"", []
            self.fds += fds
            self.over = not data
            if data:
                self.packets.append(json.loads(data))

    def has_gone(self) -> bool:
        """Whether the daemon has ended the conversation."""
        self.read()
        return self.over

    def asks(self, **message: Any) -> list[dict[str, Any]]:
        """The whole answer to a request."""
        self.packets = []
        self.send(json.dumps(message).encode())
        self.wait()
        return self.packets

    def wait(self) -> None:
        """For the end of an answer, or of the connection."""

        def done() -> bool:
            self.read()
            return self.over or any(packet.get("end") for packet in self.packets)

        until(self.stage.loop, done)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.sock.close()


class ToolStage(Stage):
    """A stage with programs on the control socket."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, *overrides: str) -> None:
        self._tools: list[Tool] = []
        super().__init__(root, patch, *overrides)

    def tool(self) -> Tool:
        self._tools.append(Tool(self))
        return self._tools[-1]

    def close(self) -> None:
        for tool in self._tools:
            tool.close()
        super().close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolStage]:
    made = ToolStage(tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_daemon_that_may_not_give_its_socket_to_a_group_serves_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no member of that group."""

    def refused(name: str, _user: int, _group: int, **_where: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)

    monkeypatch.setattr(os, "chown", refused)
    stage = ToolStage(tmp_path, monkeypatch, f"sockets.group={os.getegid()}")
    assert stage.tool().asks(type="status")[0]["type"] == "status"
    stage.close()


def mistaken(*problems: str) -> Callable[[], Config]:
    """A configuration that cannot be read again."""

    def reread() -> Config:
        raise ConfigError(list(problems))

    return reread


def crowd(stage: Stage, consoles: int, clients: int = 0) -> list[Player]:
    """Consoles with names and clients as long and as many as they can be."""
    for number in range(consoles):
        stage.table.add(Console(f"{number:032x}", "l" * 32, name="\x01" * 256, bios_uuid="0" * 36))
    known = list(stage.table.consoles.values())
    for _ in range(clients):
        for console in known:
            near, far = socket.socketpair()
            number = next(stage.table.numbers)
            wish = Wish("raw", Who(4294967295, 4194304, user="u" * 32))
            assert isinstance(stage.master.attachments.attach(console, wish, near, number), ClientRecord)
            far.close()
    return stage.cradle.players


def test_status_comes_in_packets_with_an_end(stage: ToolStage) -> None:
    crowd(stage, 100)
    answer = stage.tool().asks(type="status")
    assert answer[0]["type"] == "status"
    assert sum(len(packet.get("consoles", [])) for packet in answer) == 100
    assert [packet.get("end", False) for packet in answer] == [False] * (len(answer) - 1) + [True]


def test_status_can_be_told_with_as_many_clients_as_there_may_be(stage: ToolStage) -> None:
    crowd(stage, 3, clients=stage.supervisor.config.clients.max)
    answer = stage.tool().asks(type="status")
    assert (
        sum(len(console["clients"]) for packet in answer for console in packet.get("consoles", [])) == 3 * 64
    )


def test_status_can_be_told_whatever_was_refused(stage: ToolStage) -> None:
    for number in range(300):
        stage.admission.refused("192.0.2.1:1", f"{number}" + "\x01\U0001f4bb" * 8000)
    answer = stage.tool().asks(type="status")
    assert sum(len(packet.get("refused", [])) for packet in answer) == 200
    assert answer[-1]["end"]


def test_status_of_one_console_tells_of_that_one_only(stage: ToolStage) -> None:
    crowd(stage, 5)
    stage.table.add(Console(UUID, "", name="web01"))
    answer = stage.tool().asks(type="status", console="web01")
    assert [console["name"] for packet in answer for console in packet.get("consoles", [])] == ["web01"]


def test_a_tool_that_needs_a_few_fields_of_each_console_is_told_these_alone(stage: ToolStage) -> None:
    stage.table.add(Console(UUID, "", name="web01"))
    answer = stage.tool().asks(type="status", fields=["name", "state", "not-known", "name"])
    assert [console for packet in answer for console in packet.get("consoles", [])] == [
        {"name": "web01", "state": "waiting"}
    ]


def test_a_tool_that_says_no_fields_is_told_all_there_are(stage: ToolStage) -> None:
    stage.owner()
    stage.until(lambda: stage.console.unix)
    answer = stage.tool().asks(type="status")
    (console,) = [console for packet in answer for console in packet.get("consoles", [])]
    assert list(console) == [
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
        ),
        *("worker", "bytes_in", "bytes_out", "not_logged", "in_doubt", "log_trouble", "quarantined"),
        *("parked_until", "bios_uuid", "location_uuid", "line", "moves", "lock", "clients"),
    ]
    config, known = stage.master.config, stage.console
    assert (console["id"], console["uuid"], console["state"]) == (known.id, known.id, "connected")
    assert console["socket"] == str(config.dirs.run / f"{known.id}.sock")
    assert console["log"] == str((config.log.dir or Path()) / f"{known.id}.log")


def test_a_turn_of_the_master_tells_no_more_of_a_list_than_its_time_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def slow(count: int) -> Iterator[Optional[dict[str, Any]]]:
        nonlocal now
        for number in range(count):
            now += 0.25
            yield {"number": number} if number % 2 else None

    monkeypatch.setattr(toolserver, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(toolserver, "TURN", 1.0)
    monkeypatch.setattr(toolserver, "MOST", 1.0)
    lengths, numbers, before = [], [], 0.0
    for packet in toolserver.listed("who", "clients", slow(100)):
        lengths.append(now - before)
        now += 50.0  # others have their turn
        before = now
        assert packet is not None
        assert isinstance(packet[0], bytes)
        numbers += [each["number"] for each in json.loads(packet[0])["clients"]]
    assert numbers == list(range(1, 100, 2))
    assert lengths == [1.0] * 25 + [0.0]


@pytest.mark.parametrize(("turn", "seconds"), [(0.0, 0.001), (0.02, 0.001), (0.04, 0.002), (1000.0, 0.003)])
def test_an_answer_gets_its_part_of_a_long_turn(turn: float, seconds: float) -> None:
    assert toolserver.share(turn) == seconds


def test_a_list_is_told_sooner_when_turns_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a storm of VMs a turn takes a tenth of a second."""
    now = 0.0

    def items() -> Iterator[dict[str, Any]]:
        nonlocal now
        for number in range(300):
            now += 0.0001
            yield {"number": number}

    monkeypatch.setattr(toolserver, "time", SimpleNamespace(monotonic=lambda: now))
    turns = 0
    for _ in toolserver.listed("who", "clients", items()):
        turns += 1
        now += 0.1
    assert turns <= 12


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "forget"},
        {"type": "attach"},
        {"type": "forget", "console": None},
        {"type": "attach", "console": 5},
        {"type": "attach", "console": "web01", "replay": True},
        {"type": "attach", "console": "web01", "mode": "rwx"},
        {"type": "attach", "console": "web01", "replay": -1},
        {"type": "status", "console": []},
        {"type": "status", "fields": "id"},
        {"type": "status", "fields": ["id", []]},
        {"type": "status", "more": 1},
        {"type": "nonsense"},
        {"type": "x" * 60000},
        {"type": "forget", "console": "x" * 60000},
        {"type": "status", "x" * 60000: 1},
        {"type": "own", "console": {}},
    ],
    ids=lambda request: str(request)[:50],
)
def test_a_request_that_is_wrong_is_answered_so_and_the_next_one_is_served(
    stage: ToolStage, request_: dict[str, Any]
) -> None:
    stage.table.add(Console(UUID, "", name="web01"))
    tool = stage.tool()
    (answer,) = tool.asks(**request_)
    assert (answer["type"], answer["code"], answer["end"]) == ("error", "bad-request", True)
    assert tool.asks(type="status")[-1]["end"]


@pytest.mark.parametrize("query", ["", "web1", "\x1b]0;x\x07", "x" * 400, "\ud800", "\x00"], ids=ascii)
def test_a_console_that_is_not_there_is_not_found(stage: ToolStage, query: str) -> None:
    stage.table.add(Console(UUID, "", name="web01"))
    for kind in ("attach", "forget", "status"):
        (answer, *_) = [
            packet for packet in stage.tool().asks(type=kind, console=query) if packet["type"] == "error"
        ]
        assert answer["code"] == "not-found"
        assert "\x1b" not in answer["message"]


def test_a_query_that_fits_many_is_ambiguous_however_many(stage: ToolStage) -> None:
    for number in range(500):
        stage.table.add(Console(f"{number:032x}", "", name=f"web{number}" + "\x01" * 250))
    (answer,) = stage.tool().asks(type="forget", console="web")
    assert answer["code"] == "ambiguous"


def test_whoever_attaches_gets_a_connection_to_the_worker(stage: ToolStage) -> None:
    stage.table.add(Console(UUID, "", name="web01"))
    tool = stage.tool()
    (answer,) = tool.asks(type="attach", console="web01")
    assert (answer["type"], answer["name"], len(tool.fds)) == ("attached", "web01", 1)
    player = stage.cradle.players[-1]
    stage.until(lambda: player.was_told("client"))
    os.write(tool.fds[0], b"hello")
    assert os.read(player.fds[0], 10) == b"hello"
    assert player.was_told("client")[0]["mode"] == "rw"


def test_without_a_free_descriptor_an_attach_is_refused_and_the_daemon_lives(stage: ToolStage) -> None:
    stage.table.add(Console(UUID, "", name="web01"))
    tool = stage.tool()
    tool.asks(type="status")
    with descriptors_left(0, 3):
        (answer,) = tool.asks(type="attach", console="web01")
    assert (answer["type"], answer["code"]) == ("error", "busy")
    assert tool.asks(type="attach", console="web01")[0]["type"] == "attached"


def test_attaching_leaks_no_descriptor(stage: ToolStage) -> None:
    owner, _ = stage.owner()
    stage.until(lambda: stage.console.unix)  # its listener is open
    tool = stage.tool()
    tool.asks(type="status")
    before = len(open_descriptors())
    for _ in range(20):
        tool.asks(type="attach", console=UUID)
    stage.until(lambda: len(owner.was_told("client")) == 20)
    numbers = [message["client"] for message in owner.was_told("client")]
    for number in numbers:
        owner.says("detached", client=number, reason="x")
    for fd in (*owner.fds[-20:], *tool.fds):
        os.close(fd)
    del owner.fds[-20:]
    tool.fds = []
    stage.until(lambda: len(open_descriptors()) <= before)


@pytest.mark.parametrize(
    "packet", [b"", b"{", b"[]", b"{}", b"x" * 65536, b'{"type":"status"}'], ids=lambda p: repr(p[:10])
)
def test_descriptors_that_a_tool_sends_are_closed(stage: ToolStage, packet: bytes) -> None:
    other = stage.tool()
    other.asks(type="status")
    before = len(open_descriptors())
    tool = stage.tool()
    tool.send(packet, (0, 1, 2))
    tool.wait()
    assert tool.over or tool.packets[-1]["code"] == "bad-request"
    tool.close()
    for _ in range(5):
        turn(stage.loop)
    assert len(open_descriptors()) <= before


def test_what_is_in_use_cannot_be_forgotten_and_what_is_not_can(stage: ToolStage) -> None:
    stage.owner()
    stage.table.add(Console("f" * 32, "", name="idle"))
    tool = stage.tool()
    assert tool.asks(type="forget", console=UUID)[0]["code"] == "busy"
    assert tool.asks(type="forget", console="idle")[0]["type"] == "ok"
    assert len(stage.table.consoles) == 1


def test_a_configuration_that_is_wrong_is_told_in_full(stage: ToolStage) -> None:
    stage.reread = mistaken("vspcd.yaml:3: log_level: no such level")
    (answer,) = stage.tool().asks(type="reload")
    assert answer["code"] == "config"
    assert "vspcd.yaml:3" in answer["message"]


def test_a_configuration_with_very_many_mistakes_is_told_as_far_as_it_fits(stage: ToolStage) -> None:
    stage.reread = mistaken(*(f"vspcd.yaml:{line}: no such key" for line in range(5000)))
    (answer,) = stage.tool().asks(type="reload")
    assert answer["code"] == "config"


def test_the_daemon_can_be_stopped(stage: ToolStage) -> None:
    owner, _ = stage.owner()
    assert stage.tool().asks(type="stop")[0]["type"] == "ok"
    stage.until(lambda: owner.was_told("quit"))


def test_a_tool_that_does_not_wait_for_its_answer_is_let_go(stage: ToolStage) -> None:
    crowd(stage, 100)
    tool = stage.tool()
    tool.send(b'{"type":"status"}')
    tool.send(b'{"type":"status"}')
    until(stage.loop, tool.has_gone)


def test_a_tool_that_does_not_read_holds_nobody_up(stage: ToolStage) -> None:
    crowd(stage, 2000)
    asleep = stage.tool()
    asleep.send(b'{"type":"status"}')
    assert stage.tool().asks(type="status")[-1]["end"]
    asleep.wait()
    assert sum(len(packet.get("consoles", [])) for packet in asleep.packets) == 2000


def test_a_tool_that_goes_in_the_middle_of_its_answer_leaves_nothing(stage: ToolStage) -> None:
    crowd(stage, 500)
    stage.tool().asks(type="status")
    before = len(open_descriptors())
    for _ in range(5):
        tool = stage.tool()
        tool.send(b'{"type":"status"}')
        turn(stage.loop)
        tool.close()
    until(stage.loop, lambda: len(open_descriptors()) <= before)


def test_of_too_many_tools_at_once_the_one_that_asks_for_nothing_the_longest_has_to_go(
    stage: ToolStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolserver, "CONVERSATIONS", 3)
    first, second, third = (stage.tool() for _ in range(3))
    for tool in (first, second, third):
        tool.asks(type="status")
    fourth = stage.tool()
    assert fourth.asks(type="status")[-1]["end"]
    until(stage.loop, first.has_gone)
    for tool in (second, third, fourth):
        assert tool.asks(type="status")[-1]["end"]


def test_too_many_tools_that_wait_for_answers_keep_a_newcomer_out(
    stage: ToolStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolserver, "CONVERSATIONS", 2)
    crowd(stage, 2000)
    asleep = [stage.tool() for _ in range(2)]
    for tool in asleep:
        tool.send(b'{"type":"status"}')
    turn(stage.loop, 0.2)
    newcomer = stage.tool()
    until(stage.loop, newcomer.has_gone)
    for tool in asleep:
        tool.wait()
        assert sum(len(packet.get("consoles", [])) for packet in tool.packets) == 2000


def test_a_tool_that_never_reads_its_answer_is_let_go(
    stage: ToolStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolserver, "READ_WITHIN", 0.3)
    crowd(stage, 2000)
    gc.collect()  # what earlier tests have left open counts here too
    before = len(open_descriptors())
    stage.tool().send(b'{"type":"status"}')
    until(stage.loop, lambda: len(open_descriptors()) == before + 2)
    until(stage.loop, lambda: len(open_descriptors()) == before + 1)


def test_the_socket_goes_with_the_server(stage: ToolStage) -> None:
    assert (stage.run / NAME).exists()
    assert stage.master.tools is not None
    stage.master.tools.close()
    assert not (stage.run / NAME).exists()
