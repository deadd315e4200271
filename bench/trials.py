"""The tests: what is done with a contestant, and which figures come out of it.

Does: starts a contestant for each measurement, measures, checks the bytes. Owns what it has started until it returns.
Never: compares; judges a figure.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from bench import figures, loads, wire
from bench.build import Programs
from bench.loads import MB, Estate, Stream
from bench.servers.base import Line, Server, Setup

GB = 1e9
LINE = re.compile(rb"([0-9a-f]{4}) (\d{8}) \.{49}\n")
SETTLED = 2.0
LOG_LIMIT = 1 << 30  # bytes of one measurement: the logs are in memory
WRITTEN_LATE = 10.0  # seconds; some servers collect lines first


@dataclass(frozen=True)
class Scale:
    """How much is done. Times in seconds."""

    stream: float = 1.5
    echo: float = 1.5
    echoes: int = 20000
    estate: int = 1000
    lines: int = 20
    idle: float = 20.0


@dataclass(frozen=True)
class Tools:
    """What all trials need. ``folder``: on a tmpfs."""

    programs: Programs
    folder: Path
    scale: Scale


@dataclass
class Sample:
    """One measurement. ``flaws``: what was wrong with the bytes."""

    figures: dict[str, float] = field(default_factory=dict)
    flaws: list[str] = field(default_factory=list)

    def blame(self, flaw: str) -> None:
        """Note a flaw, if it is one."""
        if flaw:
            self.flaws.append(flaw)


@dataclass(frozen=True)
class Trial:
    """``able``: which contestants take part. ``logged``: with logs, and beside the relay with logs."""

    key: str
    logged: bool
    able: Callable[[type[Server]], bool]
    run: Callable[[type[Server], Tools], Sample]
    many: bool = False


@contextmanager
def running(kind: type[Server], tools: Tools, logged: bool, consoles: int = 1) -> Iterator[Server]:
    """A contestant in a folder of its own, which is removed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.name}-", dir=tools.folder))
    try:
        with kind(Setup(folder, tools.programs, logged, consoles)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stream(kind: type[Server], tools: Tools, clients: int, logged: bool) -> Sample:
    """One VM says all it can, to so many clients."""
    sample = Sample()
    with running(kind, tools, logged) as server, server.open(0, clients) as line:
        begin = server.log(0).stat().st_size if logged else 0
        before = figures.cpu_seconds(server.pids())
        limit = LOG_LIMIT if logged else loads.BIG
        result = Stream(tools.programs, line.vm, line.clients, tools.scale.stream, limit).result()
        cost = figures.cpu_seconds(server.pids()) - before
        if logged:
            sample.blame(
                loads.flaw(loads.verify(tools.programs, server.log(0), begin, result["said"]), " in the log")
            )
    _note_stream(sample, result, cost)
    return sample


def _note_stream(sample: Sample, result: Mapping[str, float], cost: float) -> None:
    sample.figures = {
        "MB/s": result["heard"] / result["seconds"] / MB,
        "CPU s/GB": cost / max(1.0, result["heard"]) * GB,
    }
    sample.blame(loads.flaw(dict(result)))


def typing(kind: type[Server], tools: Tools) -> Sample:
    """One client types all it can."""
    sample = Sample()
    with running(kind, tools, False) as server, server.open(0, 1) as line:
        before = figures.cpu_seconds(server.pids())
        result = Stream(tools.programs, line.clients[0], [line.vm], tools.scale.stream).result()
        _note_stream(sample, result, figures.cpu_seconds(server.pids()) - before)
    return sample


def to_log(kind: type[Server], tools: Tools) -> Sample:
    """One VM says all it can, and nobody listens but the log."""
    sample = Sample()
    with running(kind, tools, True) as server, server.open(0, 0) as line:
        before = figures.cpu_seconds(server.pids())
        result = loads.to_log(tools.programs, line.vm, server.log(0), tools.scale.stream, LOG_LIMIT)
        _note_stream(sample, result, figures.cpu_seconds(server.pids()) - before)
    return sample


def echo(kind: type[Server], tools: Tools, busy: bool) -> Sample:
    """A byte at a time from a client to a VM and back; ``busy``: beside another console whose VM says all it can."""
    sample, scale = Sample(), tools.scale
    with running(kind, tools, False, 2 if busy else 1) as server, server.open(0, 1) as line:
        if busy:
            with server.open(1, 1) as other, _flood(tools, other) as flood:
                time.sleep(min(0.3, scale.echo))
                result = loads.echo(tools.programs, line.clients[0], line.vm, scale.echo, tools.scale.echoes)
                told = flood.stop()
            sample.figures["MB/s beside"] = told["heard"] / told["seconds"] / MB
            sample.blame(loads.flaw(told, " beside"))
        else:
            result = loads.echo(tools.programs, line.clients[0], line.vm, scale.echo, scale.echoes)
    sample.blame("wrong or missing echo" if result["wrong"] else "")
    sample.figures.update({"p50 µs": result["p50_us"], "p99 µs": result["p99_us"]})
    return sample


def _flood(tools: Tools, line: Line) -> Stream:
    return Stream(tools.programs, line.vm, line.clients, 60 + 10 * tools.scale.echo)


def estate(kind: type[Server], tools: Tools) -> Sample:
    """Many VMs at once, idle, and with a line a second each; all of it logged."""
    sample, scale = Sample(), tools.scale
    available = figures.available_kib()
    with running(kind, tools, True, scale.estate) as server, _estate(server, tools) as vms:
        ready = vms.ready()
        # A server that dials does so from its start.
        sample.figures["s to the last ready"] = time.monotonic() - server.began if server.dials else ready
        server.until_open()
        time.sleep(SETTLED)
        pids = server.pids()
        private = figures.private_kib(pids)
        sample.figures["KiB/VM"] = (available - figures.available_kib()) / scale.estate
        sample.figures["private KiB/VM"] = private.total / scale.estate
        sample.figures["private KiB of a process"] = private.median
        sample.figures["processes"] = len(pids)
        before = figures.cpu_seconds(pids)
        time.sleep(scale.idle)
        sample.figures["idle CPU s/min"] = (figures.cpu_seconds(pids) - before) / scale.idle * 60
        before = figures.cpu_seconds(pids)
        lines = vms.say_lines(scale.lines)
        sample.figures["lines CPU s/min"] = (figures.cpu_seconds(pids) - before) / scale.lines * 60
        sample.blame(_check_lines(server, lines, scale.estate))
    return sample


def _estate(server: Server, tools: Tools) -> Estate:
    count = str(tools.scale.estate)
    if server.dials:
        listener = server.far_listener()
        return Estate(tools.programs, count, "answer", str(listener.fileno()), listener=listener)
    script = server.folder / "script"
    wire.write_script(script, server.order)
    return Estate(tools.programs, count, "dial", str(server.vm_port()), str(script))


def _check_lines(server: Server, lines: int, vms: int) -> str:
    """Each VM's lines are to be in one log, all of them, in order."""
    end = time.monotonic() + WRITTEN_LATE
    while True:
        missing = vms * lines - _lines_in_order(server, vms)
        if missing <= 0 or time.monotonic() > end:
            return f"{missing} lines not in the logs" if missing else ""
        time.sleep(0.2)


def _lines_in_order(server: Server, vms: int) -> int:
    """How many lines of all logs stand where they should: behind the one before, in the log of one VM."""
    seen: set[bytes] = set()
    right = 0
    for number in range(vms):
        found = LINE.findall(server.log(number).read_bytes())
        vm = found[0][0] if found else b""
        if vm in seen:
            continue
        seen.add(vm)
        right += sum(name == vm and int(count) == place for place, (name, count) in enumerate(found))
    return right


def _stream_trial(clients: int, logged: bool) -> Trial:
    return Trial(
        f"stream-{clients}-{'log' if logged else 'off'}",
        logged,
        lambda kind: (kind.logs or not logged) and (kind.several or clients == 1),
        lambda kind, tools: stream(kind, tools, clients, logged),
    )


TRIALS = (
    *(_stream_trial(clients, logged) for logged in (False, True) for clients in (1, 8, 32)),
    Trial("typing", False, lambda kind: True, typing),
    Trial("to-log", True, lambda kind: kind.logs and kind.stands, to_log),
    Trial("echo", False, lambda kind: True, lambda kind, tools: echo(kind, tools, False)),
    Trial("echo-busy", False, lambda kind: True, lambda kind, tools: echo(kind, tools, True)),
    Trial("estate", True, lambda kind: kind.logs and kind.stands, estate, many=True),
)
