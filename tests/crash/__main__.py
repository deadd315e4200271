"""The long run: a thousand kills at each point, and a table of what came of them.

``make test-crash``; CRASH_KILLS, CRASH_JOBS, CRASH_MINUTES and CRASH_RESULTS say how many, how many daemons at a time,
how long at most, and where the results are kept. What is in the results is not done again, so that a run can be
stopped and started; remove the file to begin anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.masters import MASTERS
from tests.crash.variants import VARIANTS, FailingDaemon

KILLS = int(os.environ.get("CRASH_KILLS", "1000"))
JOBS = int(os.environ.get("CRASH_JOBS", str(os.cpu_count() or 1)))
MINUTES = float(os.environ.get("CRASH_MINUTES", "600"))
RESULTS = Path(os.environ.get("CRASH_RESULTS", ".crash/results.jsonl"))
AT_ONCE, FEW_AT_ONCE = 25, 5  # kills on one console
SLOW = {*MASTERS, "typing.half"}

Result = dict[str, Any]


class Task(NamedTuple):
    """Kills at one point in one variant; ``number`` makes their seed."""

    variant: str
    point: str
    number: int
    kills: int

    @property
    def key(self) -> str:
        return f"{self.variant} {self.point} {self.number}"


def tasks() -> Iterator[Task]:
    """All of them. A point's kills are shared out among the variants that reach it."""
    for point in sorted({point for variant in VARIANTS.values() for point in variant.points}):
        variants = [variant for variant in VARIANTS.values() if point in variant.points]
        whole = sum(variant.share for variant in variants)
        # A master takes most of a second to start: a tenth of the kills has to do.
        kills = KILLS / 10 if point in MASTERS else KILLS
        for variant in variants:
            at_once = FEW_AT_ONCE if point in SLOW else AT_ONCE
            for number in range(-(-round(kills * variant.share / whole) // at_once)):
                yield Task(variant.name, point, number, min(at_once, KILLS))


def results() -> list[Result]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def work(job: int) -> None:
    """Every so manyth task, until time is over. A daemon that has failed is replaced."""
    end = time.monotonic() + 60 * MINUTES
    done = {result["key"] for result in results()}
    daemons: dict[str, FailingDaemon] = {}
    try:
        for task in [task for task in sorted(tasks(), key=spread) if task.key not in done][job::JOBS]:
            if time.monotonic() > end:
                return
            carry_out(task, daemons)
    finally:
        for daemon in daemons.values():
            daemon.end()


def spread(task: Task) -> tuple[int, str, str]:
    """Each point a little, then each a little more: a run that is cut short has been everywhere."""
    return task.number, task.point, task.variant


def carry_out(task: Task, daemons: dict[str, FailingDaemon]) -> None:
    daemon = daemons.get(task.variant)
    if daemon is None:
        daemon = daemons[task.variant] = FailingDaemon(VARIANTS[task.variant])
        daemon.start()
    begins = len(daemon.log())
    result: Result = {"key": task.key, **task._asdict()}
    try:
        stage = daemon.visit([task.point], task.key, task.kills)
    except AssertionError as error:
        result["fault"] = str(error)[:2000]
        result["log"] = daemon.log()[begins:][-8000:]
        daemons.pop(task.variant).end()
    else:
        result["bytes"] = stage.bytes + sum(map(len, stage.shuffle.typed))
        result["killed"] = sum(len(kill.points) for kill in stage.kills)
        result["repeats"] = stage.repeats()
        result["recoveries"] = [round(kill.recovery * 1000, 1) for kill in stage.kills]
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def table(found: list[Result]) -> str:
    """What was done, one line per point, with milliseconds until the console went on."""
    lines = [
        "| point | kills | MB both ways | lost, doubled or out of order | repeated to Unix sockets | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in sorted({result["point"] for result in found}):
        lines.append(row(point, [result for result in found if result["point"] == point]))
    lines.append(row("all", found))
    return "\n".join(lines)


def row(point: str, some: list[Result]) -> str:
    well = [result for result in some if "fault" not in result]
    times = sorted(each for result in well for each in result["recoveries"])
    half, most = (times[int(len(times) * part)] if times else 0 for part in (0.5, 0.99))
    megabytes = sum(result["bytes"] for result in well) / 1e6
    faults, repeats = len(some) - len(well), sum(result["repeats"] for result in well)
    kills = sum(result["killed"] for result in well)
    return f"| {point} | {kills} | {megabytes:.1f} | {faults} | {repeats} | {half:.1f} | {most:.1f} |"


def finished(jobs: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait for all of them; whoever is stopped before takes them along, and they their daemons."""
    try:
        ends = [job.wait() for job in jobs]
        return not any(ends)
    finally:
        for job in jobs:
            job.terminate()
        for job in jobs:
            job.wait()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if len(sys.argv) > 1:
        work(int(sys.argv[1]))
        return 0
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    jobs = [subprocess.Popen([sys.executable, "-m", "tests.crash", str(job)]) for job in range(JOBS)]
    well = finished(jobs)
    found = results()
    text = table(found)
    RESULTS.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)
    faults = [result for result in found if "fault" in result]
    for result in faults:
        print(f"\n{result['key']}: {result['fault']}")
    done = sum(1 for task in tasks() if task.key in {result["key"] for result in found})
    print(
        f"\n{done} of {sum(1 for _ in tasks())} tasks are done; this run took {time.monotonic() - begun:.0f} s."
    )
    return 1 if faults or not well else 0


if __name__ == "__main__":
    sys.exit(main())
