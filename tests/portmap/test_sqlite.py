"""The port map's file: what survives, what is refused, and what happens to a damaged one."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vspcd.portmap import sqlite
from vspcd.portmap.base import Entry, Forget, PortMapError, Put
from vspcd.portmap.sqlite import STEPS, SqliteBackend

ROOT = Path(__file__).parent.parent.parent
UUID = "01234567-89ab-cdef-fedc-ba9800000000"
DEADLINE = 30.0


def entry(number: int) -> Entry:
    return Entry(f"{number:06}", UUID, "", f"web{number:06}", 1 + number, float(number), bios_uuid=UUID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "portmap.db"


def filled(path: Path, count: int = 200) -> list[Entry]:
    entries = [entry(number) for number in range(count)]
    backend = SqliteBackend(path)
    backend.apply([Put(each) for each in entries])
    backend.close()
    return entries


def opened(path: Path) -> tuple[list[Entry], list[str]]:
    backend = SqliteBackend(path)
    found = backend.load(), list(backend.notes)
    backend.close()
    return found


def damaged_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("portmap.db.damaged-*"))


def by_hand(path: Path, *statements: str) -> None:
    base = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        base.execute(statement)
    base.close()


# Durability


def test_a_map_survives_its_process(path: Path) -> None:
    entries = filled(path)
    assert opened(path) == (entries, [])


def test_a_commit_reaches_the_disk_before_it_is_acknowledged(path: Path) -> None:
    backend = SqliteBackend(path)
    settings = [
        backend._base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
    ]
    backend.close()
    assert settings == [3, "delete"]


def test_the_one_file_is_the_whole_map_after_every_batch(path: Path, tmp_path: Path) -> None:
    backend = SqliteBackend(path)
    backend.apply([Put(entry(1))])
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    backend.close()
    assert opened(copy) == ([entry(1)], [])


WRITER = """
import sys
from pathlib import Path
from tests.portmap.test_sqlite import entry
from vspcd.portmap.base import Forget, Put
from vspcd.portmap.sqlite import SqliteBackend

backend = SqliteBackend(Path(sys.argv[1]))
start = int(sys.argv[2])
for number in range(start, start + 100000):
    # Every entry moves to a port that the one before has just left.
    backend.apply([Put(entry(number)), Forget(f"{number - 5:06}")])
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def writers() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for writer in running:
        writer.kill()
        writer.wait(DEADLINE)
        assert writer.stdout is not None
        writer.stdout.close()


def read_numbers(writer: subprocess.Popen[bytes], wanted: int) -> bytes:
    """What the writer said, until that many batches were acknowledged."""
    assert writer.stdout is not None
    said = b""
    while said.count(b"\n") < wanted:
        ready, _, _ = select.select([writer.stdout], [], [], DEADLINE)
        assert ready, "the writer fell silent"
        data = os.read(writer.stdout.fileno(), 4096)
        assert data, "the writer ended"
        said += data
    return said


@pytest.mark.parametrize("seed", range(4))
def test_acknowledged_batches_survive_sigkill(
    path: Path, writers: list[subprocess.Popen[bytes]], seed: int
) -> None:
    chance, start = random.Random(seed), 5
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(start)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        writers.append(writer)
        said = read_numbers(writer, chance.randint(1, 60))
        writer.send_signal(signal.SIGKILL)
        writer.wait(DEADLINE)
        assert writer.stdout is not None
        said += writer.stdout.read()
        acknowledged = int(said.rpartition(b"\n")[0].rpartition(b"\n")[2])
        entries, notes = opened(path)
        last = int(entries[-1].console)
        assert notes == []
        assert last in (acknowledged, acknowledged + 1)
        assert entries == [entry(number) for number in range(max(5, last - 4), last + 1)]
        start = last + 1


# Versions


def test_an_older_map_is_migrated_with_its_entries(path: Path) -> None:
    entries = filled(path)
    newer = SqliteBackend(path, [*STEPS, "ALTER TABLE consoles ADD COLUMN host TEXT"])
    assert (newer.load(), list(newer.notes)) == (entries, [])
    newer.apply([Put(entry(999))])
    newer.close()
    (columns,) = sqlite3.connect(path).execute("SELECT count(*) FROM pragma_table_info('consoles')")
    assert columns[0] == 10


def test_a_newer_map_is_refused_and_left_alone(path: Path) -> None:
    filled(path)
    by_hand(path, f"PRAGMA user_version = {len(STEPS) + 1}")
    before = path.read_bytes()
    with pytest.raises(PortMapError, match="written by a newer one"):
        SqliteBackend(path)
    assert (path.read_bytes(), damaged_files(path)) == (before, [])


