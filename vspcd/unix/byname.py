"""Links to the logs by the consoles' names, in ``by-name/`` of the log directory.

Does: keeps one symbolic link per console up to date with its name.
Owns: nothing but the name of the link that it made last.
Never: follows a link; lets a name lead out of the directory (``names.file_name`` takes care of that).
"""

from __future__ import annotations

import os
from typing import Optional

from vspcd.core.names import file_name

DIRECTORY = "by-name"


class ByName:
    """The link of one console. ``directory`` is an open descriptor of the log directory."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._link: Optional[str] = None

    def show(self, name: str, log_name: str, identity: str) -> None:
        """Let ``by-name/<name>.log`` lead to the log; a name that another console has gets part of the
        identity.

        Raises OSError when the directory cannot be written.
        """
        target = f"../{log_name}"
        wanted = f"{file_name(name)}.log"
        if self._target(wanted) not in (None, target):
            wanted = f"{file_name(name)}.{identity}.log"
        if self._link not in (None, wanted):
            self.remove(log_name)
        if self._target(wanted) != target:
            self._make(wanted, target)
        self._link = wanted

    def remove(self, log_name: str) -> None:
        """Take the link away, if it is still ours."""
        if self._link is not None and self._target(self._link) == f"../{log_name}":
            os.unlink(f"{DIRECTORY}/{self._link}", dir_fd=self._directory)
        self._link = None

    def _target(self, link: str) -> Optional[str]:
        try:
            return os.readlink(f"{DIRECTORY}/{link}", dir_fd=self._directory)
        except OSError:
            return None

    def _make(self, link: str, target: str) -> None:
        try:
            os.mkdir(DIRECTORY, 0o750, dir_fd=self._directory)
        except FileExistsError:
            pass
        beside = f"{DIRECTORY}/.{os.getpid()}.new"
        try:
            os.unlink(beside, dir_fd=self._directory)  # a crash may have left it
        except FileNotFoundError:
            pass
        os.symlink(target, beside, dir_fd=self._directory)
        os.replace(beside, f"{DIRECTORY}/{link}", src_dir_fd=self._directory, dst_dir_fd=self._directory)
