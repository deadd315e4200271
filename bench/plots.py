"""The plots of a run, as PNG.

Does: draws bars with matplotlib, which is the only thing here that needs it: bench/requirements.txt has it, and a run
without it does without plots. Never measures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.results import LIMIT, OURS, ROWS, Row, Run

PLOTS = {
    "performance-throughput.png": (
        "Bytes out of one VM and into one, MB/s (logarithmic)",
        [row for row in ROWS if row.figure == "MB/s"],
    ),
    "performance-cpu.png": (
        "Processor time of the server, s per GB delivered (logarithmic)",
        [row for row in ROWS if row.figure == "CPU s/GB"],
    ),
    "performance-echo.png": (
        "Time of an echo, µs (logarithmic)",
        [row for row in ROWS if row.trial.startswith("echo")],
    ),
}
COLOURS = {LIMIT: "#888888", OURS: "#1f77b4"}
OTHERS = ("#ff7f0e", "#2ca02c", "#d62728", "#9467bd")


class NoPlots(Exception):
    """The text says what to install."""


def draw(run: Run, folder: Path) -> list[str]:
    """The names of the files that were written. Raises NoPlots."""
    try:
        import matplotlib
    except ImportError:
        raise NoPlots("no plots: pip install -r bench/requirements.txt") from None
    matplotlib.use("Agg")
    written = []
    for name, (title, rows) in PLOTS.items():
        measured = [row for row in rows if row in run.rows()]
        if measured:
            _bars(run, title, measured, folder / name)
            written.append(name)
    return written


def _bars(run: Run, title: str, rows: list[Row], path: Path) -> None:
    from matplotlib import pyplot

    servers = run.servers()
    colours = dict(zip([s for s in servers if s not in COLOURS], OTHERS), **COLOURS)
    height = 0.8 / len(servers)
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + len(rows) * 0.8))
    for place, server in enumerate(servers):
        _server(run, axes, rows, server, (place, height, colours[server]))
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.06), ncols=3, frameon=False)
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def _server(run: Run, axes: Any, rows: list[Row], server: str, bar: tuple[int, float, str]) -> None:
    place, height, colour = bar
    found = [(at, run.figure(row, server)) for at, row in enumerate(rows)]
    known = [(at, spread) for at, spread in found if spread is not None and spread.median > 0]
    if not known:
        return
    axes.barh(
        [at - 0.4 + height * (place + 0.5) for at, _ in known],
        [spread.median for _, spread in known],
        height,
        xerr=[
            [spread.median - spread.least for _, spread in known],
            [spread.most - spread.median for _, spread in known],
        ],
        label=server + (" (some bytes lost)" if any(run.flaws(rows[at], server) for at, _ in known) else ""),
        color=colour,
        error_kw={"elinewidth": 0.7, "ecolor": "#333333"},
    )


def _label(row: Row) -> str:
    return row.title.replace(", MB/s in all", "").replace(", MB/s", "").replace(", server CPU s per GB", "")
