"""What every back end of the port map does alike."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vspcd.portmap.base import Backend, Change, Entry, Forget, PortMapError, Put
from vspcd.portmap.memory import MemoryBackend
from vspcd.portmap.sqlite import SqliteBackend

UUID = "01234567-89ab-cdef-fedc-ba9800000000"
WEB = Entry("a", UUID, "", "web01", 50000, 1234.5)
GDB = Entry("b", UUID, "gdb", "web01", 50001, 99.0, bios_uuid=UUID, location_uuid=UUID)
Maker = Callable[[Path], Backend]
KINDS: list[Maker] = [lambda path: MemoryBackend(), SqliteBackend]


@pytest.fixture(params=KINDS, ids=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    backend: Backend = request.param(tmp_path / "portmap.db")
    yield backend
    backend.close()


def test_a_new_map_is_empty_and_has_nothing_to_tell(backend: Backend) -> None:
    assert (backend.load(), list(backend.notes)) == ([], [])


def test_entries_come_back_as_they_were_put(backend: Backend) -> None:
    backend.apply([Put(GDB), Put(WEB)])
    assert backend.load() == [WEB, GDB]


def test_a_put_takes_the_place_of_the_entry_before(backend: Backend) -> None:
    renamed = dataclasses.replace(WEB, name="db01", port=50007)
    backend.apply([Put(WEB)])
    backend.apply([Put(renamed)])
    assert backend.load() == [renamed]


def test_a_forgotten_console_is_gone(backend: Backend) -> None:
    backend.apply([Put(WEB), Put(GDB)])
    backend.apply([Forget("a")])
    assert backend.load() == [GDB]


def test_an_unknown_console_can_be_forgotten(backend: Backend) -> None:
    backend.apply([Forget("nobody")])
    assert backend.load() == []


def test_the_last_change_of_a_console_in_a_batch_counts(backend: Backend) -> None:
    backend.apply([Put(WEB), Forget("a"), Put(GDB), Forget("b"), Put(WEB)])
    assert backend.load() == [WEB]


def test_an_empty_batch_changes_nothing(backend: Backend) -> None:
    backend.apply([Put(WEB)])
    backend.apply([])
    assert backend.load() == [WEB]


def test_ports_can_be_swapped_inside_a_batch(backend: Backend) -> None:
    backend.apply([Put(WEB), Put(GDB)])
    swapped = [dataclasses.replace(WEB, port=50001), dataclasses.replace(GDB, port=50000)]
    backend.apply([Put(entry) for entry in swapped])
    assert backend.load() == swapped


def test_a_forgotten_consoles_port_can_be_taken_in_the_same_batch(backend: Backend) -> None:
    heir = dataclasses.replace(GDB, port=WEB.port)
    backend.apply([Put(WEB)])
    backend.apply([Put(heir), Forget("a")])
    assert backend.load() == [heir]


def test_consoles_without_a_port_live_side_by_side(backend: Backend) -> None:
    entries = [dataclasses.replace(WEB, port=0), dataclasses.replace(GDB, port=0)]
    backend.apply([Put(entry) for entry in entries])
    assert backend.load() == entries


@pytest.mark.parametrize(
    "wrong",
    [
        dataclasses.replace(GDB, port=50000),
        dataclasses.replace(GDB, port=65536),
        dataclasses.replace(GDB, port=-1),
    ],
    ids=["taken", "too high", "negative"],
)
def test_a_batch_with_a_wrong_port_is_refused_as_a_whole(backend: Backend, wrong: Entry) -> None:
    backend.apply([Put(WEB)])
    with pytest.raises(PortMapError):
        backend.apply([Put(Entry("c", UUID, "", "other", 50005, 1.0)), Put(wrong)])
    assert backend.load() == [WEB]


def test_the_map_goes_on_after_a_refused_batch(backend: Backend) -> None:
    backend.apply([Put(WEB)])
    with pytest.raises(PortMapError):
        backend.apply([Put(dataclasses.replace(GDB, port=WEB.port))])
    backend.apply([Put(GDB)])
    assert backend.load() == [WEB, GDB]


def test_closing_twice_is_harmless(backend: Backend) -> None:
    backend.close()
    backend.close()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.builds(
    Entry,
    console=st.sampled_from("abcd"),
    uuid=TEXT,
    label=TEXT,
    name=TEXT,
    port=st.integers(0, 5),
    last_seen=st.floats(allow_nan=False) | st.integers(-(2**40), 2**40),
    bios_uuid=st.none() | TEXT,
    location_uuid=st.none() | TEXT,
)
CHANGES = st.builds(Put, ENTRIES) | st.builds(Forget, st.sampled_from("abcd"))


@given(st.lists(st.lists(CHANGES, max_size=6), max_size=5))
def test_sqlite_and_memory_agree_on_everything(batches: list[list[Change]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "portmap.db"
        memory, sqlite = MemoryBackend(), SqliteBackend(path)
        for batch in batches:
            assert _accepts(memory, batch) == _accepts(sqlite, batch)
        sqlite.close()
        reopened = SqliteBackend(path)
        assert (reopened.load(), list(reopened.notes)) == (memory.load(), [])
        reopened.close()


def _accepts(backend: Backend, batch: list[Change]) -> bool:
    try:
        backend.apply(batch)
    except PortMapError:
        return False
    return True
