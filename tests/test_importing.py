"""What another concentrator knew is taken over, however much it is, and whatever a tool says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_tools import ToolStage
from vspcd.portmap.base import Put
from vspcd.portmap.sqlite import SqliteBackend
from vspcd.proto.control import packed


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolStage]:
    made = ToolStage(tmp_path, monkeypatch)
    yield made
    made.close()


def console(number: int, **other: Any) -> dict[str, Any]:
    return {"uuid": f"{number:032x}", "name": f"web{number}", "port": 0, **other}


def test_as_many_consoles_as_fit_into_a_request_are_taken_over(stage: ToolStage) -> None:
    some = next(packed(console(number) for number in range(3000)))
    answer = stage.tool().asks(type="import", consoles=some)
    told = [one for packet in answer for one in packet["imported"]]
    assert [one["name"] for one in told] == [one["name"] for one in some]
    assert {one["outcome"] for one in told} == {"taken over"}
    assert [packet.get("end", False) for packet in answer] == [False] * (len(answer) - 1) + [True]
    assert len(stage.table.consoles) == len(some) > 700


@pytest.mark.parametrize(
    "facts",
    [
        b'{"uuid":"00000000-0000-0000-0000-000000000000","name":"web","port":Infinity}',
        b'{"uuid":"00000000-0000-0000-0000-000000000000","name":"web","port":true}',
        b'{"uuid":"00000000-0000-0000-0000-000000000000","name":"web","port":65536}',
        b'{"uuid":"00000000-0000-0000-0000-000000000000","name":"web","port":-1}',
        b'{"uuid":"00000000-0000-0000-0000-000000000000","name":' + b"[" * 900 + b"]" * 900 + b',"port":0}',
        b'{"uuid":5,"name":"web","port":0}',
        b'{"name":"web","port":0}',
        b"5",
    ],
    ids=lambda facts: facts[:80].decode(),
)
def test_what_is_no_console_is_refused_and_the_next_one_is_taken_over(stage: ToolStage, facts: bytes) -> None:
    tool = stage.tool()
    tool.send(b'{"type":"import","consoles":[%b]}' % facts)
    tool.wait()
    assert tool.packets[-1]["code"] == "bad-request"
    assert tool.asks(type="import", consoles=[console(1)])[-1]["end"]
    assert len(stage.table.consoles) == 1


def test_a_name_that_is_no_text_is_taken_over_as_text_that_the_map_can_keep(
    stage: ToolStage, tmp_path: Path
) -> None:
    assert stage.tool().asks(type="import", consoles=[console(1, name="a\ud800b")])[-1]["end"]
    (known,) = stage.table.consoles.values()
    backend = SqliteBackend(tmp_path / "portmap.db")
    backend.apply([Put(known.entry())])
    assert [entry.name for entry in backend.load()] == ["a?b"]
    backend.close()