def test_a_map_that_says_to_be_of_no_version_is_set_aside(path: Path) -> None:
    filled(path)
    by_hand(path, "PRAGMA user_version = 0")
    assert opened(path)[0] == []
    assert len(damaged_files(path)) == 1


def test_a_migration_that_fails_leaves_the_old_version(path: Path) -> None:
    filled(path)
    by_hand(path, "CREATE TABLE other (x)")
    backend = SqliteBackend(path, [*STEPS, "CREATE TABLE other (x)"])
    backend.close()
    (aside,) = damaged_files(path)
    assert next(sqlite3.connect(aside).execute("PRAGMA user_version")) == (1,)


# A full disk, two daemons, and folders that are not there


def test_a_full_disk_refuses_the_batch_and_keeps_the_rest(path: Path) -> None:
    entries = filled(path)
    backend = SqliteBackend(path)
    (pages,) = backend._base.execute("PRAGMA page_count").fetchone()
    backend._base.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(PortMapError, match="full"):
        backend.apply([Put(entry(number)) for number in range(1000, 9000)])
    backend.apply([Forget(entries[0].console)])
    assert backend.load() == entries[1:]
    backend.close()
    assert opened(path) == (entries[1:], [])


def test_a_map_in_use_is_refused_to_another_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.05)
    holder = SqliteBackend(path)
    with pytest.raises(PortMapError, match="locked"):
        SqliteBackend(path)
    holder.apply([Put(entry(1))])
    holder.close()
    assert opened(path) == ([entry(1)], [])


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PortMapError, match=r"none/portmap\.db cannot be opened: No such file or directory"):
        SqliteBackend(tmp_path / "none" / "portmap.db")


def test_a_folder_in_its_place_is_an_error_and_stays(path: Path) -> None:
    path.mkdir()
    with pytest.raises(PortMapError, match="cannot be opened"):
        SqliteBackend(path)
    assert path.is_dir()


