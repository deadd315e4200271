"""Finds a console's log file: from the daemon when it runs, else in the log directory itself.

Owns: nothing.
Never: needs the daemon; takes a name that is not a console's.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Optional

from vspcd.core.names import Ambiguous, NotFound, resolve, visible
from vspcd.ctl import status
from vspcd.ctl.client import Client, socket_path
from vspcd.ctl.failure import DENIED, FAILED, NO_CONSOLE, NO_DAEMON, Failure
from vspcd.ctl.status import Named

QUERY_DEADLINE = 3.0
SYSTEM_CONFIG = "/etc/vspcd/vspcd.yaml"
BY_NAME = "by-name"

_STEM = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.([A-Za-z0-9_-]{1,32}))?\.log(?:\.\d{1,6})?", re.ASCII
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
    from vspcd.config import ConfigError, load

    try:
        directory = load(Path(path), (), Path(root) if root else None).log.dir
    except ConfigError as error:
        raise Failure(str(error), FAILED) from None
    if directory is None:
        raise Failure(f"logging is off in {path}", FAILED)
    return str(directory)


def _from_directory(query: str, directory: str) -> str:
    consoles = _logged(directory)
    try:
        return os.path.join(directory, resolve(query, consoles).id + ".log")
    except NotFound as error:
        raise Failure(f"{error} (looked for its log in {directory})", NO_CONSOLE) from None
    except Ambiguous as error:
        raise Failure(str(error), NO_CONSOLE) from None


def _logged(directory: str) -> list[Named]:
    """The consoles that have a log in this directory, with the names that their links tell."""
    try:
        files = os.listdir(directory)
    except PermissionError:
        raise Failure(f"permission denied on {directory}", DENIED) from None
    except OSError as error:
        raise Failure(f"no logs in {directory}: {error.strerror}", NO_CONSOLE) from None
    names = _names(os.path.join(directory, BY_NAME))
    found = {(match[1], match[2]) for match in map(_STEM.fullmatch, files) if match}
    stems = [(f"{uuid}.{label}" if label else uuid, uuid, label) for uuid, label in found]
    return [Named(stem, uuid, label, names.get(stem)) for stem, uuid, label in sorted(stems)]


def _names(directory: str) -> dict[str, str]:
    """Console id → name, from the links by name."""
    names: dict[str, str] = {}
    try:
        links = os.listdir(directory)
    except OSError:
        return names
    for link in links:
        try:
            target = os.path.basename(os.readlink(os.path.join(directory, link)))
        except OSError:
            continue
        stem = target[: -len(".log")]
        name = link[: -len(".log")]
        # A name that several consoles have is followed by the id.
        names[stem] = name[: -len(stem) - 1] if name.endswith("." + stem) else name
    return names
