"""vspcctl grep: searches the logs of many consoles, the rotated files too, with or without the daemon.

Does: chooses the files and the part of each, has them searched, shows what was found, by console and in order.
Owns: the form of what is shown; the exit code, as grep's: 0 found, 1 not found, 2 wrong usage or trouble.
Never: searches itself; lets a log or a name steer a terminal, unless --raw.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Optional

from vspcd.core.names import visible
from vspcd.ctl.failure import INTERRUPTED, Failure
from vspcd.ctl.logplace import Logged, find_logs
from vspcd.ctl.logrange import chosen_range, times
from vspcd.ctl.pager import write_all
from vspcd.ctl.pattern import Pattern, compiled
from vspcd.ctl.printer import GAP, Look, Owner, as_json, rendered
from vspcd.ctl.seam import seam
from vspcd.ctl.search import JOB_BYTES, JOB_FILES, SEPARATOR, Job, Plan, Target, new_key
from vspcd.ctl.search import run as search
from vspcd.ctl.segments import Segments
from vspcd.ctl.table import colours_wanted

FOUND, NOT_FOUND, TROUBLE = 0, 1, 2
WRITTEN = 1 << 18
PIECE = 1 << 16
WHOLE = 1 << 62
OWN_JOB = 16 << 20
"""A console with so much log is searched by a process of its own: whose the lines are need not be told then."""

_PLACE = re.compile(rb"(\d+)([:-])")


class Files:
    """The files that are searched, dealt out to jobs; what could not be read is remembered."""

    def __init__(self, consoles: Sequence[Logged], pattern: Pattern, arguments: Namespace) -> None:
        self._consoles = consoles
        self._pattern = pattern
        self._when = times(arguments)
        self._indexed = bool(self._when or arguments.timestamps or arguments.json)
        self._denied: list[str] = []
        self.without_index = 0

    @property
    def whole(self) -> bool:
        """Whether all of each file is wanted."""
        return not self._when

    def jobs(self) -> Iterator[Job]:
        """Small consoles share jobs; a large one has jobs of its own."""
        targets: list[Target] = []
        size = 0
        for number in range(len(self._consoles)):
            own = list(self._targets(number))
            large = sum(target.segment.size for target in own) >= OWN_JOB
            for target in own:
                full = size >= JOB_BYTES or len(targets) >= JOB_FILES
                if targets and (full or (large and targets[0].owner != number)):
                    yield Job(targets)
                    targets, size = [], 0
                targets.append(target)
                size += target.segment.size
            if large:
                yield Job(targets)
                targets, size = [], 0
        if targets:
            yield Job(targets)

    def _targets(self, number: int) -> Iterator[Target]:
        console = self._consoles[number]
        try:
            segments = Segments(console.path, console.rotated, self._indexed)
        except PermissionError as error:
            self._denied.append(str(error.filename or console.path))
            return
        except FileNotFoundError:
            return  # It has been removed meanwhile.
        start, end = chosen_range(segments, self._when, None)
        seams = [seam(*pair, self._pattern) for pair in zip(segments.all, segments.all[1:])]
        for at, segment in enumerate(segments.all):
            low = start.byte if at == start.segment else 0
            high = WHOLE if self._when.until is None or at < end.segment else end.byte
            if start.segment <= at <= end.segment and low < min(high, segment.size):
                self.without_index += self._indexed and not segment.index
                yield Target(segment, number, low, high)
            else:
                segment.close()
            line = seams[at] if at < len(seams) else None
            if line is not None and low <= line.begin < high and start.segment <= at <= end.segment:
                yield Target(line, number, 0, WHOLE)

    def complain(self) -> bool:
        """Tell what could not be read; whether there was anything."""
        if self.without_index:
            sys.stderr.write(
                f"vspcctl: {self.without_index} files have no index; their times are not known\n"
            )
        if self._denied:
            more = f" and {len(self._denied) - 1} more" if len(self._denied) > 1 else ""
            sys.stderr.write(f"vspcctl: permission denied on {visible(self._denied[0])}{more}\n")
        return bool(self._denied)


class Shown:
    """Collects what is to be shown, and writes it when it is enough or the search takes its time."""

    def __init__(self, owners: Sequence[Owner]) -> None:
        self.owners = owners
        self.found = False
        self._held: list[bytes] = []
        self._size = 0

    def take(self, job: Job, data: bytes) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self.flush()

    def put(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= WRITTEN:
            self.flush()

    def flush(self) -> None:
        write_all(1, b"".join(self._held))
        self._held, self._size = [], 0


class Blocks(Shown):
    """``name: line``, for a pipe: only the names are put in, so that many findings take no longer than the search."""

    def __init__(self, owners: Sequence[Owner], key: str) -> None:
        super().__init__(owners)
        self._key = key.encode()
        self._job: Optional[Job] = None
        self._owner: Optional[int] = None
        self._names: dict[bytes, bytes] = {}
        self._name = b""
        self._separator = b""  # an empty line that was found, or what stands before the next file

    def take(self, job: Job, data: bytes) -> None:
        self.found = True
        if job is not self._job:
            self._begin(job)
        if self._owner is None:
            self._headed(self._separator + data)
        else:
            self._put(data)
        self.flush()

    def finish(self) -> None:
        self._put(self._separator)
        self.flush()

    def _begin(self, job: Job) -> None:
        self._put(self._separator)
        self._separator = b""
        self._job, self._owner = job, job.owner
        self._names = {b"%d" % target.segment.fd: self._called(target.owner) for target in job.files}
        self._name = self._called(self._owner or 0)

    def _headed(self, data: bytes) -> None:
        """Lines of several owners; before those of each file stands its path."""
        first, *others = data.split(b"/proc" + self._key + b"/self/fd/")
        lines = first
        for other in others:
            self._put(lines[: -len(SEPARATOR)])
            number, _, lines = other.partition(b"\0")
            self._name = self._names[number]
        self._separator = SEPARATOR if lines.endswith(b"\n" + SEPARATOR) or lines == SEPARATOR else b""
        self._put(lines[: len(lines) - len(self._separator)])

    def _put(self, lines: bytes) -> None:
        for piece in pieces(lines):
            self.put(self._name)
            self.put(bare_ends(piece)[:-1].replace(b"\n", b"\n" + self._name))
            self.put(b"\n")

    def _called(self, owner: int) -> bytes:
        return self.owners[owner].shown + b": "


def pieces(data: bytes) -> Iterator[bytes]:
    """The lines in pieces of about PIECE bytes: a processor has them at hand while they are worked on."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + PIECE) + 1 or len(data)
        yield data[at:end]
        at = end


