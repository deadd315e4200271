"""The boots of a VM, as far as its log and the index beside it tell of them.

Does: finds where each begins, by the VM's connections and by the first line of a Linux kernel.
Owns: the rules what is a boot.
Never: takes a vMotion, a network that came back, or a restart of vspcd for one.

A VM that is switched on connects; one that is switched off has its connection closed by its host. Neither happens
when a guest reboots by itself. So a boot begins

- where the VM connects and the log is empty;
- where it connects after its host has closed the connection before;
- where it connects from another host without having been moved there: that host has started it anew;
- where a Linux kernel says its first line, unless that belongs to the connection just before, or to a ``dmesg``:
  what a kernel says at second 50 of its life is not said in the second in which its life began.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from vspcd.ctl.segments import Place, Segments

CLOSED = frozenset({"closed by the VM's host", "its TLS connection has ended"})
"""Reasons of a ``disconnected`` that mean a VM which was switched off."""

MOVED = "moved"
"""The outcome of a vMotion that took place. The rules of vMotion would take longer to be imported than to look."""

CONNECTED, KERNEL, BEGINNING = "connected", "kernel", "beginning"
SAME_BOOT = 600.0
"""Seconds from the connection until the kernel's first line, when nothing else says that it is another boot."""

OVERLAP = 512
LOOKED_AT = 1 << 18
"""Bytes behind a kernel's first line that tell whether it is a boot."""
LAST_WORDS_WITHIN = 1 << 16
"""Bytes before a kernel's first line in which the kernel before it may have said that it ends."""
HURRY = 3.0
"""Seconds that a kernel may be ahead of what its lines say: its first ones wait until there is a console."""

_ANCHOR = b"[    0.000000] "
_FIRST_LINE = re.compile(
    rb"(?:\A|[\n\r])(?:\x1b\[[0-9;?]*[A-Za-z])*\[    0\.000000\] (?:\[ *T0\] )?(?:Linux version |Booting Linux on )"
)
_STAMPED = re.compile(rb"^\[ *(\d{1,7})\.\d{6}\] ", re.MULTILINE)
_LAST_WORDS = re.compile(rb"reboot: (?:Restarting system|machine restart|Power down|System halted)[^\n]*\n")


class Boot(NamedTuple):
    """From ``start`` to ``end``. ``known_by``: what tells that it begins there."""

    start: Place
    end: Place
    since: Optional[float]
    until: Optional[float]
    bytes: int
    known_by: tuple[str, ...]


class Mark(NamedTuple):
    place: Place
    moment: Optional[float]
    known_by: tuple[str, ...]


def boots(segments: Segments) -> list[Boot]:
    """All boots in the log, oldest first; the first one may have begun before the log does."""
    marks = _merged(segments, [*_connections(segments), *_kernels(segments)])
    first = Place(0, 0)
    if not marks or _size(segments, first, marks[0].place):
        marks.insert(0, Mark(first, segments.moment(first), (BEGINNING,)))
    ends = [mark.place for mark in marks[1:]] + [segments.end]
    return [_boot(segments, mark, end) for mark, end in zip(marks, ends)]


def numbered(number: int, count: int) -> Optional[int]:
    """Which one of ``count`` a number means: 0 the last, -1 the one before, 1 the first."""
    at = number - 1 if number > 0 else count - 1 + number
    return at if 0 <= at < count else None


def _boot(segments: Segments, mark: Mark, end: Place) -> Boot:
    last = _before(end)
    size = _size(segments, mark.place, end)
    until = segments.moment(last) if size else mark.moment
    return Boot(mark.place, end, mark.moment, until, size, mark.known_by)


def _before(place: Place) -> Place:
    return Place(place.segment, max(place.byte - 1, 0))


def _size(segments: Segments, start: Place, end: Place) -> int:
    sizes = [segment.size for segment in segments.all[start.segment : end.segment]]
    return sum(sizes) - start.byte + end.byte


# Connections.


