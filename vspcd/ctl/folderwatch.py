"""Which consoles' logs have changed, and what consoles are called, in the log directories.

Does: waits without a look at any file while nothing happens; one watch serves all consoles of a directory.
Owns: the watches.
Never: opens a log. Where the kernel gives no watch, and while a directory is gone, it says once a second that
everything may have changed.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from typing import Optional

from vspcd.ctl.logplace import BY_NAME
from vspcd.unix.inotify import OVERFLOW, Event, Inotify

LOOK_EVERY = 1.0


class Changes:
    """What has happened: names of files, and of links by name, per log directory. ``all``: anything."""

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = {}
        self.links: dict[str, set[str]] = {}
        self.all = False


class FolderWatch:
    """Watches log directories and the links by name in them."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._missing: set[str] = set()
        self._watched: dict[int, str] = {}
        self._next_look = 0.0
        self._kernel: Optional[Inotify] = None
        try:
            self._kernel = Inotify()
        except OSError:
            self._missing.update(folders)
            return
        for folder in folders:
            self._add(folder)
            self._add_links(folder)

    def _add(self, folder: str) -> bool:
        if self._kernel is None:
            return False
        try:
            self._watched[self._kernel.add(folder)] = folder
        except OSError:
            self._missing.add(folder)
            return False
        self._missing.discard(folder)
        return True

    def _add_links(self, folder: str) -> None:
        if self._add(os.path.join(folder, BY_NAME)):
            return
        # It comes with the first name, which the directory above tells of.
        self._missing.discard(os.path.join(folder, BY_NAME))

    def wait(self, seconds: Optional[float]) -> Changes:
        """What has changed, waiting for it up to so many seconds, or for ever."""
        if self._missing:
            until_look = max(self._next_look - time.monotonic(), 0.0)
            seconds = until_look if seconds is None else min(seconds, until_look)
        poll = select.poll()
        if self._kernel is not None:
            poll.register(self._kernel.fd, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        changes = Changes()
        if ready and self._kernel is not None:
            for event in self._kernel.read():
                self._take(event, changes)
        if self._missing and time.monotonic() >= self._next_look:
            self._look(changes)
        return changes

    def _take(self, event: Event, changes: Changes) -> None:
        if event.mask & OVERFLOW:
            changes.all = True
            return
        folder = self._watched.get(event.watch)
        if folder is None:
            return
        if event.lost:
            self._lose(event.watch)
        elif os.path.basename(folder) == BY_NAME:
            changes.links.setdefault(os.path.dirname(folder), set()).add(event.name)
        elif event.name == BY_NAME:
            self._add_links(folder)
            changes.all = True
        else:
            changes.files.setdefault(folder, set()).add(event.name)

    def _lose(self, watch: int) -> None:
        folder = self._watched.pop(watch)
        if self._kernel is not None:
            self._kernel.remove(watch)
        if os.path.basename(folder) != BY_NAME:
            self._missing.add(folder)
            self._next_look = 0.0

    def _look(self, changes: Changes) -> None:
        self._next_look = time.monotonic() + LOOK_EVERY
        changes.all = True
        for folder in tuple(self._missing):
            if self._add(folder):
                self._add_links(folder)

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
