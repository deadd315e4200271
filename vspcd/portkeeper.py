"""The master's side of the port map: changes go to the keeper in batches, and are acknowledged when durable.

Does: loads the map at start, collects changes, sends them, calls back when they are kept.
Owns: the keeper's life and what it has not acknowledged yet.
Never: touches a disk; waits. A keeper that dies is replaced and told everything again that it had not
acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional

from vspcd.portmap.base import Backend, Entry
from vspcd.proto import control
from vspcd.proto.control import Message, packed
from vspcd.proto.errors import PeerError
from vspcd.spawn import Nursery
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop

COLLECT_FOR = 0.005
RESTART_AFTER = 1.0
RETRY_AFTER = 5.0
AHEAD = 256
"""Batches that may be on their way; while a disk stalls, the others wait here: a channel takes only so much."""

Change = dict[str, Any]


class PortKeeper:
    """``on_loaded(entries)`` is called once, before anything is acknowledged. ``required``: nothing goes without it."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        nursery: Nursery,
        open_map: Callable[[], Backend],
        on_loaded: Callable[[Sequence[Entry]], None],
        required: bool = True,
    ) -> None:
        self._loop = loop
        self._log = log
        self._nursery = nursery
        self._open_map = open_map
        self._on_loaded: Optional[Callable[[Sequence[Entry]], None]] = on_loaded
        self._required = required
        self._entries: list[Entry] = []
        self._new: dict[str, Change] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._batches: dict[int, tuple[list[Change], list[Callable[[], None]]]] = {}
        self._number = 0
        self._sent = 0  # the last batch that this keeper was told
        self._timer_set = False
        self._failing = False
        self._stopping = False
        self.pid = 0
        self.pinged = 0.0  # when it was asked for a sign of life; 0 when it owes none
        self.channel: Optional[Channel] = None
        self.others: dict[str, Callable[[Message], None]] = {}  # what it says about other things than the map
        self.began: Callable[[], None] = lambda: None  # another keeper is there
        # The log of this page's console has something to tell of.
        self.in_doubt: Callable[[int], None] = lambda _page: None
        self._start()

    def _start(self) -> None:
        try:
            self.pid, sock = self._nursery.keeper(self._open_map)
        except OSError as error:
            self._log.error("no-keeper", reason=str(error), again_in=RESTART_AFTER)
            self._loop.call_later(RESTART_AFTER, self._start)
            return
        self.pinged = 0.0
        self.channel = Channel(sock)
        self.channel.serve(self._loop, self._received, self._closed)
        if self._on_loaded is not None:
            self.tell({"type": "load"})
        self._send_all()
        self.began()

    def tell(self, message: Message) -> bool:
        """Have the keeper do something else; whether it has been told."""
        if self.channel is None:
            return False
        try:
            self.channel.send(message)
        except ChannelClosed as error:
            # What this one was not told, it must not be told later: the next one is told all, in order.
            self._log.error("keeper-given-up", pid=self.pid, reason=str(error))
            self._closed()
            return False
        return True

    def put(self, entry: Entry, kept: Optional[Callable[[], None]] = None) -> None:
        """Remember the console; ``kept`` is called when that is durable."""
        self._change(entry.console, {"put": vars(entry)}, kept)

    def forget(self, console: str, kept: Optional[Callable[[], None]] = None) -> None:
        """Forget the console."""
        self._change(console, {"forget": console}, kept)

    def _change(self, console: str, change: Change, kept: Optional[Callable[[], None]]) -> None:
        # Only the last word about a console counts; in its place, so that ports can be handed on in order.
        self._new.pop(console, None)
        self._new[console] = change
        if kept is not None:
            self._callbacks.append(kept)
        if not self._timer_set:
            self._timer_set = True
            self._loop.call_later(COLLECT_FOR, self.flush)

    def flush(self) -> None:
        """Send what has been collected."""
        self._timer_set = False
        if self._failing:
            return  # what has been collected goes out behind what the disk refused
        callbacks, self._callbacks = self._callbacks, []
        changes, self._new = self._new, {}
        for batch in packed(changes.values()):
            self._number += 1
            self._batches[self._number] = (batch, [])
        if changes:
            self._batches[self._number][1].extend(callbacks)
        self._send()

    @property
    def settled(self) -> bool:
        """Whether every change is durable."""
        return not self._new and not self._batches

    def _send(self) -> None:
        """Tell the keeper as much as may be on its way; at the end, all."""
        if self._failing or not self._batches:
            return
        last = self._number if self._stopping else min(self._number, next(iter(self._batches)) + AHEAD)
        while self._sent < last and self.channel is not None:
            self._sent += 1
            if self._sent in self._batches:
                changes = self._batches[self._sent][0]
                self.tell({"type": "changes", "number": self._sent, "changes": changes})

    def _send_all(self) -> None:
        """Tell again, in order, what has not been acknowledged."""
        self._failing = False
        self._sent = 0
        self.flush()

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.KEEPER, control.OWNER, len(fds))
        if kind == "entries":
            self._entries += [Entry(**entry) for entry in message["entries"]]
        elif kind == "loaded":
            self._loaded(message["notes"])
        elif kind == "kept":
            for callback in self._batches.pop(message["number"], ([], []))[1]:
                callback()
            self._send()
        elif kind == "pong":
            self.pinged = 0.0
        elif kind in self.others:
            self.others[kind](message)
        elif kind == "in-doubt":
            self.in_doubt(message["page"])
        elif kind == "not-synced":
            facts = {key: message[key] for key in ("console", "bytes", "reason")}
            self._log.error("log-not-synced", **facts)
        else:
            self._failed(message["reason"])

    def _failed(self, reason: str) -> None:
        """The disk refuses. Later changes wait behind this one, so that the last word stays the last."""
        if not self._failing:
            self._failing = True
            self._log.error("port-map-not-written", reason=reason, again_in=RETRY_AFTER)
            self._loop.call_later(RETRY_AFTER, self._send_all)

    def _loaded(self, notes: Sequence[str]) -> None:
        for note in notes:
            self._log.warning("port-map", note=note)
        on_loaded, self._on_loaded = self._on_loaded, None
        if on_loaded is not None:
            entries, self._entries = self._entries, []
            on_loaded(entries)

    def _closed(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if not self._stopping and self.pid:
            process.kill(self.pid)

    def died(self, how: str) -> bool:
        """The keeper has died. False: before the map was loaded, so that the daemon cannot start."""
        self.pid = 0
        if self._stopping:
            return True
        self._entries = []
        if self._on_loaded is not None and self._required:
            return False
        self._log.error("keeper-died", how=how)
        self._loop.call_later(RESTART_AFTER, self._start)
        return True

    def stop(self) -> None:
        """Send the last changes and let the keeper end."""
        self._stopping = True
        if self._failing:
            self._send_all()
        self.flush()
        if self.channel is not None:
            try:
                self.channel.flush()
            except (ChannelClosed, PeerError):
                pass
            self.channel.close()
            self.channel = None
