"""Back ends by name: which one is opened, and what a user's own may do wrong without harm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.unix.turning import descriptors_left
from vspcd.portmap import backends
from vspcd.portmap.backends import Choice, Guarded, objection, opened
from vspcd.portmap.base import Entry, Forget, PortMapError, Put
from vspcd.portmap.memory import MemoryBackend
from vspcd.portmap.sqlite import SqliteBackend

UUID = "0123456789abcdeffedcba9800000000"
CONSOLE = "01234567-89ab-cdef-fedc-ba9800000000"
WEB = Entry(CONSOLE, UUID, "", "web01", 50000, 1234.5)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("own", None)


def own(folder: Path, body: str, top: str = "") -> Choice:
    """A class with these methods; what it does not say it does rightly."""
    (folder / "own.py").write_text(
        f"import time\nfrom vspcd.portmap.base import *\n{top}\n"
        "class Base:\n"
        "    def __init__(self, state, options): self.facts = (state, options)\n"
        "    def load(self): return []\n"
        "    def apply(self, changes): self.changes = changes\n"
        "    def close(self): pass\n"
        f"class Map(Base):\n    x = 1\n{body}\n"
    )
    return Choice("own:Map", folder, (("a", "b"),))


def test_a_name_means_its_back_end(tmp_path: Path) -> None:
    assert isinstance(opened(Choice("memory"), tmp_path), MemoryBackend)
    found = opened(Choice("file"), tmp_path)
    assert isinstance(found, SqliteBackend)
    found.close()
    assert (tmp_path / "portmap.db").exists()


def test_a_class_gets_the_folder_the_options_and_the_changes(tmp_path: Path) -> None:
    made = opened(own(tmp_path, "    notes = ['mind']\n    def load(self): return (ENTRY for _ in [1])",
                      f"ENTRY = Entry({CONSOLE!r}, {UUID!r}, '', 'web01', 50000, 1234.5)"), tmp_path)  # fmt: skip
    assert isinstance(made, Guarded)
    assert made._inner.facts == (tmp_path, {"a": "b"})
    assert list(made.notes) == ["mind"]
    assert made.load() == [WEB]
    made.apply([Put(WEB), Forget("x")])
    assert made._inner.changes == [Put(WEB), Forget("x")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    def apply(self, changes): raise ValueError('no')", "own:Map: apply failed: ValueError: no"),
        ("    def apply(self, changes): raise PortMapError('disk full')", "own:Map: apply: disk full"),
        ("    def apply(self, changes): raise SystemExit(3)", "own:Map: apply failed: SystemExit: 3"),
        ("    def apply(self): pass", "apply failed: TypeError"),
        ("    def apply(self, changes): time.sleep(60)", "apply took more than 0.2 s"),
        ("    def apply(self, changes):\n        while True: pass", "apply took more than 0.2 s"),
        (
            "    def apply(self, changes):\n        try: time.sleep(60)\n        except Exception: time.sleep(60)",
            "apply took more than 0.2 s",
        ),
    ],
)
def test_a_change_that_goes_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(backends, "LIMIT", 0.2)
    made = opened(own(tmp_path, body), tmp_path)
    with pytest.raises(PortMapError) as told:
        made.apply([Put(WEB)])
    assert words in str(told.value)


def test_an_end_that_goes_wrong_is_an_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened(own(tmp_path, "    def close(self): 1 / 0"), tmp_path).close()
    assert "close failed: ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("top", "body", "words"),
    [
        ("1 / 0", "", "import failed: ZeroDivisionError"),
        ("", "    def __init__(self): pass", "begin failed: TypeError"),
    ],
)
def test_a_beginning_that_goes_wrong_is_told(tmp_path: Path, top: str, body: str, words: str) -> None:
    with pytest.raises(PortMapError, match=words):
        opened(own(tmp_path, body, top), tmp_path)


def test_a_class_that_is_not_there_is_told(tmp_path: Path) -> None:
    choice = own(tmp_path, "")._replace(name="own:Maps")
    with pytest.raises(PortMapError, match="import failed: AttributeError"):
        opened(choice, tmp_path)


def entry(console: str = CONSOLE, uuid: str = UUID, label: str = "", port: object = 50000) -> str:
    return f"Entry({console!r}, {uuid!r}, {label!r}, 'web01', {port!r}, 1.5)"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("['x']", "'str' in place of an Entry"),
        ("None", "load failed: TypeError"),
        (f"[{entry(port='50000')}]", "whose port is a str"),
        (f"[{entry(port=70000)}]", "whose port is 70000"),
        (f"[{entry(console='../../etc')}]", "whose console should be"),
        (f"[{entry(uuid='x')}]", "whose uuid or label is none"),
        (f"[{entry(label='/')}]", "whose uuid or label is none"),
        (f"[{entry()}, {entry()}]", "two entries of"),
        (f"[{entry()}, {entry(console=CONSOLE + '.gdb', label='gdb')}]", "port 50000 twice"),
    ],
)
def test_entries_that_cannot_be_are_told(tmp_path: Path, entries: str, words: str) -> None:
    made = opened(own(tmp_path, f"    def load(self): return {entries}"), tmp_path)
    with pytest.raises(PortMapError, match=words):
        made.load()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory", None),
        ("file", None),
        ("own:Map", None),
        ("bad.inner:Map", None),  # what is in a package its own code may say, which is the keeper's to run
        ("own_not.inner:Map", "there is no module 'own_not'"),
        ("nothing_like_it:Map", "there is no module 'nothing_like_it'"),
    ],
)
def test_a_module_that_cannot_be_found_is_told(tmp_path: Path, name: str, words: Optional[str]) -> None:
    own(tmp_path, "", "1 / 0")  # it is looked for, never run
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text("raise RuntimeError('it was run')")
    before = list(sys.path)
    said = objection(Choice(name, tmp_path))
    assert (said is None) == (words is None)
    assert words is None or words in str(said)
    assert sys.path == before
    assert not {"own", "bad"} & set(sys.modules)


def test_a_module_that_cannot_be_looked_for_is_told(tmp_path: Path) -> None:
    own(tmp_path, "")
    with descriptors_left(0, 8):
        said = objection(Choice("own:Map", tmp_path))
    assert "Too many open files" in str(said)
