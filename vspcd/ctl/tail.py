"""vspcctl tail: follows the logs of many consoles at once, each line with its console's name.

Does: shows whole lines as they come, over rotations; takes in consoles that come later, and new names.
Owns: the open files of the consoles that talk, up to OPEN_LIMIT.
Never: looks at a console that says nothing; lets a log or a name steer a terminal, unless --raw.
"""

from __future__ import annotations

import os
import re
import time
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import DENIED, INTERRUPTED, USAGE, Failure
from vspcd.ctl.folderwatch import Changes, FolderWatch
from vspcd.ctl.lines import Line, Splitter, lines_of
from vspcd.ctl.logplace import Logged, at_stem, fits, folders_and_logs, is_pattern, link_names, meant, stem_of
from vspcd.ctl.pager import write_all
from vspcd.ctl.pattern import compiled
from vspcd.ctl.printer import Look, Owner, as_json, rendered
from vspcd.ctl.segments import Follower, Place, Segments
from vspcd.ctl.table import colours_wanted

OPEN_LIMIT = 200
FIRST_LINES = 10
PATIENCE = 1.0
"""Seconds after which a terminal is shown a line that has no end, such as a prompt; and seconds that a new console
has for telling its name."""
PAUSE = 0.02
"""Seconds between two looks, so that a chatty console costs few of them."""
BLOCKS = 64
"""So much of one console is shown before it is the others' turn."""

_NUMBER = re.compile(r"\.\d{1,6}\Z", re.ASCII)


class Followed:
    """One console: how far its log was shown."""

    def __init__(self, console: Logged, from_end: bool) -> None:
        self.console = console
        self.come = Splitter()
        self.since = 0.0  # when what waits in ``come`` came
        self.follower: Optional[Follower] = None
        self._at = 0
        self._file: Optional[tuple[int, int]] = None
        self._named_by = time.monotonic() + (0.0 if from_end else PATIENCE)
        if from_end:
            self._note_end()

    def _note_end(self) -> None:
        try:
            status = os.stat(self.console.path)
        except OSError:
            return
        self._file, self._at = (status.st_dev, status.st_ino), status.st_size

    def may_get_a_name(self) -> bool:
        """Whether it is so new that its VM may still tell its name."""
        return not self.console.name and time.monotonic() < self._named_by

    @property
    def owner(self) -> Owner:
        return Owner(self.console.id, self.console.shown)

    def last(self, count: int) -> Iterator[tuple[Line, Optional[float]]]:
        """The last lines that it has said up to now, with their times; what comes is shown from there on."""
        with Segments(self.console.path, self.console.rotated) as segments:
            end = segments.end
            self._file, self._at = segments.all[-1].identity, end.byte
            for line in lines_of(segments, segments.last_lines(count, Place(0, 0), end), end):
                yield line, segments.moment(line.place) if line.place else None

    def read(self) -> bytes:
        """What has come; empty when nothing has. Raises PermissionError."""
        if self.follower is None:
            if self._is_where_it_was():
                return b""
            try:
                self._open()
            except FileNotFoundError:
                return b""
        assert self.follower is not None
        return self.follower.read()

    def _is_where_it_was(self) -> bool:
        try:
            status = os.stat(self.console.path)
        except OSError:
            return False
        return self._file == (status.st_dev, status.st_ino) and self._at == status.st_size

    def _open(self) -> None:
        segments = Segments(self.console.path, indexed=False)
        known = [segment.identity for segment in segments.all]
        number = known.index(self._file) if self._file in known else 0
        found = segments.all.pop(number)
        for segment in segments.all:
            segment.close()
        self.follower = Follower(self.console.path, found, self._at if self._file in known else 0)

    def close(self) -> None:
        """Let go of the file, to go on there later."""
        if self.follower is not None:
            self._file, self._at = self.follower.place
            self.follower.close()
            self.follower = None


