"""JSON in one line: what the standard library writes, whether its parts are there or not."""

from __future__ import annotations

import json
import json.encoder
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.proto import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_the_text_is_the_standard_librarys(value: Any) -> None:
    assert jsontext.text(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert jsontext.ascii_text(value) == json.dumps(value, separators=(",", ":"))


def test_a_value_that_is_no_json_is_refused_and_the_next_one_is_written() -> None:
    with pytest.raises(TypeError):
        jsontext.text({"a": [object()]})
    assert jsontext.text({"a": []}) == '{"a":[]}'


@pytest.mark.parametrize("make", [None, lambda one: one])
def test_with_another_encoder_the_text_is_the_same(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json.encoder, "c_make_encoder", make)
    write = jsontext.writer(ascii_only=False)
    monkeypatch.undo()
    assert write(jsontext.PROBE) == json.dumps(jsontext.PROBE, separators=(",", ":"), ensure_ascii=False)
