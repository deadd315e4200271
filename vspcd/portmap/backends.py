"""The back ends of the port map by name: ``memory``, ``file``, or ``module:Class`` of the user's own.

Does: opens the one that is configured; keeps a user's own from doing harm with an exception, a hang or a wrong answer.
Owns: the names.
Never: imports a user's module anywhere but in the keeper, which calls this.

A user's code has LIMIT seconds for each call. Whatever it raises becomes a PortMapError that names class and call.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, Optional

from vspcd.portmap import sqlite
from vspcd.portmap.base import Backend, Change, Entry, PortMapError
from vspcd.portmap.memory import MemoryBackend
from vspcd.proto.vmware_codes import format_uuid

MEMORY, FILE = "memory", "file"
FILE_NAME = "portmap.db"
LIMIT = 10.0
REASON_LIMIT = 500
NOTES = 20
_UUID = re.compile(r"[0-9a-f]{32}")
_LABEL = re.compile(r"[A-Za-z0-9_-]{0,32}")


class Choice(NamedTuple):
    """What is configured. ``folder`` is searched for the module first; ``options`` are for a user's class."""

    name: str = FILE
    folder: Optional[Path] = None
    options: tuple[tuple[str, str], ...] = ()


def opened(choice: Choice, state: Path) -> Backend:
    """The back end, ready for use. Raises PortMapError."""
    if choice.name == MEMORY:
        return MemoryBackend()
    if choice.name == FILE:
        return sqlite.SqliteBackend(state / FILE_NAME)
    return Guarded(choice, state)


def from_the_future(choice: Choice, state: Path) -> Optional[str]:
    """Why this version cannot read the map that is there; None when it can, or when that is not known beforehand."""
    return sqlite.from_the_future(state / FILE_NAME) if choice.name == FILE else None


def objection(choice: Choice) -> Optional[str]:
    """Why a module cannot be found; None when it can.

    Of a module in a package only the outermost package is looked for. Its code says what is in it, and is not run here.
    """
    if choice.name in (MEMORY, FILE):
        return None
    module = choice.name.partition(":")[0].partition(".")[0]
    before = list(sys.path)
    try:
        _search(choice.folder)
        found = importlib.util.find_spec(module) is not None
    except OSError as error:
        return f"the module {module!r} cannot be looked for: {error.strerror}"
    except (ImportError, ValueError, AttributeError):
        found = False
    finally:
        sys.path[:] = before
    where = "" if choice.folder is None else f" in {choice.folder}, nor elsewhere"
    return None if found else f"there is no module {module!r}{where}"


def _search(folder: Optional[Path]) -> None:
    importlib.invalidate_caches()
    if folder is not None:
        sys.path.insert(0, str(folder))


class _TooLong(BaseException):
    """No Exception, so that a careless ``except Exception`` of the user's does not swallow it."""


class Guarded:
    """A user's own back end behind a fence."""

    def __init__(self, choice: Choice, state: Path) -> None:
        self._name = choice.name
        module, _, attribute = choice.name.partition(":")
        with self._fence("import"):
            _search(choice.folder)
            made = getattr(importlib.import_module(module), attribute)
        with self._fence("begin"):
            self._inner: Any = made(state, dict(choice.options))

    @property
    def notes(self) -> Sequence[str]:
        """What its user is to be told."""
        with self._fence("notes"):
            return [str(note) for note in list(getattr(self._inner, "notes", ()))[:NOTES]]

    def load(self) -> list[Entry]:
        """All entries, each of which is one. Raises PortMapError."""
        with self._fence("load"):
            found = list(self._inner.load())
        wrong = _wrong(found)
        if wrong:
            raise PortMapError(f"the port map {self._name} has loaded {wrong}")
        return sorted(found, key=lambda entry: entry.console)

    def apply(self, changes: Sequence[Change]) -> None:
        """Raises PortMapError."""
        with self._fence("apply"):
            self._inner.apply(list(changes))

    def close(self) -> None:
        """Whatever it says to that, it is the end."""
        try:
            with self._fence("close"):
                self._inner.close()
        except PortMapError as error:
            sys.stderr.write(f"{error}\n")

    @contextmanager
    def _fence(self, call: str) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, LIMIT, 0.5)
        try:
            yield
        except PortMapError as error:
            raise PortMapError(f"the port map {self._name}: {call}: {error}"[:REASON_LIMIT]) from error
        except _TooLong:
            raise PortMapError(f"the port map {self._name}: {call} took more than {LIMIT:g} s") from None
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"[:REASON_LIMIT]
            raise PortMapError(f"the port map {self._name}: {call} failed: {reason}") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _stop(_number: int, _frame: object) -> None:
    raise _TooLong


def _wrong(entries: Sequence[object]) -> str:
    """What is wrong with what was loaded; nothing when all is right."""
    consoles: dict[str, object] = {}
    ports: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, Entry):
            return f"{type(entry).__name__!r} in place of an Entry"
        fault = _fault(entry)
        if fault:
            return f"an entry {str(entry.console)[:80]!r} {fault}"
        if consoles.setdefault(entry.console, entry) is not entry:
            return f"two entries of {entry.console}"
        if entry.port and ports.setdefault(entry.port, entry.console) != entry.console:
            return f"port {entry.port} twice, for {ports[entry.port]} and for {entry.console}"
    return ""


def _fault(entry: Entry) -> str:
    kinds: Mapping[str, tuple[type, ...]] = {
        "port": (int,),
        "last_seen": (int, float),
        "bios_uuid": (str, type(None)),
        "location_uuid": (str, type(None)),
    }
    for each in fields(Entry):
        value = getattr(entry, each.name)
        if not isinstance(value, kinds.get(each.name, (str,))) or isinstance(value, bool):
            return f"whose {each.name} is a {type(value).__name__}"
    if not 0 <= entry.port <= 65535:
        return f"whose port is {entry.port}"
    if not _UUID.fullmatch(entry.uuid) or not _LABEL.fullmatch(entry.label):
        return "whose uuid or label is none"
    wanted = format_uuid(entry.uuid) + (f".{entry.label}" if entry.label else "")
    return "" if entry.console == wanted else f"whose console should be {wanted!r}"
