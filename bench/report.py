"""A run as people read it: a table for the terminal and one in Markdown.

Never judges what was measured: ``results`` does.
"""

from __future__ import annotations

from pathlib import Path

from bench.results import LIMIT, OURS, Row, Run, Spread

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
VERDICTS = {True: "yes", False: "**no**", None: "–"}


def goal(row: Row) -> str:
    """What is wanted, in words."""
    if row.goal is None:
        return "–"
    sign = "≥" if row.at_least else "≤"
    return f"{sign} {row.goal:g} ×" if row.ratio else f"{sign} {row.goal:g}" if row.goal else "0"


def _ratio(found: Spread) -> str:
    return f"{found.median:.2f} ({found.least:.2f}–{found.most:.2f})"


def _cell(run: Run, row: Row, server: str) -> str:
    found = run.figure(row, server)
    if found is None:
        return "failed" if run.flaws(row, server) else "–"
    return f"{found.median:.{row.digits}f}" + ("†" if run.flaws(row, server) else "")


def cells(run: Run) -> list[list[str]]:
    """The table, its heading first."""
    others = [server for server in run.servers() if server not in (LIMIT, OURS)]
    table = [["", LIMIT, OURS, "ours / relay", "wanted", "reached", *others]]
    for row in run.rows():
        ratio = run.ratio(row, OURS) if row.ratio else None
        table.append(
            [
                row.title,
                _cell(run, row, LIMIT),
                _cell(run, row, OURS),
                _ratio(ratio) if ratio else "–",
                goal(row),
                VERDICTS[run.reached(row)],
                *(_cell(run, row, server) for server in others),
            ]
        )
    return table


def flaws(run: Run) -> list[str]:
    """A line for each contestant and trial whose bytes were not right, or that failed."""
    found = []
    trials = list(dict.fromkeys(sample["trial"] for sample in run.samples))
    for trial in trials:
        row = Row(trial, "", "", None, False, False)
        for server in run.servers():
            if told := run.flaws(row, server):
                found.append(f"{server}, {trial}: {'; '.join(told)}")
    return found


def text(run: Run, columns: int) -> str:
    """For a terminal: a table if it has so many columns, else some lines for each row."""
    table = [[cell.replace("**", "") for cell in line] for line in cells(run)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    if sum(widths) + 2 * len(widths) - 2 <= columns:
        lines = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))])
            for line in table
        ]
    else:
        lines = [line for row in table[1:] for line in _narrow(table[0], row)]
    return "\n".join([*lines, *(f"† {told}" for told in flaws(run))])


def _narrow(heading: list[str], row: list[str]) -> list[str]:
    title, limit, ours, ratio, wanted, reached, *others = row
    named = (f"{name} {cell}" for name, cell in zip(heading[6:], others) if cell != "–")
    return [
        title,
        f"  {LIMIT} {limit}, {OURS} {ours}",
        *([f"  ratio {ratio}"] if ratio != "–" else []),
        *([f"  wanted {wanted}: {reached}"] if reached != "–" else []),
        *([f"  {others_of}"] if (others_of := ", ".join(named)) else []),
    ]


def markdown(run: Run, plots: list[str]) -> str:
    """For docs/performance.md."""
    about = run.about
    heading, *lines = cells(run)
    table = [
        "| " + " | ".join(heading) + " |",
        "|---" * len(heading) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
    ]
    versions = ", ".join(f"{name} {version}".strip() for name, version in about["versions"].items())
    made = (
        f"Made {about['made']} on {about['cores']} cores ({about['processor']}), Linux {about['kernel']}, Python "
        f"{about['python']}; {about['rounds']} rounds, {about['many_rounds']} of them with "
        f"{about['estate']} VMs; load of the machine {about['load']}. Contestants: {versions}. "
        f"Figures are medians; a ratio is the median of the rounds' ratios, with the least and the greatest."
    )
    marks = [f"- † {told}" for told in flaws(run)]
    pictures = [f"![{Path(plot).stem}]({plot})" for plot in plots]
    parts = [made, "\n".join(table), "\n".join(marks), "\n".join(pictures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def put_into(page: Path, part: str) -> None:
    """Replace what stands between the two marks of the page. Raises ValueError when it has none."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{part}{END}{after}", encoding="utf-8")