def bare_ends(lines: bytes) -> bytes:
    """The lines with a bare newline at their ends. One character is replaced at a time, if that comes to the same: in
    nearly all logs it does, and takes a quarter of the time."""
    bare = lines.replace(b"\r", b"")
    if len(bare) == len(lines) or bare.replace(b"\n", b"\r\n") == lines:
        return bare
    return lines.replace(b"\r\n", b"\n")


class Lines(Shown):
    """Line by line: with times, context, colours, within a range, as JSON, or for a terminal."""

    def __init__(self, owners: Sequence[Owner], arguments: Namespace, look: Look, context: bool) -> None:
        super().__init__(owners)
        self._look = look
        self._json: bool = arguments.json
        self._context = context
        self._ends: Optional[tuple[int, int]] = None

    def take(self, job: Job, data: bytes) -> None:
        targets = job.by_path()
        for text in data.split(b"\n"):
            path, nul, rest = text.partition(b"\0")
            place = _PLACE.match(rest) if nul else None
            if place is not None:
                self._line(targets[path], int(place[1]), place[2], rest[place.end() :])
        self.flush()

    def _line(self, target: Target, byte: int, mark: bytes, text: bytes) -> None:
        if not target.low <= byte < target.high:
            return
        matches = mark == b":"
        self.found = self.found or matches
        owner = self.owners[target.owner]
        timed = self._json or self._look.timestamps
        moment = target.segment.moment(byte) if timed else None
        if self._json:
            self.put(as_json(text, moment, owner, not matches))
            return
        if self._context and self._ends not in (None, (target.segment.fd, byte)):
            self.put(GAP)
        self._ends = (target.segment.fd, byte + len(text) + 1)
        look = self._look if matches else self._look._replace(matches=None)
        self.put(rendered(text, look, moment, owner, mark))


