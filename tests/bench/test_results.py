"""What samples say: ratios are taken within a round, and goals are judged by medians."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from bench import report
from bench.results import ROWS, Row, Run, Spread
from bench.servers.base import Server, Setup
from bench.trials import _check_lines

FASTER = Row("typing", "MB/s", "typing", 0.8, True, True)
SOONER = Row("estate", "s to the last ready", "ready", 1.0, False, False, 2)


def sample(number: int, server: str, row: Row, value: float) -> dict[str, Any]:
    return {
        "round": number,
        "server": server,
        "trial": row.trial,
        "figures": {row.figure: value},
        "flaws": [],
        "failed": "",
    }


def run(row: Row, *pairs: tuple[float, float]) -> Run:
    """Rounds with the relay's figure and ours."""
    return Run(
        {},
        [
            sample(number, server, row, value)
            for number, pair in enumerate(pairs)
            for server, value in zip(("relay", "vspcd"), pair)
        ],
    )


def test_a_ratio_is_taken_within_its_round() -> None:
    # Of all rounds together it would be 200 / 150.
    found = run(FASTER, (100, 80), (200, 200), (150, 300)).ratio(FASTER, "vspcd")
    assert found == Spread(1.0, 0.8, 2.0)


def test_a_round_in_which_the_relay_failed_has_no_ratio() -> None:
    measured = run(FASTER, (100, 80), (100, 50))
    del measured.samples[2]
    assert measured.ratio(FASTER, "vspcd") == Spread(0.8, 0.8, 0.8)


@pytest.mark.parametrize(
    ("row", "pair", "reached"),
    [
        (FASTER, (100.0, 80.0), True),
        (FASTER, (100.0, 79.0), False),
        (SOONER, (0.1, 1.0), True),
        (SOONER, (0.1, 1.01), False),
        (Row("estate", "idle CPU s/min", "idle", 0.0, False, False, 3), (0.0, 0.001), False),
        (Row("estate", "idle CPU s/min", "idle", 0.0, False, False, 3), (0.0, 0.0004), True),
        (Row("echo", "p50 µs", "no goal", None, True, False), (1.0, 1.0), None),
    ],
)
def test_a_goal_is_reached_or_not(row: Row, pair: tuple[float, float], reached: Optional[bool]) -> None:
    assert run(row, pair).reached(row) is reached


def test_a_flaw_marks_the_cell_and_is_told_below() -> None:
    measured = run(ROWS[0], (100, 90))
    measured.samples[1]["flaws"] = ["lost 3 %"]
    text = report.text(measured, 1000)
    assert "90†" in text
    assert "† vspcd, stream-1-off: lost 3 %" in text


def test_a_narrow_terminal_gets_lines_that_fit() -> None:
    measured = run(ROWS[0], (100, 90))
    measured.samples.append(sample(0, "socat", ROWS[0], 44))
    text = report.text(measured, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "relay 100, vspcd 90" in text
    assert "wanted ≥ 0.9 ×: yes" in text
    assert "socat 44" in text


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_into(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="has no lines"):
        report.put_into(page, "new\n")


class Logs(Server):
    """A server of which only the logs are there."""

    def log(self, number: int) -> Path:
        return self.folder / str(number)


def line(vm: int, number: int) -> bytes:
    return b"%04x %08d %s\n" % (vm, number, b"." * 49)


@pytest.mark.parametrize(
    ("logs", "flaw"),
    [
        ([line(1, 0) + line(1, 1), b"banner\r\n" + line(0, 0) + line(0, 1)], ""),
        ([line(1, 0) + line(1, 1), line(0, 0)], "1 lines not in the logs"),
        ([line(1, 1) + line(1, 0), line(0, 0) + line(0, 1)], "2 lines not in the logs"),
        ([line(1, 0) + line(0, 1), line(0, 0) + line(1, 1)], "2 lines not in the logs"),
        ([line(1, 0) + line(1, 1)] * 2, "2 lines not in the logs"),
    ],
    ids=["right", "missing", "order", "mixed", "twice"],
)
def test_each_vms_lines_are_in_its_log(
    logs: list[bytes], flaw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.trials.WRITTEN_LATE", 0.0)
    for number, content in enumerate(logs):
        (tmp_path / str(number)).write_bytes(content)
    assert _check_lines(Logs(Setup(tmp_path, None, True, 2)), 2, 2) == flaw  # type: ignore[arg-type]
