"""The event loop: epoll, timers and signals, and nothing of the application.

Does: calls a handler when its file descriptor is ready, calls timers when they are due, turns signals into
calls.
Owns: one epoll instance, the timer heap, the signal wake-up pair.
Never: reads or writes anybody's data; wakes up when there is nothing to do.

Handlers watched with ``last=True`` run after all others of the same turn, so connections that exist are
served before new ones are accepted. An event is delivered only to the handler that was registered when epoll
reported it: a number that was closed and reused within the turn gets nothing that was not meant for it.
"""

from __future__ import annotations

import heapq
import select
import signal
import socket
import time
from itertools import count
from types import FrameType
from typing import Callable, Optional

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
PEER_CLOSED = select.EPOLLRDHUP

Handler = Callable[[int], None]
"""Called with the ready events, a mask of READ, WRITE, HANGUP and PEER_CLOSED."""

MAX_EVENTS = 512


class Timer:
    """A call that is due at a time of the monotonic clock; ``cancel`` makes it nothing."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Optional[Callable[[], None]] = call

    def cancel(self) -> None:
        """Never call it. Harmless when it was called already."""
        self.call = None


class Watch:
    """One registered file descriptor; identity tells a reused number from the old one."""

    __slots__ = ("events", "handler", "last")

    def __init__(self, events: int, handler: Handler, last: bool) -> None:
        self.events = events
        self.handler = handler
        self.last = last


class Loop:
    """A level-triggered epoll loop for one process."""

    _epoll: select.epoll

    def __init__(self, opened: bool = True) -> None:
        self._watches: dict[int, Watch] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = count()
        self._running = False
        self._signals: dict[int, Callable[[], None]] = {}
        self._arrived: set[int] = set()
        # Kept, so that a child that puts back a signal's default has nothing to take apart.
        self._arrives = self._came
        self._wakeup: Optional[tuple[socket.socket, socket.socket]] = None
        if opened:
            self.open()

    def open(self) -> None:
        """Take an epoll instance of its own. One that is made before a fork does so after it."""
        self._epoll = select.epoll()

    def watch(self, fd: int, events: int, handler: Handler, *, last: bool = False) -> None:
        """Call ``handler`` whenever one of ``events`` holds on ``fd`` (hang-ups are always reported)."""
        self._epoll.register(fd, events)
        self._watches[fd] = Watch(events, handler, last)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on ``fd``; costs nothing when they are the same."""
        watch = self._watches[fd]
        if watch.events != events:
            self._epoll.modify(fd, events)
            watch.events = events

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer. Call it before the descriptor is closed; unknown ones are ignored."""
        if self._watches.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether ``fd`` is registered."""
        return fd in self._watches

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.due, next(self._sequence), timer))
        return timer

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call from the loop, never from within other code, when the signal has arrived."""
        if self._wakeup is None:
            reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            self._wakeup = (reader, writer)
            signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self.watch(reader.fileno(), READ, self._signalled)
        self._signals[number] = call
        signal.signal(number, self._arrives)

    def _came(self, number: int, _frame: Optional[FrameType]) -> None:
        self._arrived.add(number)

    def _signalled(self, _events: int) -> None:
        # The pair only wakes the loop: in a storm it is full, and the set still knows every signal.
        assert self._wakeup is not None
        self._wakeup[0].recv(4096)
        arrived, self._arrived = self._arrived, set()
        for number in sorted(arrived):
            self._signals[number]()

    def stop(self) -> None:
        """Return from ``run`` at the end of this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until ``stop``."""
        self._running = True
        while self._running:
            self.turn()

    def turn(self) -> None:
        """Wait for one batch of events or the next timer, and serve it."""
        events = self._epoll.poll(self._timeout(), MAX_EVENTS)
        late: list[tuple[int, Watch, int]] = []
        batch = [(fd, self._watches[fd], mask) for fd, mask in events if fd in self._watches]
        for fd, watch, mask in batch:
            if watch.last:
                late.append((fd, watch, mask))
            elif self._watches.get(fd) is watch:
                watch.handler(mask)
        if self._timers:
            self._run_timers()
        for fd, watch, mask in late:
            if self._watches.get(fd) is watch:
                watch.handler(mask)

    def _timeout(self) -> Optional[float]:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()

    def close(self) -> None:
        """Release the epoll instance and the signal pair. The watched descriptors stay open."""
        self._epoll.close()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for end in self._wakeup:
                end.close()