class Counts(Shown):
    """Per console the number of lines, or only its name."""

    def __init__(self, owners: Sequence[Owner], names_only: bool, by_line: bool) -> None:
        super().__init__(owners)
        self._names_only, self._by_line = names_only, by_line
        self._owner, self._count = -1, 0

    def take(self, job: Job, data: bytes) -> None:
        targets = job.by_path()
        for text in data.split(b"\n"):
            path, nul, rest = text.partition(b"\0")
            if not nul:
                continue
            target = targets[path]
            if target.owner != self._owner:
                self._told()
                self._owner = target.owner
            self._count += self._counted(target, rest)

    def _counted(self, target: Target, rest: bytes) -> int:
        if not self._by_line:
            return int(rest)
        place = _PLACE.match(rest)
        return int(place is not None and target.low <= int(place[1]) < target.high)

    def _told(self) -> None:
        if self._count:
            self.found = True
            count = b"" if self._names_only else b": %d" % self._count
            self.put(self.owners[self._owner].shown + count + b"\n")
            self.flush()
        self._count = 0

    def finish(self) -> None:
        self._told()
        self.flush()


def run(arguments: Namespace) -> int:
    pattern = compiled(arguments.pattern, arguments.ignore_case, arguments.fixed_strings)
    both = arguments.context or 0
    before, after = (both if n is None else n for n in (arguments.before, arguments.after))
    consoles = find_logs(arguments, arguments.names)
    files = Files(consoles, pattern, arguments)
    terminal = os.isatty(1) and not arguments.raw
    look = Look(terminal, arguments.timestamps, terminal and colours_wanted(1), pattern)
    owners = named(consoles)
    shown: Shown
    if arguments.count or arguments.names_only:
        shown = Counts(owners, arguments.names_only, by_line=not files.whole)
        most = 1 if arguments.names_only and files.whole else 0
        plan = Plan(pattern, offsets=not files.whole, counted=files.whole, most=most)
    elif files.whole and not (terminal or arguments.timestamps or arguments.json or before or after):
        key = new_key()
        shown, plan = Blocks(owners, key), Plan(pattern, key=key)
    else:
        shown = Lines(owners, arguments, look, bool(before or after))
        plan = Plan(pattern, offsets=True, before=before, after=after)
    return _searched(plan, files, shown)


def _searched(plan: Plan, files: Files, shown: Shown) -> int:
    trouble = False
    try:
        for job, data in search(plan, files.jobs()):
            shown.take(job, data)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Failure as failure:
        sys.stderr.write(f"vspcctl: {failure.message}\n")
        trouble = True
    shown.finish()
    trouble = files.complain() or trouble
    return TROUBLE if trouble else FOUND if shown.found else NOT_FOUND


def named(consoles: Sequence[Logged]) -> list[Owner]:
    """What the consoles are called here: by their names, and where several have one, by their ids too."""
    counts: dict[str, int] = {}
    for console in consoles:
        counts[console.shown] = counts.get(console.shown, 0) + 1
    return [
        Owner(each.id, each.shown if counts[each.shown] == 1 else f"{each.shown} ({each.id})")
        for each in consoles
    ]