def test_the_file_is_the_daemons_alone(path: Path) -> None:
    opened(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_that_is_no_text_is_refused(path: Path) -> None:
    backend = SqliteBackend(path)
    with pytest.raises(PortMapError, match="cannot be changed"):
        backend.apply([Put(Entry("a", UUID, "", "\ud800", 1, 1.0))])
    backend.apply([Forget("a")])
    backend.close()


# Damage


def test_rubbish_is_set_aside_and_a_fresh_map_begun(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    entries, notes = opened(path)
    (aside,) = damaged_files(path)
    assert entries == []
    assert aside.read_bytes() == b"no database at all " * 100
    assert f"was damaged (file is not a database); it was set aside as {aside}, and 0 of" in notes[0]


def test_the_map_begun_after_damage_is_durable(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    entries = filled(path)
    assert opened(path) == (entries, [])


@pytest.mark.parametrize("size", [1, 100, 511, 4096, 4097, 12288])
def test_a_truncated_map_is_set_aside(path: Path, size: int) -> None:
    filled(path)
    os.truncate(path, size)
    entries, notes = opened(path)
    assert entries == []
    assert len(notes) == len(damaged_files(path)) == 1


def test_a_map_truncated_to_nothing_is_told(path: Path) -> None:
    path.touch()
    assert opened(path) == ([], [f"the port map {path} was empty; a new one was begun"])


def test_the_companions_of_a_damaged_map_go_with_it(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    path.with_name(path.name + "-shm").write_bytes(b"left over")
    opened(path)
    main, companion = damaged_files(path)
    assert companion.name == main.name + "-shm"
    assert [each.name for each in path.parent.iterdir() if "damaged" not in each.name] == ["portmap.db"]


def test_an_earlier_damaged_file_is_kept(path: Path) -> None:
    for text in (b"first " * 300, b"second " * 300):
        path.write_bytes(text)
        opened(path)
    assert sorted(each.read_bytes()[:5] for each in damaged_files(path)) == [b"first", b"secon"]


def test_a_bit_flipped_in_one_entry_costs_that_entry_alone(path: Path) -> None:
    entries = filled(path)
    data = path.read_bytes()
    assert data.count(b"web000077") == 1
    path.write_bytes(data.replace(b"web000077", b"web000076"))
    kept, notes = opened(path)
    assert kept == [each for each in entries if each.console != "000077"]
    assert "1 entries do not match their checksums" in notes[0]
    assert "199 of its entries were kept" in notes[0]
    assert opened(path) == (kept, [])


def test_an_index_that_contradicts_its_table_is_set_aside(path: Path) -> None:
    backend = SqliteBackend(path)
    backend.apply([Put(Entry("zebra", UUID, "", "web01", 0x3039, 1.0))])
    backend.close()
    data = path.read_bytes()
    assert data.count(b"\x30\x39zebra") == 1
    path.write_bytes(data.replace(b"\x30\x39zebra", b"\x30\x3azebra"))
    assert opened(path)[0] == []
    assert len(damaged_files(path)) == 1


@pytest.mark.parametrize("when", [-0.0, 7, 2**53, 1e-300, 1763679632.123456, float("inf")])
def test_a_time_that_sqlite_spells_differently_is_no_damage(path: Path, when: float) -> None:
    backend = SqliteBackend(path)
    backend.apply([Put(Entry("a", UUID, "", "web01", 1, when))])
    backend.close()
    assert opened(path) == ([Entry("a", UUID, "", "web01", 1, when)], [])


def test_a_checksum_stays_right_when_a_later_version_adds_an_empty_column() -> None:
    assert sqlite._checksum(("a", None, "b")) == sqlite._checksum(("a", None, "b", None, None))
    assert sqlite._checksum(("a", None, "b")) != sqlite._checksum(("a", "b"))


def test_a_foreign_table_in_its_place_is_set_aside(path: Path) -> None:
    by_hand(path, "CREATE TABLE consoles (x)")
    assert opened(path)[0] == []
    assert len(damaged_files(path)) == 1


@pytest.mark.parametrize("seed", range(150))
def test_a_flipped_bit_anywhere_never_changes_an_entry(path: Path, seed: int) -> None:
    good = filled(path, 60)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    place = chance.randrange(100) if seed % 3 == 0 else chance.randrange(len(data))
    # Another version number is another promise, which has tests of its own.
    place = place + 4 if 60 <= place < 64 else place
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    entries, notes = opened(path)
    assert set(entries) <= set(good)
    assert entries == good or notes


def is_fit(path: Path, good: list[Entry]) -> bool:
    """Whether a map opens with nothing but what was written, says so when that is not all, and takes changes."""
    entries, notes = opened(path)
    backend = SqliteBackend(path)
    backend.apply([Put(entry(999))])
    backend.close()
    assert opened(path)[0] == [*entries, entry(999)]
    return set(entries) <= set(good) and (entries == good or bool(notes))


@pytest.fixture
def sound(path: Path) -> bytes:
    """A map of several pages."""
    filled(path, 60)
    return path.read_bytes()


def test_a_map_truncated_anywhere_never_has_a_wrong_entry(path: Path, sound: bytes) -> None:
    good = [entry(number) for number in range(60)]
    edges = {page + by for page in range(0, len(sound), 4096) for by in (-1, 0, 1, 512)}
    for size in sorted({*edges, *range(1, len(sound), 499)} - {0}):
        if 0 < size < len(sound):
            path.write_bytes(sound[:size])
            assert is_fit(path, good), f"truncated to {size} bytes"


@pytest.mark.parametrize("how", ["flipped", "zeroed", "random", "another's"])
def test_a_map_with_a_bad_page_never_has_a_wrong_entry(path: Path, sound: bytes, how: str) -> None:
    good, chance = [entry(number) for number in range(60)], random.Random(how)
    for at in range(0, len(sound), 4096):
        page = {
            "flipped": bytes(255 - value for value in sound[at : at + 4096]),
            "zeroed": bytes(4096),
            "random": chance.randbytes(4096),
            "another's": sound[(at + 4096) % len(sound) :][:4096],
        }[how]
        path.write_bytes(sound[:at] + page + sound[at + 4096 :])
        assert is_fit(path, good), f"page {at // 4096} is {how}"


def test_a_map_with_several_bad_bytes_anywhere_never_has_a_wrong_entry(path: Path, sound: bytes) -> None:
    good, chance = [entry(number) for number in range(60)], random.Random(7)
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 9)):
            place = chance.randrange(len(data))
            # Another version number is another promise, which has tests of its own.
            data[place + 4 if 60 <= place < 64 else place] = chance.randrange(256)
        path.write_bytes(data)
        assert is_fit(path, good)


@pytest.mark.parametrize("journal", [b"", b"rubbish " * 200, bytes(4096)])
def test_a_journal_that_is_none_changes_nothing(path: Path, sound: bytes, journal: bytes) -> None:
    path.with_name(path.name + "-journal").write_bytes(journal)
    assert opened(path) == ([entry(number) for number in range(60)], [])
