from __future__ import annotations

import pytest

from vspcd.ctl import table, topscreen
from vspcd.ctl.top import ORDERS, Sample, compare, heading, lines_of


def console(name: str, pid: int, bytes_in: int = 0, bytes_out: int = 0, lag: int = 0) -> dict[str, object]:
    clients = [{"lag": 0}, {"lag": None}, {"lag": lag}] if lag else []
    return {
        "id": f"id-{name}", "name": name, "label": None, "state": "connected", "clients": clients,
        "bytes_in": bytes_in, "bytes_out": bytes_out, "worker": {"pid": pid},
    }  # fmt: skip


def sample(when: float, cpu: dict[int, float], *consoles: dict[str, object]) -> Sample:
    return Sample(when, {"pid": 1, "uptime": 60, "consoles": list(consoles)}, cpu)


VIEW = compare(
    sample(
        10, {1: 0.0, 2: 1.0, 3: 5.0}, console("chatty", 2, 1000, 0), console("busy", 3), console("slow", 4)
    ),
    sample(
        12,
        {1: 0.5, 2: 1.1, 3: 6.0, 5: 0.0},
        console("chatty", 2, 5000, 200),
        console("busy", 3),
        console("slow", 4, lag=5000),
        console("new", 5, 7777),
    ),
)


def test_rates_are_per_second_and_per_cent() -> None:
    rows = {row.name: row for row in VIEW.rows}
    assert (rows["chatty"].bytes_in_rate, rows["chatty"].bytes_out_rate) == (2000, 100)
    assert (rows["chatty"].cpu, rows["busy"].cpu, rows["slow"].cpu) == (5.0, 50.0, None)
    assert (rows["slow"].lag, rows["slow"].clients) == (5000, 3)
    assert rows["new"].bytes_in_rate == 0  # it was not there before
    assert VIEW.master_cpu == 25


def test_a_counter_that_begins_again_is_no_negative_traffic() -> None:
    view = compare(sample(1, {}, console("a", 2, 5000)), sample(2, {}, console("a", 2, 10)))
    assert view.rows[0].traffic == 0


@pytest.mark.parametrize(
    ("order", "first"), [("traffic", "chatty"), ("cpu", "busy"), ("lag", "slow"), ("name", "busy")]
)
def test_orders(order: str, first: str) -> None:
    assert min(VIEW.rows, key=ORDERS[order]).name == first


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits(width: int) -> None:
    lines = lines_of(VIEW.rows, width)
    assert len(lines) == 5
    assert max(table.display_width(line.text) for line in lines) <= width
    assert "CPU%" in lines[0].text
    assert "3 of 4" not in heading(VIEW)
    assert "4 of 4 connected" in heading(VIEW)


@pytest.mark.parametrize("width", [6, 20, 40, 80])
def test_how_to_quit_is_always_shown(width: int) -> None:
    assert topscreen._keys(width).text.endswith("q quit")


def test_keys_that_come_together_are_told_apart() -> None:
    assert topscreen._split(b"j\x1b[B\x1b[6~q\x1b") == [b"j", b"\x1b[B", b"\x1b[6~", b"q", b"\x1b"]