def _connections(segments: Segments) -> Iterator[Mark]:
    """The connections that a VM makes when it is switched on."""
    host: Optional[str] = None
    closed = False
    for entry, place in segments.events(("connected", "disconnected", "vmotion")):
        facts = entry.details()
        if entry.word == "disconnected":
            closed = str(facts.get("reason")) in CLOSED
        elif entry.word == "vmotion":
            host = (_host(facts.get("to")) if facts.get("outcome") == MOVED else None) or host
        else:
            came_from = _host(facts.get("peer"))
            begun = host is None and not _size(segments, Place(0, 0), place)
            if begun or closed or (host is not None and came_from != host):
                yield Mark(place, entry.moment, (CONNECTED,))
            host, closed = came_from, False


def _host(peer: object) -> Optional[str]:
    return peer.rpartition(":")[0] or peer if isinstance(peer, str) else None


# The guest's own words.


def _kernels(segments: Segments) -> Iterator[Mark]:
    for place in _first_lines(segments):
        moment = segments.moment(place)
        if moment is None or not _is_told_again(segments, place, moment):
            yield Mark(place, moment, (KERNEL,))


def _first_lines(segments: Segments) -> Iterator[Place]:
    """Where kernels say their first line; the line's own beginning."""
    last: Optional[Place] = None
    for number, segment in enumerate(segments.all):
        at, size = 0, segment.size
        while at < size:
            data = segment.read(at, 1 << 20)
            if not data:
                break
            for place in (Place(number, at + found) for found in _found_in(data, at == 0)):
                if last is None or place > last:  # the blocks overlap
                    yield place
                last = place
            at += max(len(data) - OVERLAP, 1) if len(data) > OVERLAP else len(data)


def _found_in(data: bytes, is_beginning: bool) -> Iterable[int]:
    """Offsets of first lines in a block; one in its first bytes was found in the block before."""
    found = []
    anchor = data.find(_ANCHOR)
    while anchor >= 0:
        begin = max(data.rfind(b"\n", 0, anchor), data.rfind(b"\r", 0, anchor), 0 if is_beginning else -1)
        match = _FIRST_LINE.match(data, begin) if begin >= 0 else None
        if match:
            found.append(begin + (data[begin : begin + 1] in (b"\n", b"\r")))
        anchor = data.find(_ANCHOR, anchor + 1)
    return found


def _is_told_again(segments: Segments, place: Place, moment: float) -> bool:
    """Whether this is an old boot's text: lines of later seconds come sooner than their kernel could say them."""
    segment = segments.all[place.segment]
    text = segment.read(place.byte, LOOKED_AT)
    before = 0
    for match in _STAMPED.finditer(text):
        age = int(match[1])
        if age < before:
            break  # The next kernel.
        if age > before:
            before = age
            came = segment.moment(place.byte + match.start())
            if came is not None and age - (came - moment) > max(HURRY, age / 2):
                return True
    return False


def _merged(segments: Segments, marks: list[Mark]) -> list[Mark]:
    """The marks in order; a kernel that speaks soon after the VM has connected is the same boot."""
    merged: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.place):
        last = merged[-1] if merged else None
        if last is not None and _is_same(last, mark):
            merged[-1] = last._replace(known_by=(*last.known_by, KERNEL))
        elif mark.known_by == (KERNEL,):
            merged.append(_with_its_loader(segments, mark, last.place if last else Place(0, 0)))
        else:
            merged.append(mark)
    return merged


def _with_its_loader(segments: Segments, mark: Mark, not_before: Place) -> Mark:
    """From behind the last words of the kernel before: what firmware and boot loader say belongs to the boot."""
    place = mark.place
    begin = max(
        place.byte - LAST_WORDS_WITHIN, not_before.byte if not_before.segment == place.segment else 0, 0
    )
    text = segments.all[place.segment].read(begin, place.byte - begin)
    ends = [match.end() for match in _LAST_WORDS.finditer(text)]
    if not ends:
        return mark
    start = Place(place.segment, begin + ends[-1])
    return mark._replace(place=start, moment=segments.moment(start))


def _is_same(last: Mark, mark: Mark) -> bool:
    soon = last.moment is None or mark.moment is None or mark.moment - last.moment < SAME_BOOT
    return last.known_by == (CONNECTED,) and mark.known_by == (KERNEL,) and soon
