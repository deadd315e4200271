"""JSON over many lines, as the standard library writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vspcd.ctl.indented import indented

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 10**20, 1.5, -0.0, 1e300, 0.1, float("inf"), float("-inf"), float("nan")),
    *("", "web01", '\x1b\n"\\', "\u20ac\ud800", [], {}, [[]], [{}], {"": []}, {"\n": {"a": {}}}),
    [1, [2, {"three": [None, {"four": 4.0}]}], "five"],
    {"consoles": [{"id": "a", "worker": {"pid": 1, "uss": None}, "tls": True}, {"id": "b"}], "refused": []},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_it_is_what_the_standard_library_writes(value: Any) -> None:
    assert indented(value) == json.dumps(value, indent=2)


def test_what_json_has_not_is_not_made_up() -> None:
    with pytest.raises(KeyError):
        indented({"a": b"bytes"})
