"""The hooks process: what it runs, how it passes facts on, what it does about commands that misbehave."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.system.processes import state
from tests.unix.test_process import status_of
from tests.unix.turning import until
from vspcd.unix.channel import Channel, pair
from vspcd.unix.loop import Loop
from vspcd.unix.process import fork
from workers.hooks import main
from workers.job import environment, ticks_of
from workers.post import post


class Process:
    """A hooks process and our end of its channel; what it logs is in a file."""

    def __init__(self, folder: Path, concurrency: int = 4) -> None:
        ours, theirs = pair()
        self.output = folder / "output"
        log = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def run() -> None:
            os.dup2(log, 2)
            main(theirs, {"log_level": "info", "concurrency": concurrency})

        self.pid = fork(run, {theirs.fileno(), log})
        theirs.close()
        os.close(log)
        self.loop = Loop()
        self.channel = Channel(ours)
        self.messages: list[dict[str, Any]] = []
        self.channel.serve(self.loop, lambda message, _fds: self.messages.append(message), self.loop.stop)

    def job(
        self,
        number: int,
        *run: str,
        timeout: float = 20,
        began: Optional[dict[str, Any]] = None,
        **facts: Any,
    ) -> None:
        message = {"type": "job", "number": number, "run": list(run), "post": "", "timeout": timeout}
        self.channel.send({**message, "began": began, "facts": {"event": "connected", **facts}})

    def shell(self, number: int, text: str, timeout: float = 20, **facts: Any) -> None:
        self.job(number, "/bin/sh", "-c", text, timeout=timeout, **facts)

    def numbers(self, word: str) -> list[int]:
        return [message["number"] for message in self.messages if message["type"] == word]

    def wait_ended(self, *numbers: int) -> None:
        until(self.loop, lambda: set(numbers) <= set(self.numbers("ended")), f"{numbers} have ended", 20)

    def began(self, number: int) -> dict[str, Any]:
        until(self.loop, lambda: number in self.numbers("began"), f"{number} has begun")
        return next(m["began"] for m in self.messages if m["type"] == "began" and m["number"] == number)

    def log(self) -> str:
        return self.output.read_text()

    def close(self) -> None:
        self.channel.close()
        self.loop.close()
        if state(self.pid) is not None:
            os.kill(self.pid, signal.SIGKILL)
        status_of(self.pid)


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.close()


def ended(pid: int) -> bool:
    return state(pid) in (None, "Z")


def test_a_command_gets_the_facts_in_its_environment_and_as_json(hooks: Process, tmp_path: Path) -> None:
    out = tmp_path / "facts"
    name = "$(touch /tmp/x); 'q' \"z\"\nnext"
    hooks.shell(
        1,
        f"env | grep ^VSPC_ > {out}.part; cat >> {out}.part; mv {out}.part {out}",
        name=name,
        port=7,
        slow=True,
    )
    hooks.wait_ended(1)
    *variables, facts = out.read_text().splitlines()
    assert sorted(variables) == [
        "VSPC_EVENT=connected",
        "VSPC_NAME=$(touch /tmp/x); 'q' \"z\"\\x0anext",
        "VSPC_PORT=7",
        "VSPC_SLOW=true",
    ]
    assert json.loads(facts) == {"event": "connected", "name": name, "port": 7, "slow": True}


def test_the_words_of_a_command_are_passed_on_as_they_are(hooks: Process, tmp_path: Path) -> None:
    out = tmp_path / "words"
    hooks.job(1, "/bin/sh", "-c", f'printf "%s|" "$@" > {out}', "sh", "a b", "$HOME", "")
    hooks.wait_ended(1)
    assert out.read_text() == "a b|$HOME||"


def test_nothing_of_the_daemon_but_a_few_variables_is_passed_on() -> None:
    made = environment({"name": "\udcff", "list": [1], "none": None}, {"NOTIFY_SOCKET": "x", "HOME": "/root"})
    assert set(made) == {b"HOME", b"PATH", b"VSPC_NAME"}


def test_no_descriptor_of_the_daemon_is_passed_on(hooks: Process, tmp_path: Path) -> None:
    out = tmp_path / "fds"
    hooks.shell(1, f"ls /proc/self/fd > {out}")
    hooks.wait_ended(1)
    assert out.read_text().split() == ["0", "1", "2", "3"]  # the last one is the folder that ls reads


def test_a_command_that_hangs_is_killed_with_all_its_children(hooks: Process, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hooks.shell(1, f"sleep 600 & sleep 600 & echo $! $$ > {pids}; wait", timeout=0.5, console="c1")
    hooks.wait_ended(1)
    for pid in pids.read_text().split():
        until(hooks.loop, lambda pid=pid: ended(int(pid)), "it is killed")  # type: ignore[misc]
    until(hooks.loop, lambda: "hook-failed" in hooks.log())
    assert (
        'hook=/bin/sh on=connected console=c1 reason="it took more than 0.5 s and was killed"' in hooks.log()
    )


def test_what_a_command_leaves_behind_ends_with_it(hooks: Process, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hooks.shell(1, f"sleep 600 & echo $! > {pids}")
    hooks.wait_ended(1)
    until(hooks.loop, lambda: ended(int(pids.read_text())), "it is killed")
    assert hooks.log() == ""


def test_a_command_that_fails_is_told_with_what_it_said(hooks: Process) -> None:
    hooks.shell(1, "echo no such $VSPC_NAME >&2; exit 3", name="host\x1b[2J")
    hooks.wait_ended(1)
    assert 'reason="exited with 3" printed="no such host\\\\x1b[2J"' in hooks.log()


def test_a_command_that_is_not_there_is_told(hooks: Process) -> None:
    hooks.job(1, "/no/such/command")
    hooks.wait_ended(1)
    assert 'reason="it could not be started: No such file or directory"' in hooks.log()


def test_a_command_may_print_as_much_as_it_likes(hooks: Process) -> None:
    hooks.shell(1, "yes abcdefg | head -c 10485760; exit 1")
    hooks.wait_ended(1)
    assert f"… {10485760 - 300} bytes more" in hooks.log().replace("\\n", "")
    assert len(hooks.log()) < 2000


def test_only_so_many_run_at_one_time(tmp_path: Path) -> None:
    hooks = Process(tmp_path, concurrency=2)
    try:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        for number in range(1, 6):
            hooks.shell(number, f"read x < {gate}", console=f"c{number}")
        until(hooks.loop, lambda: len(hooks.numbers("began")) == 2)
        fd = os.open(gate, os.O_RDWR)
        os.write(fd, b"\n")
        until(hooks.loop, lambda: len(hooks.numbers("ended")) == 1)
        until(hooks.loop, lambda: len(hooks.numbers("began")) == 3)
        os.write(fd, b"\n\n\n\n")
        hooks.wait_ended(1, 2, 3, 4, 5)
        os.close(fd)
    finally:
        hooks.close()


def test_one_hook_about_one_console_runs_in_order(hooks: Process, tmp_path: Path) -> None:
    out = tmp_path / "order"
    for number in range(1, 5):
        hooks.shell(
            number, f'read x; sleep 0.$((5 - VSPC_PLACE)); echo "$x" >> {out}', console="c1", place=number
        )
    hooks.wait_ended(1, 2, 3, 4)
    assert [json.loads(line)["place"] for line in out.read_text().splitlines()] == [1, 2, 3, 4]


def test_another_process_ends_what_a_dead_one_had_begun(hooks: Process, tmp_path: Path) -> None:
    hooks.shell(1, "sleep 600")
    began = hooks.began(1)
    os.kill(hooks.pid, signal.SIGKILL)
    folder = tmp_path / "heir"
    folder.mkdir()
    heir = Process(folder)
    try:
        heir.job(1, "/bin/false", timeout=0.3, began=began)
        heir.wait_ended(1)
        until(heir.loop, lambda: ended(began["pid"]), "it is killed")
        assert "was killed" in heir.log()
        assert heir.numbers("began") == []
    finally:
        heir.close()


def test_what_ended_while_nobody_watched_is_not_begun_again(hooks: Process) -> None:
    hooks.job(1, "/bin/false", began={"pid": os.getpid(), "ticks": ticks_of(os.getpid()) + 1})
    hooks.wait_ended(1)
    assert hooks.numbers("began") == []
    assert ticks_of(os.getpid()) > 0


def test_a_master_that_is_gone_leaves_nothing_undone(hooks: Process, tmp_path: Path) -> None:
    out = tmp_path / "done"
    hooks.shell(1, f"sleep 0.2; touch {out}")
    hooks.channel.close()
    assert status_of(hooks.pid) == 0
    assert out.exists()
    hooks.pid = fork(lambda: None, set())


class Server(HTTPServer):
    """Answers with one code after the other, and keeps what it was sent."""

    def __init__(self, *codes: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes = list(codes)
        self.bodies: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_port}/x"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        size = int(self.headers["Content-Length"])
        self.server.bodies.append(json.loads(self.rfile.read(size)))
        self.send_response(self.server.codes.pop(0))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_post_brings_the_facts(hooks: Process) -> None:
    server = Server(204)
    try:
        message = {"type": "job", "number": 1, "run": [], "post": server.url, "timeout": 10, "began": None}
        hooks.channel.send({**message, "facts": {"event": "moved", "name": "ü"}})
        hooks.wait_ended(1)
        assert server.bodies == [{"event": "moved", "name": "ü"}]
        assert hooks.log() == ""
    finally:
        server.end()


def test_a_post_that_is_refused_is_told_without_the_urls_secrets(hooks: Process) -> None:
    server = Server(403)
    try:
        url = server.url + "?token=secret"
        message = {"type": "job", "number": 1, "run": [], "post": url, "timeout": 10, "began": None}
        hooks.channel.send({**message, "facts": {"event": "moved"}})
        hooks.wait_ended(1)
        assert 'hook="post to 127.0.0.1"' in hooks.log()
        assert "the server answers 403" in hooks.log()
        assert "secret" not in hooks.log()
    finally:
        server.end()


def test_a_post_is_tried_again_when_the_server_is_in_trouble() -> None:
    server = Server(503, 200)
    try:
        assert post(server.url, b"{}", 10) is None
        assert len(server.bodies) == 2
    finally:
        server.end()


def test_a_post_that_reaches_nobody_is_given_up_in_time() -> None:
    assert "no connection" in (post("http://127.0.0.1:1/", b"{}", 0.5) or "")
