"""Finds the log files of one console or many: from the daemon when it runs, else in the log directory itself.

Owns: nothing.
Never: needs the daemon; takes a name that is not a console's.
"""

from __future__ import annotations

import fnmatch
import os
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Optional

from vspcd.core.names import Ambiguous, NotFound, resolve, visible
from vspcd.ctl import status
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.failure import DENIED, FAILED, NO_CONSOLE, NO_DAEMON, Failure

QUERY_DEADLINE = 3.0
SYSTEM_CONFIG = "/etc/vspcd/vspcd.yaml"
BY_NAME = "by-name"
NOTHING_TOLD: Mapping[str, str] = MappingProxyType({})

_STEM = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.([A-Za-z0-9_-]{1,32}))?\.log(?:\.(\d{1,6}))?",
    re.ASCII,
)


def find_log(arguments: Namespace) -> str:
    """The path of the console's current log file. Raises Failure."""
    refusal: Optional[Failure] = None
    if not (arguments.dir or arguments.config):
        try:
            found = _from_daemon(arguments)
        except Failure as failure:
            refusal = failure
        else:
            if found is not None:
                return found
            refusal = Failure(f"the console {visible(arguments.name)} is not logged")
    try:
        return _from_directory(arguments.name, _directory(arguments))
    except Failure as failure:
        # The daemon knows more consoles than have a log, and what is wrong with the name.
        raise (refusal if refusal is not None and refusal.exit_code != NO_DAEMON else failure) from None


def _from_daemon(arguments: Namespace) -> Optional[str]:
    """The log's path as the daemon tells it; None when this console is not logged."""
    with Client(socket_path(arguments.socket, arguments.root), QUERY_DEADLINE) as client:
        packets = client.ask({"type": "status", "console": arguments.name})
    consoles = [console for packet in packets for console in packet.get("consoles") or ()]
    path = status.find(arguments.name, consoles).get("log")
    return str(path) if path and os.path.exists(path) else None


def _directory(arguments: Namespace) -> str:
    """Where the logs are without the daemon: --dir, else as configured, else in the usual place."""
    if arguments.dir:
        return str(arguments.dir)
    root = arguments.root or os.environ.get("VSPCD_ROOT")
    config = arguments.config or (SYSTEM_CONFIG if not root and os.path.exists(SYSTEM_CONFIG) else None)
    if config:
        return _configured(config, root)
    return os.path.join(root, "log") if root else "/var/log/vspc"


def _configured(path: str, root: Optional[str]) -> str:
    from pathlib import Path

    from vspcd.config import ConfigError, load

    try:
        directory = load(Path(path), (), Path(root) if root else None).log.dir
    except ConfigError as error:
        raise Failure(str(error), FAILED) from None
    if directory is None:
        raise Failure(f"logging is off in {path}", FAILED)
    return str(directory)


class Logged(NamedTuple):
    """A console with a log: ``path`` is the current file's, ``rotated`` are the numbers of the files before it."""

    id: str
    uuid: str
    label: Optional[str]
    name: Optional[str]
    path: str
    rotated: list[int]

    @property
    def shown(self) -> str:
        """The name with the port's label, the id of a VM without a name."""
        if not self.name:
            return self.id
        return f"{self.name}.{self.label}" if self.label else self.name


def find_logs(arguments: Namespace, queries: Sequence[str]) -> list[Logged]:
    """The consoles that these names and patterns mean, in the order of their names; all without any. Raises Failure."""
    known = all_logs(arguments)
    if not queries:
        return known
    wanted = {console.id for query in queries for console in meant(query, known)}
    return [console for console in known if console.id in wanted]


def all_logs(arguments: Namespace) -> list[Logged]:
    """All consoles with a log, those too that the daemon has forgotten. Raises Failure."""
    return folders_and_logs(arguments)[1]


