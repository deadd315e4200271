"""python -m bench: run the benchmark, or write the tables and plots of a run that was made.

Does: builds the load generators, finds the contestants, lets them take turns, writes what came out. Owns the temporary
folder. Never fails for a contestant that does: that is noted, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import vspcd
from bench import figures, plots, report
from bench.build import CannotBuild, build
from bench.loads import LoadFailed
from bench.results import LIMIT, OURS, Run
from bench.servers.base import Server
from bench.servers.conman import Conman
from bench.servers.conserver import Conserver
from bench.servers.relay import Relay
from bench.servers.ser2net import Ser2net
from bench.servers.socat import Socat
from bench.servers.vspcd import Vspcd
from bench.trials import TRIALS, Sample, Scale, Tools, Trial
from bench.wire import Unheard

CONTESTANTS: tuple[type[Server], ...] = (Relay, Vspcd, Conserver, Ser2net, Conman, Socat)
TMPFS = "/dev/shm"
PAGE = "performance.md"
FAULTS = (Unheard, LoadFailed, OSError, ValueError)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m bench",
        description="vspcd beside other console servers and a bare relay; see bench/README.md",
    )
    options.add_argument(
        "--rounds", type=int, default=5, help="how often everything is measured (default: 5)"
    )
    options.add_argument(
        "--many-rounds", type=int, default=2, help="how often what has many VMs is measured (default: 2)"
    )
    options.add_argument("--seconds", type=float, default=1.5, help="of each stream and echo (default: 1.5)")
    options.add_argument("--vms", type=int, default=1000, help="how many are many (default: 1000)")
    options.add_argument(
        "--idle", type=int, default=20, help="seconds with many VMs idle, and talking (default: 20)"
    )
    options.add_argument("--only", default="", help="trials, such as stream-1-off,echo (default: all)")
    options.add_argument(
        "--servers", default="", help="contestants, such as relay,vspcd (default: all there are)"
    )
    options.add_argument("--folder", default=TMPFS, help=f"where logs and sockets are (default: {TMPFS})")
    options.add_argument("--out", type=Path, default=Path("build/bench"), help="where results are written")
    options.add_argument(
        "--docs", type=Path, help=f"write table, plots and JSON to this folder's {PAGE} as well"
    )
    options.add_argument("--report", type=Path, help="measure nothing: report on this JSON file of a run")
    return options


def chosen(options: argparse.Namespace) -> tuple[list[Trial], list[type[Server]]]:
    """Trials and contestants. Raises ValueError for a name that there is not."""
    trials = _named(options.only, {trial.key: trial for trial in TRIALS}, "trial")
    servers = _named(options.servers, {kind.name: kind for kind in CONTESTANTS}, "contestant")
    return trials, [kind for kind in servers if kind.installed()]


def _named(names: str, known: dict[str, Any], what: str) -> list[Any]:
    wanted = [name for name in names.split(",") if name]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted or known]


def about(options: argparse.Namespace, servers: Sequence[type[Server]]) -> dict[str, Any]:
    """Where and how a run is made."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    versions = {kind.name: kind.version() for kind in servers if kind.name not in (LIMIT, OURS)}
    versions[OURS] = vspcd.__version__
    return {
        "made": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rounds": options.rounds,
        "many_rounds": options.many_rounds,
        "estate": options.vms,
        "seconds": options.seconds,
        "load": f"{figures.load():.1f} at the beginning",
        "versions": versions,
        "far_ends": {kind.name: kind.far_end for kind in servers},
    }


def measured(kind: type[Server], trial: Trial, tools: Tools) -> dict[str, Any]:
    """One sample, or the reason why there is none."""
    failed = ""
    try:
        sample = trial.run(kind, tools)
    except FAULTS as error:
        sample, failed = Sample(), f"failed: {error}".strip()
    told = ", ".join(f"{value:.3g} {name}" for name, value in sample.figures.items())
    print(
        f"  {kind.name:10s} {'; '.join(filter(None, [told, *sample.flaws, failed]))}",
        file=sys.stderr,
        flush=True,
    )
    return {
        "trial": trial.key,
        "server": kind.name,
        "figures": sample.figures,
        "flaws": sample.flaws,
        "failed": failed,
    }


def perform(
    run: Run,
    options: argparse.Namespace,
    trials: Sequence[Trial],
    servers: Sequence[type[Server]],
    tools: Tools,
) -> None:
    """All rounds. The contestants take turns within a trial, each time another one begins."""
    for number in range(max(options.rounds, options.many_rounds)):
        for trial in trials:
            if number >= (options.many_rounds if trial.many else options.rounds):
                continue
            print(f"round {number + 1}, {trial.key}, load {figures.load():.1f}", file=sys.stderr, flush=True)
            able = [kind for kind in servers if trial.able(kind)]
            first = number % len(able) if able else 0
            for kind in able[first:] + able[:first]:
                run.samples.append({"round": number, **measured(kind, trial, tools)})
    run.samples.sort(key=lambda sample: [kind.name for kind in servers].index(sample["server"]))
    run.about["load"] += f", {figures.load():.1f} at the end"


def publish(run: Run, options: argparse.Namespace) -> None:
    """Write and print what there is."""
    folder: Path = options.docs or options.out
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"about": run.about, "samples": run.samples}, indent=1, ensure_ascii=False)
    (folder / "performance.json").write_text(content + "\n", encoding="utf-8")
    drawn: list[str] = []
    try:
        drawn = plots.draw(run, folder)
    except plots.NoPlots as missing:
        print(missing, file=sys.stderr)
    part = report.markdown(run, drawn)
    if options.docs is not None:
        report.put_into(folder / PAGE, part)
    else:
        (folder / PAGE).write_text(part, encoding="utf-8")
    # A file or a pipe takes lines of any length.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    print(report.text(run, columns))
    print(f"\nwritten to {folder}/: performance.json, {', '.join([PAGE, *drawn])}")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    if options.report is not None:
        publish(Run(**json.loads(options.report.read_text(encoding="utf-8"))), options)
        return 0
    try:
        trials, servers = chosen(options)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    scale = Scale(
        stream=options.seconds,
        echo=options.seconds,
        estate=options.vms,
        lines=options.idle,
        idle=options.idle,
    )
    parent = options.folder if os.path.isdir(options.folder) else None
    if parent is None:
        print(
            f"bench: no folder {options.folder}: logs are where the system's disk slows them", file=sys.stderr
        )
    run = Run(about(options, servers))
    with tempfile.TemporaryDirectory(prefix="vspcd-bench-", dir=parent) as folder:
        try:
            tools = Tools(build(Path(folder)), Path(folder), scale)
        except CannotBuild as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        try:
            perform(run, options, trials, servers, tools)
        except KeyboardInterrupt:
            print("bench: interrupted; this is what there is", file=sys.stderr)
    if not run.samples:
        return 1
    publish(run, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
