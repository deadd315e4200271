"""The `file` back end of the port map: one SQLite file, every batch one transaction that is on the disk.

Owns the file, its journal and the schema's migrations. A damaged file is set aside, never deleted and never
half trusted. Holds the file's lock from open to close, so a second daemon on it is refused. Decides no port.

A rollback journal, no WAL: damage in a WAL drops in silence what was acknowledged, and with the journal the
one file is always the whole map. While the lock is held the journal stays, and a batch costs the same.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Optional

from vspcd.portmap.base import Change, Entry, PortMapError, outcome

LOCK_SECONDS = 5.0
CHECK_FAULTS = 3
SMALLEST_FILE = 512
FIRST_BYTES, VERSION_AT = b"SQLite format 3\0", 60  # of the file's header, where PRAGMA user_version is kept

_COLUMNS = tuple(field.name for field in fields(Entry))
_SELECT = f"SELECT {', '.join(_COLUMNS)}, checksum FROM consoles ORDER BY console"
_PLACES = ", ".join("?" * (len(_COLUMNS) + 1))
_INSERT = f"INSERT INTO consoles ({', '.join(_COLUMNS)}, checksum) VALUES ({_PLACES})"
# The file itself goes last: a journal without its file must never meet a new file of that name.
_COMPANIONS = ("-journal", "-wal", "-shm", "")

# The step at index N makes version N + 1 of version N. A step that was released never changes.
STEPS: Sequence[str] = (
    """CREATE TABLE consoles (
        console TEXT PRIMARY KEY NOT NULL,
        uuid TEXT NOT NULL,
        label TEXT NOT NULL,
        name TEXT NOT NULL,
        port INTEGER UNIQUE CHECK (port BETWEEN 1 AND 65535),
        last_seen REAL NOT NULL,
        bios_uuid TEXT,
        location_uuid TEXT,
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID""",
)

# What the system can say about a sound file. Anything else that fails on opening is in the file itself.
_NOT_THE_FILE = ("locked", "unable to open", "disk I/O", "disk is full", "permission denied")


class SqliteBackend:
    """A Backend on a file. Opening it raises PortMapError; damage is healed and told in `notes`."""

    notes: Sequence[str]

    def __init__(self, path: Path, steps: Sequence[str] = STEPS) -> None:
        self._path = path
        self.notes = (f"the port map {path} was empty; a new one was begun",) if _is_empty(path) else ()
        try:
            self._base = _open(path, steps)
        except _Damaged as damage:
            self._base = self._begin_afresh(damage, steps)

    def load(self) -> list[Entry]:
        with self._failures("read"):
            return [_entry(row) for row in self._base.execute(_SELECT)]

    def apply(self, changes: Sequence[Change]) -> None:
        after = outcome(changes)
        if not after:
            return
        with self._failures("changed"), _transaction(self._base):
            # All go before the first comes back, so that ports can be swapped.
            self._base.executemany(
                "DELETE FROM consoles WHERE console = ?", [(console,) for console in after]
            )
            self._base.executemany(_INSERT, [_row(entry) for entry in after.values() if entry is not None])

    def close(self) -> None:
        self._base.close()

    def _begin_afresh(self, damage: _Damaged, steps: Sequence[str]) -> sqlite3.Connection:
        try:
            aside = _set_aside(self._path)
            base = _open(self._path, steps)
        except (_Damaged, OSError) as error:
            raise PortMapError(
                f"{self._path} is damaged ({damage}) and cannot be replaced: {error}"
            ) from error
        self._base = base
        self.notes = (
            f"the port map {self._path} was damaged ({damage}); it was set aside as {aside},"
            f" and {len(damage.sound)} of its entries were kept",
        )
        with self._failures("changed"), _transaction(base):
            base.executemany(_INSERT, [_row(entry) for entry in damage.sound])
        return base

    @contextmanager
    def _failures(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise PortMapError(f"the port map {self._path} cannot be {verb}: {error}") from error


class _Damaged(Exception):
    """The file is not what was written. `sound`: the entries that are, beyond doubt."""

    def __init__(self, reason: str, sound: Sequence[Entry] = ()) -> None:
        super().__init__(reason)
        self.sound = sound


def _open(path: Path, steps: Sequence[str]) -> sqlite3.Connection:
    _create(path)
    try:
        with _closed_on_error(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as base:
            _prepare(base, path, steps)
            return base
    except UnicodeDecodeError as error:
        # What SQLite says of damage may quote it.
        raise _Damaged("its description is no text") from error
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and any(part in str(error) for part in _NOT_THE_FILE):
            raise PortMapError(f"the port map {path} cannot be opened: {error}") from error
        raise _Damaged(str(error)) from error


@contextmanager
def _closed_on_error(base: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield base
    except BaseException:
        base.close()
        raise


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _create(path: Path) -> None:
    """Makes the file if it is not there. Its name must be on the disk too before anything is acknowledged."""
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _sync_folder(path.parent)
        size = path.stat().st_size
    except OSError as error:
        raise PortMapError(f"the port map {path} cannot be opened: {error.strerror}") from error
    if 0 < size < SMALLEST_FILE:
        # SQLite takes such a stump for a new file.
        raise _Damaged(f"only {size} bytes are left")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _prepare(base: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    base.text_factory = _decode
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = DELETE", "synchronous = EXTRA"):
        base.execute(f"PRAGMA {pragma}").fetchall()
    base.execute("BEGIN EXCLUSIVE").execute("COMMIT")
    _check_structure(base)
    _migrate(base, path, steps)
    _check_rows(base)


def _decode(data: bytes) -> str:
    """Bad UTF-8 is damage like any other: the row's checksum finds it."""
    return data.decode("utf-8", "replace")


def _check_structure(base: sqlite3.Connection) -> None:
    faults = [str(row[0]) for row in base.execute(f"PRAGMA integrity_check({CHECK_FAULTS})")]
    if faults != ["ok"]:
        raise _Damaged("; ".join(faults).replace("\n", " "))


def from_the_future(path: Path) -> Optional[str]:
    """Why the map is nothing for this version, without opening it: somebody else may have it. None: it is not newer."""
    try:
        with path.open("rb") as file:
            head = file.read(VERSION_AT + 4)
    except OSError:
        return None
    version = int.from_bytes(head[VERSION_AT:], "big", signed=True)
    return _too_new(path, version, STEPS) if head.startswith(FIRST_BYTES) and version > len(STEPS) else None


def _too_new(path: Path, version: int, steps: Sequence[str]) -> str:
    return (
        f"the port map {path} has version {version}, and this vspcd knows versions up to {len(steps)}:"
        " it was written by a newer one; upgrade, or move the file away to begin a new map"
    )


def _migrate(base: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    version = base.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= len(steps):
        raise PortMapError(_too_new(path, version, steps))
    for number in range(version, len(steps)):
        with _transaction(base):
            base.execute(steps[number])
            base.execute(f"PRAGMA user_version = {number + 1}")


def _check_rows(base: sqlite3.Connection) -> None:
    rows = base.execute(_SELECT).fetchall()
    sound = [_entry(row) for row in rows if row[-1] == _checksum(row[:-1])]
    if len(sound) != len(rows):
        raise _Damaged(f"{len(rows) - len(sound)} entries do not match their checksums", sound)


@contextmanager
def _transaction(base: sqlite3.Connection) -> Iterator[None]:
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
        base.execute("COMMIT")
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def _row(entry: Entry) -> tuple[Any, ...]:
    # As SQLite gives them back, which the checksum depends on: no port is NULL, and there is no -0.0.
    special = {"port": entry.port or None, "last_seen": float(entry.last_seen) + 0.0}
    values = tuple(special.get(column, getattr(entry, column)) for column in _COLUMNS)
    return (*values, _checksum(values))


def _entry(row: Sequence[Any]) -> Entry:
    facts = dict(zip(_COLUMNS, row))
    facts["port"] = facts["port"] or 0
    return Entry(**facts)


def _checksum(values: Sequence[Any]) -> int:
    """SQLite has none for what is inside a row. Empty columns at the end do not count: a step may add one."""
    count = max((index for index, value in enumerate(values, 1) if value is not None), default=0)
    return zlib.crc32(repr(tuple(values[:count])).encode())


def _set_aside(path: Path) -> Path:
    """Renames the file and its companions together, so that sqlite3 can open what is left of it by hand."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = [
        path.with_name(f"{path.name}.damaged-{stamp}{extra}")
        for extra in ("", *map("-{}".format, range(2, 100)))
    ]
    aside = next((name for name in names if not name.exists()), names[-1])
    for companion in _COMPANIONS:
        try:
            os.rename(f"{path}{companion}", f"{aside}{companion}")
        except FileNotFoundError:
            pass  # most files have none
    _sync_folder(path.parent)
    return aside
