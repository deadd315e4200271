from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vspcd.proto import pickles
from vspcd.proto.errors import PeerError
from vspcd.proto.pickles import Reader, dump, load

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
DICTS = st.dictionaries(TEXTS, SCALARS | st.dictionaries(TEXTS, SCALARS, max_size=2), max_size=5)
VALUES = SCALARS | DICTS

# As Python 2.7's pickle.dumps and cPickle.dumps wrote them.
FROM_PYTHON_2: Mapping[bytes, object] = {
    b"I3\n.": 3,
    b"N.": None,
    b"S'write'\np0\n.": b"write",
    b"S'free_for_all_or_readonly'\np1\n.": b"free_for_all_or_readonly",
    b'S"it\'s"\n.': b"it's",
    b"S'gr\\xc3\\xbc\\xc3\\x9fe\\n\\\\'\np1\n.": "grüße\n\\".encode(),
    b"Vgr\xfc\xdfe \\u20ac\np0\n.": "grüße €",
    b"(dp0\nS'uuid'\np1\nS'50 2a'\np2\nsS'port'\np3\nI50000\nsS'name'\np4\nS'web01'\np5\ns.": {
        b"uuid": b"50 2a",
        b"port": 50000,
        b"name": b"web01",
    },
    b"\x80\x02}q\x01(U\x04uuidq\x02U\x0550 2aq\x03U\x04portq\x04M\x50\xc3U\x04nameq\x05U\x05web01q\x06u.": {
        b"uuid": b"50 2a",
        b"port": 50000,
        b"name": b"web01",
    },
    b"I01\n.": True,
    b"L5L\n.": 5,
    b"\x80\x02\x8a\x01\x05.": 5,
}


def outcome(data: bytes, cuts: list[int], count: int = 3) -> tuple[Any, ...]:
    """What comes of bytes that are cut there: the values, how many bytes they took, and whether that was a fault."""
    reader, used, at = Reader(count), 0, 0
    try:
        for cut in [*sorted(cuts), len(data)]:
            used += reader.receive(data[at:cut]) if not reader.complete else 0
            at = cut
    except PeerError:
        return reader.values, "fault"
    return reader.values, reader.complete, used if reader.complete else len(data)


@settings(deadline=None)
@given(VALUES, st.sampled_from(PROTOCOLS))
def test_what_python_writes_is_read(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("data", FROM_PYTHON_2)
def test_what_python_2_writes_is_read(data: bytes) -> None:
    assert load(data) == FROM_PYTHON_2[data]
    assert type(load(data)) is type(FROM_PYTHON_2[data])


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_python_reads(value: object) -> None:
    assert pickle.loads(dump(value)) == value


@given(TEXTS)
def test_texts_for_python_2_are_its_strings(text: str) -> None:
    assert pickle.loads(dump(text, bytes), encoding="bytes") == text.encode()


@given(st.binary(max_size=300))
def test_bytes_become_a_text_that_python_3_shows(data: bytes) -> None:
    assert pickle.loads(dump(data)) == data.decode("utf-8", "replace")
    assert pickle.loads(dump(data, bytes), encoding="bytes") == data


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_garbage_is_the_peers_fault_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    cuts = [min(cut, len(data)) for cut in cuts]
    assert outcome(data, cuts) == outcome(data, [])


OPCODES = [bytes([code]) for code in pickles._OPCODES] + [
    b".",
    b"\n",
    b"c",
    b"R",
    b"\x00",
    b"\x01",
    b"1",
    b"'",
    b"\\",
]


@settings(deadline=None, max_examples=500)
@given(
    st.lists(st.sampled_from(OPCODES), max_size=60).map(b"".join), st.lists(st.integers(0, 60), max_size=5)
)
def test_opcodes_at_random_are_the_peers_fault_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    cuts = [min(cut, len(data)) for cut in cuts]
    assert outcome(data, cuts) == outcome(data, [])


@settings(deadline=None)
@given(
    st.lists(VALUES, min_size=3, max_size=3), st.sampled_from(PROTOCOLS), st.binary(max_size=20), st.data()
)
def test_what_follows_the_last_pickle_is_left(
    values: list[object], protocol: int, rest: bytes, draw: st.DataObject
) -> None:
    whole = b"".join(pickle.dumps(value, protocol) for value in values)
    cuts = draw.draw(st.lists(st.integers(0, len(whole) + len(rest)), max_size=5))
    assert outcome(whole + rest, cuts) == (values, True, len(whole))


class Called:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("/nonexistent/pickled",)


NOT_PLAIN: list[object] = [
    Called(),
    [1],
    (1,),
    {1, 2},
    1.5,
    Called,
    {"a": Called()},
    object(),
    2**100,
    bytearray(b"x"),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_everything_else_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(PeerError):
        load(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"}q\x00(K\x01h\x00u.",  # a dict in itself
        b"}}s.",
        b"}}K\x01s.",  # a dict as a key
        b"(.",
        b".",
        b"K\x01K\x02.",
        b"0.",
        b"u.",
        b"K\x01p1x\n.",
        b"h\x05.",
        b"I1e5\n.",
        b"I" + b"9" * 30 + b"\n.",
        b"S'open\n.",
        b"S'\\z'\n.",
        b"V\\ud800\n.",
        b"X\x02\x00\x00\x00\xff\xff.",
        b"\x80\x06N.",
        b"X\xff\xff\xff\x7f",
        b"(" * 300,
        b"N",
        b"NN..",
    ],
)
def test_what_is_no_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        load(data)


@pytest.mark.parametrize("size", [1, 1000, 100000])
def test_pickles_have_a_limit(size: int) -> None:
    """Opcodes that lead nowhere: there is never a value, and no end."""
    endless = b"N0" * pickles.LIMIT
    reader = Reader(1)
    with pytest.raises(PeerError, match="more than"):
        sum(reader.receive(endless[at : at + size]) for at in range(0, len(endless), size))


def python_2() -> Optional[str]:
    found = [shutil.which("python2.7"), *map(str, Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))]
    for each in found:
        if each and subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return each
    return None


@pytest.mark.skipif(python_2() is None, reason="no Python 2.7")
@pytest.mark.parametrize("module", ["pickle", "cPickle"])
def test_python_2_reads_what_is_written(module: str) -> None:
    written = [
        (dump(3), "3"),
        (dump("vm_found", bytes), "'vm_found'"),
        (dump("grüße", bytes), "'gr\\xc3\\xbc\\xc3\\x9fe'"),
        (dump("grüße"), "u'gr\\xfc\\xdfe'"),
        (dump({"port": None}, bytes), "{'port': None}"),
        (dump({"port": 50000}, bytes), "{'port': 50000}"),
    ]
    program = f"import {module} as p, sys\nwhile 1:\n  try: print(repr(p.load(sys.stdin)))\n  except EOFError: break"
    python = python_2()
    assert python is not None
    given_to_it = b"".join(data for data, _ in written)
    done = subprocess.run([python, "-c", program], input=given_to_it, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [shown for _, shown in written]
