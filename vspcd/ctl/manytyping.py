"""Types the same bytes on many consoles at once.

Does: gets on each console, hands the bytes over as fast as each VM takes them, waits until all have been taken.
Owns: the connections to the consoles; the signal handler for Ctrl-C while it runs.
Never: waits for one console alone; prints.
"""

from __future__ import annotations

import resource
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from vspcd.core.names import visible
from vspcd.ctl.client import Client
from vspcd.ctl.dialogue import hindrance, request_for
from vspcd.ctl.failure import NO_DAEMON, Failure
from vspcd.ctl.link import Link
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

AT_ONCE = 500
SPARE = 32  # descriptors that the rest of the program may need
PIECE = 4096  # bytes that are handed over at once
SOON, LATER = 0.005, 0.1
"""Seconds between two looks whether the VMs have taken it: so few at first, so many when nothing happens."""

NOT_BEGUN = "not typed: interrupted"
Outcome = tuple[int, Optional[str]]
"""The console's number, and what went wrong."""


class ManyTyping:
    """``seconds`` is what each VM has to take the bytes."""

    def __init__(self, path: str, data: bytes, seconds: float) -> None:
        self.interrupted = False
        self._path = path
        self._data = data
        self._seconds = seconds
        self._asking = False
        self._lost: Optional[str] = None  # why the daemon cannot be asked any more
        self._client: Optional[Client] = None

    def run(self, consoles: Sequence[str]) -> Iterator[Outcome]:
        """What became of each, in no order. Ctrl-C ends it with the truth about all of them."""
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:  # as a shell's background jobs have it
            signal.signal(signal.SIGINT, self._interrupt)
        busy: dict[int, _Typing] = {}
        try:
            yield from self._run(list(enumerate(consoles)), busy)
        finally:
            signal.signal(signal.SIGINT, before)
            self._leave()
            for each in busy.values():
                each.close()

    def _interrupt(self, *_: object) -> None:
        again, self.interrupted = self.interrupted, True
        if self._asking or again:
            raise KeyboardInterrupt

    def _run(self, todo: list[tuple[int, str]], busy: dict[int, _Typing]) -> Iterator[Outcome]:
        todo.reverse()
        room = max(1, min(AT_ONCE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE))
        pause = SOON
        while (todo or busy) and not self.interrupted:
            beginning = bool(todo) and len(busy) < room
            if beginning:
                number, console = todo.pop()
                begun = self._begun(console)
                if isinstance(begun, _Typing):
                    busy[number] = begun
                else:
                    yield number, begun
            over = self._turn(busy, 0.0 if beginning else pause)
            pause = SOON if over or beginning else min(2 * pause, LATER)
            yield from over
        if busy:
            yield from self._turn(busy, LATER)  # A last look: most VMs have taken it by now.
        for number in tuple(busy):
            yield number, busy.pop(number).given_up()
        for number, _ in reversed(todo):
            yield number, NOT_BEGUN

    def _begun(self, console: str) -> Union[_Typing, str]:
        """The typing on one console, or what is in its way."""
        if self._lost is not None:
            return f"not typed: {self._lost}"
        self._asking = True
        try:
            answer, worker = self._connected().ask_for_descriptor(request_for(console))
        except Failure as failure:
            self._leave()
            if failure.exit_code == NO_DAEMON:
                self._lost = failure.message
            return failure.message
        except KeyboardInterrupt:
            return NOT_BEGUN
        finally:
            self._asking = False
        link = Link(worker)
        wrong = hindrance(answer)
        if wrong is not None:
            link.close()
            return wrong
        return _Typing(link, self._data, self._seconds)

    def _connected(self) -> Client:
        """One connection does for all consoles."""
        if self._client is None:
            client = Client(self._path)
            client.__enter__()
            self._client = client
        return self._client

    def _leave(self) -> None:
        if self._client is not None:
            self._client.__exit__()
            self._client = None

    @staticmethod
    def _turn(busy: dict[int, _Typing], pause: float) -> list[Outcome]:
        """Serve those that are ready; the outcomes of those that are over."""
        poll = select.poll()
        for each in busy.values():
            poll.register(each.link.fileno(), each.events())
        ready = dict(poll.poll(pause * 1000))
        over: list[Outcome] = []
        for number, each in tuple(busy.items()):
            each.serve(ready.get(each.link.fileno(), 0))
            if each.over:
                over.append((number, each.wrong))
                busy.pop(number).close()
        return over


class _Typing:
    """One console's part."""

    def __init__(self, link: Link, data: bytes, seconds: float) -> None:
        self.link = link
        self.over = False
        self.wrong: Optional[str] = None
        self._data = data
        self._at = 0
        self._handed = 0
        self._end = time.monotonic() + seconds
        self._hand_over()

    def events(self) -> int:
        return select.POLLIN | (select.POLLOUT if self.link.waiting else 0)

    def serve(self, events: int) -> None:
        """Go on; ``over`` tells when it is done."""
        if events & ~select.POLLOUT:
            self._read()
        if events & select.POLLOUT:
            self._hand_over()
        if not self.over and self._handed_over and self.link.untaken == 0:
            self._read()  # The end of a console's process lets go of what it has not taken.
            self._close_with(None)
        if not self.over and time.monotonic() > self._end:
            self._close_with(f"the VM has not taken what was typed in time ({self._how_much()})")

    @property
    def _handed_over(self) -> bool:
        return self._at == len(self._data) and not self.link.waiting

    def _hand_over(self) -> None:
        while True:
            if not self.link.waiting:
                piece = self._data[self._at : self._at + PIECE]
                if not piece:
                    return
                self.link.type(piece)
                self._at += len(piece)
            if not self.link.write():
                return
            self._handed = self._at

    def _read(self) -> None:
        """Of what the VM says, only the end of the session and of the right to type matter."""
        try:
            frames = self.link.read()
        except PeerError as error:
            self._close_with(f"the daemon was not understood: {error}")
            return
        if frames is None:
            self._close_with("lost while typing: look what has arrived before you try again")
            return
        for frame in frames:
            text = visible(frame.payload.decode("utf-8", "replace")) if frame.type != attach.DATA else ""
            if frame.type == attach.BYE:
                self._close_with(f"the daemon has ended the session: {text}")
            elif frame.type == attach.MODE and frame.payload != b"rw":
                self._close_with("is locked by somebody else now")

    def _close_with(self, wrong: Optional[str]) -> None:
        if not self.over:
            self.over, self.wrong = True, wrong

    def given_up(self) -> Optional[str]:
        """What is to be said when it must end now; None when the VM has taken all."""
        self.serve(0)
        if self.over:
            self.close()
            return self.wrong
        said = f"interrupted before the VM had taken it ({self._how_much()})"
        self.close()
        return said

    def _how_much(self) -> str:
        return f"{self._handed} of {len(self._data)} bytes handed over; they may still arrive"

    def close(self) -> None:
        self.link.close()
