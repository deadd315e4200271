"""vspcctl import-vspc: vSPC.py's port map, as its File back end or its client has written it."""

from __future__ import annotations

import dbm.dumb
import json
import os
import pickle
import shelve
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import StartDaemon
from tests.system.daemon import Daemon

FIRST, SECOND = "4c4c4544-0051-3010-8052-b4c04f564432", "4c4c4544-0051-3010-8052-b4c04f564433"
AS_VSPC_HAS_IT = {
    "4c 4c 45 44 00 51 30 10-80 52 b4 c0 4f 56 44 32": ("web01", 50123),
    "4c 4c 45 44 00 51 30 10-80 52 b4 c0 4f 56 44 33": ("grüße", None),
}


class Trap:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def records(port: int = 50123) -> dict[str, object]:
    return {
        uuid: {"uuid": uuid, "name": name, "port": port if old else None}
        for uuid, (name, old) in AS_VSPC_HAS_IT.items()
    }


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return int(sock.getsockname()[1])


def shelf(path: Path, values: dict[str, object], protocol: int = 3) -> Path:
    database: Any = dbm.dumb.open(str(path), "c")  # noqa: SIM115 (the shelf closes it)
    made: shelve.Shelf[object] = shelve.Shelf(database, protocol)
    with closing(made) as file:
        file.update(values)
    return path


def dbm_sqlite(path: Path, values: dict[str, object]) -> Path:
    """As Python 3.13 does."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        rows = [(key.encode(), pickle.dumps(value)) for key, value in values.items()]
        database.executemany("INSERT INTO Dict VALUES (?, ?)", rows)
        database.commit()
    return path


def listing(path: Path, values: dict[str, object]) -> Path:
    """As vSPCClient prints it."""
    lines = [":".join(str(value) for value in one.values() if value) for one in map(ordered, values.values())]
    path.write_text("\n".join(lines) + "\n")
    return path


def ordered(record: object) -> dict[str, object]:
    assert isinstance(record, dict)
    return {key: record[key] for key in ("name", "uuid", "port")}


@pytest.mark.parametrize("made", [shelf, dbm_sqlite, listing])
def test_ports_are_taken_over(made: object, start_daemon: StartDaemon, tmp_path: Path) -> None:
    port = free_port()
    assert callable(made)
    made(tmp_path / "map", records(port))
    daemon = start_daemon("ports.first=40000")
    shown = daemon.ctl("import-vspc", "--dry-run", str(tmp_path / "map"))
    assert shown.stdout == f"grüße\t{SECOND}\t-\nweb01\t{FIRST}\t{port}\n"
    assert daemon.consoles() == []
    done = daemon.ctl("import-vspc", str(tmp_path / "map"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"web01\t{FIRST}\t{port}\ttaken over\n" in done.stdout
    assert daemon.wait_open("web01")["port"] == port
    assert daemon.wait_open("grüße")["port"] >= 40000
    again = daemon.ctl("import-vspc", str(tmp_path / "map"))
    assert again.stdout.count("known already") == 2
    vm_port = daemon.dial(name="web01", uuid=FIRST)
    assert daemon.console("web01")["port"] == port
    vm_port.close()
    daemon.stop()
    daemon.start()
    assert daemon.wait_open("web01")["port"] == port


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int, daemon: Daemon, tmp_path: Path) -> None:
    shelf(tmp_path / "map", records(), protocol)
    assert FIRST in daemon.ctl("import-vspc", "--dry-run", str(tmp_path / "map")).stdout


def test_a_port_that_something_else_has(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """vSPC.py itself, most often."""
    daemon = start_daemon("ports.first=40000")
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = int(other.getsockname()[1])
        done = daemon.ctl("import-vspc", str(shelf(tmp_path / "map", records(port))))
    assert f"something else has port {port}" in done.stdout
    assert daemon.wait_open("web01")["port"] != port


def test_an_import_for_programs(daemon: Daemon, tmp_path: Path) -> None:
    port = free_port()
    path = str(shelf(tmp_path / "map", {**records(port), "other": [1]}))
    shown = json.loads(daemon.ctl("import-vspc", "--dry-run", "--json", path).stdout)
    assert shown["consoles"][1] == {"name": "web01", "id": FIRST, "port": port}
    done = daemon.ctl("import-vspc", "--json", path)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit"], answer["error"]) == (1, 1, "1 could not be taken over")
    assert answer["bad"] == ["other: it is no record of vSPC.py"]
    (web01,) = (one for one in answer["consoles"] if one["name"] == "web01")
    assert set(web01) == {"name", "id", "port", "outcome"}
    assert (web01["id"], web01["port"]) == (
        FIRST,
        daemon.wait_open("web01")["port"],
    )  # another test may have had it


def test_a_value_with_a_call_in_it_calls_nothing(daemon: Daemon, tmp_path: Path) -> None:
    values = {**records(free_port()), "trap": Trap(tmp_path / "sprung"), "other": [1]}
    done = daemon.ctl("import-vspc", str(shelf(tmp_path / "map", values)))
    assert done.returncode == 1
    assert done.stderr.count("not taken over") == 2
    assert "web01" in done.stdout
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no"),
        (b"\0" * 12 + b"\x61\x15\x06\x00" + b"\0" * 4080, "Berkeley DB"),
        (b"\x89PNG", "neither a DBM file nor a list"),
        (b"SQLite format 3\0 and no more", "no DBM file of Python's"),
        (b"web01:nonsense:50000\n", "neither a DBM file nor a list"),
    ],
)
def test_what_cannot_be_read_is_said(content: bytes, words: str, daemon: Daemon, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "map").write_bytes(content)
    done = daemon.ctl("import-vspc", str(tmp_path / "map"))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_shelf_is_said(daemon: Daemon, tmp_path: Path) -> None:
    shelf(tmp_path / "map", records())
    (tmp_path / "map.dir").write_text("'a', (0, 'no')\n(((\n")
    done = daemon.ctl("import-vspc", str(tmp_path / "map"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "damaged" in done.stderr or "not taken over" in done.stderr
