"""The watcher: it looks into the logs of the consoles for what triggers wait for.

Does: hears from the kernel which logs have grown, reads what is new, tells the master what has matched, at
the rates of the triggers; leaves out for a while a pattern that takes too long.
Owns: how far it has read; what waits to be told.
Never: speaks to a console's worker or delays one; decides what is done about a match.

The master loads nothing of this: what it needs is imported when the process begins.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional

from vspcd.core.automation import Trigger
from vspcd.core.gathering import Gathering, next_due
from vspcd.core.patterns import matches
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import PeerError
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.inotify import OVERFLOW, Inotify
from vspcd.unix.logline import Log
from vspcd.unix.loop import READ, Loop, Timer
from workers.following import SUFFIX, Following
from workers.matching import LIMIT, Lines, TooSlow, found, prepare, shown

COLLECT_FOR = 0.1
TURN = 0.05  # seconds of work before the master is listened to
SAVE_EVERY = 1.0
FOLDER_AGAIN = 1.0
SUSPENDED_FOR = 600.0
TOLD = 20  # matches that a message names; the others are counted
_CONSOLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.[A-Za-z0-9_-]{1,32})?")


class Named(NamedTuple):
    """A console as patterns see it."""

    id: str
    name: Optional[str]

    @property
    def uuid(self) -> str:
        """Without dashes."""
        return self.id.partition(".")[0].replace("-", "")

    @property
    def label(self) -> str:
        """Of its port."""
        return self.id.partition(".")[2]


class Watched(NamedTuple):
    """A trigger at work."""

    trigger: Trigger
    pattern: re.Pattern[bytes]
    gathering: Gathering


class Watcher:
    """The process's one object."""

    def __init__(self, loop: Loop, sock: socket.socket, settings: dict[str, Any]) -> None:
        self._loop = loop
        self._channel = Channel(sock)
        self._log = Log(settings["log_level"])
        self._folder = -1
        self._path = settings["log_dir"]
        self._following = Following(-1, settings["places"])
        self._watched: dict[str, Watched] = {}
        self._suspended: dict[str, float] = {}  # until when a trigger is left out; monotonic
        self._names: dict[str, Named] = {}
        self._chosen: dict[str, list[Watched]] = {}
        self._lines: dict[str, Lines] = {}
        self._dirty: dict[str, None] = {}
        self._kernel: Optional[Inotify] = None
        self._timer_set = self._save_set = False
        self._due: Optional[Timer] = None
        self._answers: dict[str, Callable[[Message], None]] = {
            "settings": self._set,
            "names": self._name,
            "ping": lambda _message: self._tell("pong"),
            "quit": lambda _message: self._leave(False),
        }
        self._set({"settings": settings})
        prepare()
        self._open(settings["resume"])
        self._channel.serve(loop, self._received, lambda: self._leave(True))

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        if kind not in self._answers:
            raise PeerError(f"{kind} is nothing for the watcher")
        self._answers[kind](message)

    def _set(self, message: Message) -> None:
        """Triggers that stay as they were keep what they know of consoles."""
        settings = message["settings"]
        self._log.level = settings["log_level"]
        before, self._watched = self._watched, {}
        for words in settings["triggers"]:
            name, pattern, consoles, every, gather = words
            trigger = Trigger(name, pattern, tuple(consoles), every, gather, None)
            known = before.get(trigger.name)
            if known is None or known.trigger != trigger:
                known = Watched(trigger, re.compile(trigger.pattern.encode()), Gathering(trigger))
                self._suspended.pop(trigger.name, None)
            self._watched[trigger.name] = known
        self._chosen.clear()

    def _name(self, message: Message) -> None:
        """These consoles are called so. What they have said before that waits for it."""
        for console, name in message["names"]:
            self._names[console] = Named(console, name)
            self._chosen.pop(console, None)
            self._dirty[console] = None
        self._later(COLLECT_FOR)

    def _triggers_of(self, console: str) -> list[Watched]:
        if console not in self._chosen:
            named = self._names[console]
            wanted = (each for each in self._watched.values() if matches(each.trigger.consoles, named))
            self._chosen[console] = list(wanted)
        return self._chosen[console]

    # Which logs have grown.

    def _open(self, resume: bool) -> None:
        """Watch the folder, or try again before long; then anything may have changed."""
        try:
            self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._kernel = Inotify()
            self._kernel.add(self._path)
        except OSError as error:
            self._log.error("triggers-blind", folder=self._path, reason=error.strerror, again_in=FOLDER_AGAIN)
            self._close()
            self._loop.call_later(FOLDER_AGAIN, lambda: self._open(True))
            return
        known, self._following.folder = self._following, self._folder
        if not known.places and not (resume and known.resume()):
            known.begin()
        if known.strange:
            self._log.error("trigger-places-unknown", reason=known.strange)
            known.strange = ""
        self._save_later()
        self._loop.watch(self._kernel.fd, READ, lambda _events: self._grown())
        self._all_dirty()

    def _close(self) -> None:
        if self._kernel is not None:
            self._loop.forget(self._kernel.fd)
            self._kernel.close()
            self._kernel = None
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _all_dirty(self) -> None:
        self._mark(self._following.consoles())

    def _mark(self, consoles: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(each for each in consoles if _CONSOLE.fullmatch(each)))
        self._later(COLLECT_FOR)

    def _grown(self) -> None:
        """What the kernel has to tell is collected for a moment: a chatty console is then looked at once."""
        assert self._kernel is not None
        names = set()
        for event in self._kernel.read():
            if event.lost:
                self._close()
                self._open(True)
                return
            if event.mask & OVERFLOW:
                self._all_dirty()
            elif event.name.endswith(SUFFIX):
                names.add(event.name[: -len(SUFFIX)])
        self._mark(names)
        if self._kernel is not None:
            self._loop.forget(self._kernel.fd)

    def _later(self, seconds: float) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._loop.call_later(seconds, self._work)

    # What they say.

    def _work(self) -> None:
        """Look at the logs that have grown, some at a time."""
        self._timer_set = False
        end = time.monotonic() + TURN
        waiting = [console for console in self._dirty if console in self._names]
        for console in waiting:
            del self._dirty[console]
            if self._look(console):
                self._dirty[console] = None  # behind the others
            if time.monotonic() > end:
                break
        self._tell_due()
        self._save_later()
        if any(console in self._names for console in self._dirty):
            self._later(0.001)
        elif self._kernel is not None and not self._loop.watches(self._kernel.fd):
            self._loop.watch(self._kernel.fd, READ, lambda _events: self._grown())

    def _look(self, console: str) -> bool:
        """Whether there is more to look at."""
        triggers = self._triggers_of(console)
        if not triggers:
            self._following.pass_over(console)
            self._lines.pop(console, None)
            return False
        piece = self._following.read(console)
        if piece is None:
            return False
        if piece.skipped:
            self._log.warning("triggers-behind", console=console, skipped=piece.skipped)
            self._lines.pop(console, None)
        lines = self._lines.setdefault(console, Lines())
        whole, rest = lines.feed(piece.data)
        for watched in triggers:
            if self._suspended.get(watched.trigger.name, 0.0) <= time.monotonic():
                self._match(console, watched, lines, whole, rest)
        return piece.more

    def _match(self, console: str, watched: Watched, lines: Lines, whole: list[bytes], rest: bytes) -> None:
        name, now = watched.trigger.name, time.monotonic()
        try:
            numbers = found(watched.pattern, [*whole, rest])
        except TooSlow:
            self._suspended[name] = now + SUSPENDED_FOR
            self._log.error(
                "trigger-too-slow",
                trigger=name,
                pattern=watched.trigger.pattern,
                console=console,
                seconds=LIMIT,
                suspended_for=SUSPENDED_FOR,
            )
            return
        for number in numbers:
            if number or name not in lines.seen:  # a line is told once, as a beginning or as a whole
                text = shown(rest if number == len(whole) else whole[number])
                watched.gathering.matched(console, text, now)
        if len(whole) in numbers:
            lines.seen.add(name)
        elif whole:
            lines.seen.discard(name)

    # What is told.

    def _tell_due(self) -> None:
        now = time.monotonic()
        for watched in self._watched.values():
            taken = watched.gathering.take(now)
            if taken:
                matched = [match._asdict() for match in taken[:TOLD]]
                self._tell("triggered", trigger=watched.trigger.name, matches=matched, consoles=len(taken))
        due = next_due(each.gathering for each in self._watched.values())
        if due is not None and (self._due is None or self._due.call is None or self._due.due > due):
            self._due = self._loop.call_later(max(0.0, due - now), self._tell_due)

    def _tell(self, word: str, **fields: Any) -> None:
        try:
            self._channel.send({"type": word, **fields})
        except ChannelClosed:
            pass  # the master is gone

    def _save_later(self) -> None:
        if not self._save_set:
            self._save_set = True
            self._loop.call_later(SAVE_EVERY, self._save)

    def _save(self) -> None:
        self._save_set = False
        try:
            self._following.save()
        except OSError as error:
            self._log.error("trigger-places-not-saved", reason=error.strerror)

    def _leave(self, another: bool) -> None:
        """The master is gone or wants this no more. ``another`` watcher may go on."""
        self._channel.close()
        if another:
            self._save()
        else:
            self._following.forget_all()
        self._loop.stop()


def main(sock: socket.socket, settings: Mapping[str, Any]) -> None:
    """The life of the watcher."""
    os.nice(5)
    loop = Loop()
    Watcher(loop, sock, dict(settings))
    loop.run()