class Tail:
    """All consoles that are followed."""

    def __init__(self, arguments: Namespace) -> None:
        self._patterns = ["*"] if arguments.all else [name for name in arguments.names if is_pattern(name)]
        self._terminal = os.isatty(1) and not arguments.raw
        self._json: bool = arguments.json
        self._patient = not os.isatty(1) or arguments.json
        pattern = None
        if arguments.grep is not None:
            pattern = compiled(arguments.grep, arguments.ignore_case, arguments.fixed_strings)
        self._look = Look(self._terminal, arguments.timestamps, self._terminal and colours_wanted(1), pattern)
        self._followed: dict[str, Followed] = {}
        self._open: OrderedDict[str, Followed] = OrderedDict()
        self._waiting: dict[str, Followed] = {}
        self._ready: dict[str, Followed] = {}
        self._held: list[bytes] = []
        self._folders, known = folders_and_logs(arguments, early=bool(self._patterns))
        self._names: dict[str, str] = {}
        self._watch = FolderWatch(self._folders)
        self._follow(arguments, known)

    def _follow(self, arguments: Namespace, known: list[Logged]) -> None:
        """The consoles that there are, from their ends on."""
        plain = [name for name in arguments.names if not is_pattern(name)]
        wanted = {console.id for name in plain for console in meant(name, known)}
        count = arguments.lines
        if count is None:
            count = 0 if self._patterns else FIRST_LINES
        for console in known:
            if console.id in wanted or self._fits(console):
                followed = self._followed[console.id] = Followed(console, from_end=True)
                if count:
                    self._show_last(followed, count)
                # It may have said something between the look at it and the watch.
                self._ready[console.id] = followed

    def _show_last(self, followed: Followed, count: int) -> None:
        try:
            for line, moment in followed.last(count):
                self._show(followed, line.text, moment)
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise _denied(error, followed) from None

    def _fits(self, console: Logged) -> bool:
        return any(fits(pattern, console.shown, console.id) for pattern in self._patterns)

    def run(self) -> None:
        """For ever."""
        while True:
            self._read()
            self._flush()
            self._take(self._watch.wait(0 if self._ready else self._until_shown()))
            time.sleep(PAUSE)
            self._take(self._watch.wait(0))
            self._show_waiting()

    # What has happened.

    def _take(self, changes: Changes) -> None:
        if changes.all:
            self._ready.update(self._followed)
            for folder in self._folders:
                self._rename(folder, link_names(folder))
                self._take_files(folder, _listed(folder))
        for folder, links in changes.links.items():
            self._rename(folder, link_names(folder, links))
        for folder, files in changes.files.items():
            self._take_files(folder, files)

    def _take_files(self, folder: str, files: Iterable[str]) -> None:
        for file in files:
            current = _NUMBER.sub("", file)
            ids = stem_of(current)
            if ids is None:
                continue
            stem = current[: -len(".log")]
            if stem in self._followed:
                self._ready[stem] = self._followed[stem]
            elif self._patterns:
                self._welcome(at_stem(folder, *ids, self._names, []))

    def _welcome(self, console: Logged) -> None:
        """A console that was not there before, if it is wanted: from its first byte on."""
        if self._fits(console):
            self._followed[console.id] = self._ready[console.id] = Followed(console, from_end=False)

    def _rename(self, folder: str, names: dict[str, str]) -> None:
        """Consoles have told their names, or have others now."""
        self._names.update(names)
        for stem in names:
            ids = stem_of(f"{stem}.log")
            if ids is None:
                continue
            console, followed = at_stem(folder, *ids, names, []), self._followed.get(stem)
            if followed is not None:
                followed.console = followed.console._replace(name=console.name)
            elif self._patterns and os.path.exists(console.path):
                self._welcome(console)

    # What they say.

    def _read(self) -> None:
        ready, self._ready = self._ready, {}
        for stem, followed in ready.items():
            if followed.may_get_a_name():
                self._ready[stem] = followed
                continue
            for _ in range(BLOCKS):
                data = self._data(followed)
                if not data:
                    break
                self._said(stem, followed, data)
            else:
                self._ready[stem] = followed
            self._keep(stem, followed)

    def _data(self, followed: Followed) -> bytes:
        try:
            return followed.read()
        except PermissionError as error:
            raise _denied(error, followed) from None

    def _said(self, stem: str, followed: Followed, data: bytes) -> None:
        for line in followed.come.feed(data):
            self._show(followed, line.text, time.time() if self._json or self._look.timestamps else None)
        if followed.come.waits and not self._patient:
            followed.since = time.monotonic()
            self._waiting[stem] = followed
        else:
            self._waiting.pop(stem, None)

    def _keep(self, stem: str, followed: Followed) -> None:
        """Leave its file open, and close that of the one who has been silent the longest."""
        if followed.follower is None:
            return
        self._open[stem] = followed
        self._open.move_to_end(stem)
        while len(self._open) > OPEN_LIMIT:
            self._open.popitem(last=False)[1].close()

    def _until_shown(self) -> Optional[float]:
        """Seconds until a line without an end is shown."""
        if not self._waiting:
            return None
        return max(min(each.since for each in self._waiting.values()) + PATIENCE - time.monotonic(), 0.0)

    def _show_waiting(self) -> None:
        now = time.monotonic()
        for stem, followed in tuple(self._waiting.items()):
            if followed.since + PATIENCE <= now:
                del self._waiting[stem]
                self._show_rest(followed)

    def _show_rest(self, followed: Followed) -> None:
        for line in followed.come.rest():
            self._show(followed, line.text, time.time())

    def _show(self, followed: Followed, text: bytes, moment: Optional[float]) -> None:
        if self._look.matches is not None and not self._look.matches.matches(text):
            return
        owner = followed.owner
        self._held.append(
            as_json(text, moment, owner) if self._json else rendered(text, self._look, moment, owner)
        )
        if len(self._held) >= 1000:
            self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, []
        write_all(1, b"".join(held))

    def finish(self) -> None:
        """Show what has no end yet."""
        for followed in self._followed.values():
            self._show_rest(followed)
        self._flush()

    def close(self) -> None:
        self._watch.close()


def run(arguments: Namespace) -> int:
    if arguments.all and arguments.names:
        raise Failure("--all is all consoles; leave it out to name some", USAGE)
    if not arguments.all and not arguments.names:
        raise Failure("name consoles or patterns, or say --all for all of them", USAGE)
    if arguments.raw and arguments.json:
        raise Failure("--raw and --json exclude each other", USAGE)
    tail = Tail(arguments)
    try:
        tail.run()
    except KeyboardInterrupt:
        tail.finish()
    finally:
        tail.close()
    return INTERRUPTED


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _denied(error: OSError, followed: Followed) -> Failure:
    return Failure(f"permission denied on {visible(str(error.filename or followed.console.path))}", DENIED)
