"""What the samples of a run say: medians, ratios within a round, and whether the goals are reached.

Owns the table of goals. Never measures; never compares what was not measured in the same round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple, Optional

LIMIT, OURS = "relay", "vspcd"


class Row(NamedTuple):
    """A figure of a trial. ``ratio``: it counts as a multiple of the relay's. ``goal``: None without one."""

    trial: str
    figure: str
    title: str
    goal: Optional[float]
    ratio: bool
    at_least: bool
    digits: int = 0


def _stream_rows() -> list[Row]:
    rows = []
    for logged, goal in ((False, 0.9), (True, 0.8)):
        for clients in (1, 8, 32):
            trial = f"stream-{clients}-{'log' if logged else 'off'}"
            what = f"1 VM → {clients} client{'s' if clients > 1 else ''}, log {'on' if logged else 'off'}"
            rows.append(Row(trial, "MB/s", f"{what}, MB/s in all", goal, True, True))
            rows.append(Row(trial, "CPU s/GB", f"{what}, server CPU s per GB", 1.25, True, False, 2))
    return rows


ROWS = (
    *_stream_rows(),
    Row("typing", "MB/s", "client → VM, MB/s", 0.8, True, True),
    Row("typing", "CPU s/GB", "client → VM, server CPU s per GB", 1.25, True, False, 2),
    Row("to-log", "MB/s", "to the log alone, MB/s", 0.8, True, True),
    Row("echo", "p50 µs", "echo p50, µs", 1.2, True, False, 1),
    Row("echo", "p99 µs", "echo p99, µs", 1.3, True, False, 1),
    Row("echo-busy", "p50 µs", "echo p50 while another VM streams, µs", None, True, False, 1),
    Row("echo-busy", "p99 µs", "echo p99 while another VM streams, µs", 300, False, False),
    Row("estate", "s to the last ready", "VMs at once, s to the last ready", 1.0, False, False, 2),
    Row(
        "estate",
        "lines CPU s/min",
        "CPU s per minute, a line per VM and second, logged",
        2.5,
        False,
        False,
        2,
    ),
    Row("estate", "idle CPU s/min", "the same, idle", 0.0, False, False, 3),
    Row("estate", "KiB/VM", "memory per idle VM, all told, KiB", 1024, False, False, 1),
    Row("estate", "private KiB/VM", "of it pages of its own, KiB", None, False, False, 1),
)


class Spread(NamedTuple):
    """Of several rounds."""

    median: float
    least: float
    most: float


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


@dataclass
class Run:
    """All samples of a run, and where it was made.

    ``samples``: objects with round, trial, server, figures, flaws and failed, a text.
    """

    about: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def servers(self) -> list[str]:
        """In the order in which they first took part."""
        return list(dict.fromkeys(sample["server"] for sample in self.samples))

    def _figures(self, row: Row, server: str) -> dict[int, float]:
        """By round."""
        return {
            sample["round"]: sample["figures"][row.figure]
            for sample in self.samples
            if sample["trial"] == row.trial and sample["server"] == server and row.figure in sample["figures"]
        }

    def figure(self, row: Row, server: str) -> Optional[Spread]:
        """None when it took no part."""
        found = self._figures(row, server)
        return spread(list(found.values())) if found else None

    def ratio(self, row: Row, server: str) -> Optional[Spread]:
        """To the relay's figure of the same round."""
        own, limit = self._figures(row, server), self._figures(row, LIMIT)
        found = [own[number] / limit[number] for number in own if limit.get(number)]
        return spread(found) if found else None

    def flaws(self, row: Row, server: str) -> list[str]:
        """What was wrong with the bytes, each once."""
        found = (
            flaw
            for sample in self.samples
            if sample["trial"] == row.trial and sample["server"] == server
            for flaw in [*sample["flaws"], *([sample["failed"]] if sample.get("failed") else [])]
        )
        return list(dict.fromkeys(found))

    def rows(self) -> list[Row]:
        """Those that were measured."""
        return [row for row in ROWS if any(self._figures(row, server) for server in self.servers())]

    def reached(self, row: Row) -> Optional[bool]:
        """Whether our median reaches the goal; None without a goal or a figure."""
        ours = self.ratio(row, OURS) if row.ratio else self.figure(row, OURS)
        if ours is None or row.goal is None:
            return None
        # A goal of none at all is one of none that the digits show.
        value = round(ours.median, 2 if row.ratio else row.digits)
        return value >= row.goal if row.at_least else value <= row.goal