def folders_and_logs(arguments: Namespace, early: bool = False) -> tuple[list[str], list[Logged]]:
    """The log directories, and all consoles with a log in one of them. Raises Failure.

    ``early``: a directory may still be to come.
    """
    told: list[status.Record] = []
    if not (arguments.dir or arguments.config):
        try:
            path = socket_path(arguments.socket, arguments.root)
            told = status.fetch(path, fields=("id", "name", "log"), deadline=QUERY_DEADLINE)["consoles"]
        except Failure:
            pass  # The files are there without it.
    folders = sorted({os.path.dirname(str(console["log"])) for console in told if console.get("log")})
    folders = folders or [_directory(arguments)]
    names = {str(console["id"]): str(console["name"]) for console in told if console.get("name")}
    there = [folder for folder in folders if not early or os.path.exists(folder)]
    found = [each for folder in there for each in _logged(folder, names)]
    return folders, sorted(found, key=lambda each: (each.shown, each.id))


def is_pattern(query: str) -> bool:
    """Whether it may mean several consoles, and such that are still to come."""
    return any(char in query for char in "*?[")


def meant(query: str, known: Sequence[Logged]) -> list[Logged]:
    """The consoles that a name or a pattern means. Raises Failure when there is none."""
    if is_pattern(query):
        found = [console for console in known if fits(query, console.shown, console.id)]
        if not found:
            raise Failure(f"no console with a log is named like {visible(query)}", NO_CONSOLE)
        return found
    try:
        return [resolve(query, known)]
    except (NotFound, Ambiguous) as error:
        raise Failure(str(error), NO_CONSOLE) from None


def fits(pattern: str, *names: str) -> bool:
    """Whether one of the names is like the pattern."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _from_directory(query: str, directory: str) -> str:
    try:
        return resolve(query, _logged(directory)).path
    except NotFound as error:
        raise Failure(f"{error} (looked for its log in {directory})", NO_CONSOLE) from None
    except Ambiguous as error:
        raise Failure(str(error), NO_CONSOLE) from None


def _logged(directory: str, told: Mapping[str, str] = NOTHING_TOLD) -> list[Logged]:
    """The consoles that have a log in this directory, with the names that were told, else with their links'."""
    try:
        files = os.listdir(directory)
    except PermissionError:
        raise Failure(f"permission denied on {directory}", DENIED) from None
    except OSError as error:
        raise Failure(f"no logs in {directory}: {error.strerror}", NO_CONSOLE) from None
    found: dict[tuple[str, str], list[int]] = {}
    for match in filter(None, map(_STEM.fullmatch, files)):
        found.setdefault((match[1], match[2]), []).extend([int(match[3])] if match[3] else [])
    # Of a thousand consoles, to read the links takes as long as to look for their files.
    links = {} if all(_stem(*ids) in told for ids in found) else link_names(directory)
    consoles = [at_stem(directory, *ids, links, numbers) for ids, numbers in sorted(found.items(), key=str)]
    return [each._replace(name=told.get(each.id, each.name)) for each in consoles]


def _stem(uuid: str, label: str) -> str:
    return f"{uuid}.{label}" if label else uuid


def stem_of(file: str) -> Optional[tuple[str, str]]:
    """UUID and label of a console, from the name of its log file; None for any other file."""
    match = _STEM.fullmatch(file)
    return None if match is None or match[3] else (match[1], match[2])


def at_stem(directory: str, uuid: str, label: str, names: Mapping[str, str], rotated: list[int]) -> Logged:
    """The console whose log files have this beginning."""
    stem = _stem(uuid, label)
    name = names.get(stem)
    if name and label and name.endswith(f".{label}"):
        name = name[: -len(label) - 1]
    return Logged(stem, uuid, label, name, os.path.join(directory, f"{stem}.log"), rotated)


def link_names(directory: str, links: Optional[Iterable[str]] = None) -> dict[str, str]:
    """Console id → name, from the links by name in a log directory: all of them, or these."""
    names: dict[str, str] = {}
    folder = os.path.join(directory, BY_NAME)
    try:
        found = os.listdir(folder) if links is None else links
    except OSError:
        return names
    for link in found:
        try:
            target = os.path.basename(os.readlink(os.path.join(folder, link)))
        except OSError:
            continue
        stem = target[: -len(".log")]
        name = link[: -len(".log")]
        # A name that several consoles have is followed by the id.
        names[stem] = name[: -len(stem) - 1] if name.endswith("." + stem) else name
    return names
