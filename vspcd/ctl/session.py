"""One attached session: the loop between the user's side, the worker and the signals.

Does: moves bytes both ways through bounded buffers, serves what goes along with the session, ends with an exit code.
Owns: the link to the worker, the signal handlers and the raw terminal between enter and exit.
Never: blocks on anything but its one poll, or, when the user asks the daemon something, for QUERY_DEADLINE; lets a
signal cut it short without the terminal being restored.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl.companion import Companion
from vspcd.ctl.display import Display, Question
from vspcd.ctl.escape import Action, Answer, EscapeKeys, escape_name
from vspcd.ctl.failure import FAILED, NO_DAEMON, OK, SIGNALLED
from vspcd.ctl.link import INPUT_LIMIT, Link
from vspcd.ctl.menu import Menu
from vspcd.ctl.terminal import RawTerminal, columns
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

READ_SIZE = 32768
QUERY_DEADLINE = 2.0
QUESTION_PATIENCE = 60.0
"""Seconds without a key after which a question is given up: the console's output waits for its end."""
HINT_AFTER = 0.5
"""Seconds after the escape key alone until it is said what can follow it."""
KEPT = 1 << 16
"""Bytes of the output that are kept, to be shown again when the daemon cannot be asked for more."""

DAEMON_ENDS = frozenset({b"vspcd is stopping", b"vspcd has ended"})
"""The reasons of a BYE that mean the daemon, not this session alone."""

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
HANDLED = (*ENDING, signal.SIGTSTP, signal.SIGCONT)


class Settings(NamedTuple):
    name: str
    id: str
    socket: str
    read_only: bool
    escape: Optional[bytes]
    linger: float
    client: int
    """The session's number for the daemon."""


class Session:
    """A context: inside it the terminal is raw and the signals are ours."""

    def __init__(self, worker: int, settings: Settings) -> None:
        """Takes ownership of the descriptor ``worker``."""
        self.settings = settings
        self.link = Link(worker)
        self.companions: list[Companion] = []
        self.read_only = settings.read_only
        self.began = time.monotonic()
        self.received = 0
        self.latest = bytearray()
        """The end of what the console has said."""
        self._keys = EscapeKeys(settings.escape)
        self._menu = Menu(self)
        self._typing = os.isatty(0)
        self._terminal = RawTerminal(0)
        self._display = Display(self._typing)
        self._stdin: Optional[int] = 0
        self._quiet_since = self._key_since = self.began
        self._hint_due = False
        self._then: Optional[Callable[[str], object]] = None
        self._warned = False
        self._mode_awaited: Optional[str] = None
        self._ended: Optional[int] = None
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Session:
        self._handlers = {number: signal.signal(number, _ignore) for number in HANDLED}
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        try:
            self._terminal.enter()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.link.hand_over()
            self.dismiss(*self.companions)
            self._display.finish(self._wake)
        finally:
            self._let_go()

    def run(self) -> int:
        """Until the session is over; the exit code."""
        while self._ended is None:
            self._turn()
        return self._ended

    def _let_go(self) -> None:
        self._terminal.leave()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.link.close()
        self._display.close()
        os.close(self._wake)
        os.close(self._woken)

    # What the menu and the companions may do.

    @property
    def escape(self) -> str:
        """The escape key as people write it."""
        return "" if self.settings.escape is None else escape_name(self.settings.escape)

    def notice(self, text: str) -> None:
        self._display.notice(text)

    def say(self, text: str) -> None:
        """A notice of ours, in which nothing can be that a terminal might obey."""
        told, width = f"[vspcctl: {visible(text)}]", columns(1)
        if width is not None and len(told) > width:
            import textwrap

            # The terminal itself breaks what is too long for a line, so that it can be copied as a whole.
            lines = textwrap.wrap(told, width, break_long_words=False, break_on_hyphens=False)
            told = "\r\n".join(lines)
        self.notice(told)

    def ask(self, question: Question, then: Callable[[str], object]) -> None:
        """Ask the user; ``then`` is called with the answer, and not at all when he cancels."""
        self._keys.ask()
        self._key_since = time.monotonic()
        self._then = then
        self._display.ask(question)

    def type(self, data: bytes) -> bool:
        """Send this to the VM, if this session may; whether it was."""
        if self.read_only:
            self._warn("read-only: what you type is not sent")
        elif self._typing and not self.link.has_room(len(data)):
            self._warn("the VM does not take what you type; some of it is dropped")
        else:
            self.link.type(data)
            return True
        return False

    def say_when_changed(self, text: str) -> None:
        """Say this as soon as the worker obeys: what is typed from then on counts."""
        self._mode_awaited = text

    def end(self, exit_code: int, notice: Optional[str] = None) -> None:
        if self._ended is None:
            self._ended = exit_code
            if notice is not None:
                self._display.last_notice(f"[vspcctl: {notice}]")

    def dismiss(self, *companions: Companion) -> None:
        """These go along no longer."""
        for companion in companions:
            companion.end()
            if companion in self.companions:
                self.companions.remove(companion)

    def change(self, worker: int, settings: Settings) -> None:
        """Go on with another console. Takes ownership of the descriptor."""
        self.dismiss(*self.companions)
        self.link.hand_over()
        self.link.close()
        self.link, self.settings, self.read_only = Link(worker), settings, settings.read_only
        self.latest.clear()
        self.received, self.began, self._warned = 0, time.monotonic(), False
        self._display.start_over()

    def suspend(self) -> None:
        self._terminal.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _ignore)
        self._go_on()
        if self._keys.line is None:
            self.say(f"back on {self.settings.name}")
        self._show_line()

    # The loop

    def _turn(self) -> None:
        poll = select.poll()
        for fd, events in self._interests().items():
            poll.register(fd, events)
        ready = dict(poll.poll(self._patience()))
        reactions: tuple[tuple[Optional[int], Callable[[int], None]], ...] = (
            (self._wake, self._take_signals),
            (self.link.fileno(), self._serve_worker),
            (self._stdin, self._read_stdin),
            (self._display.fd, self._serve_display),
        )
        for source, react in reactions:
            if source in ready and self._ended is None:
                react(ready[source])
        for companion in tuple(self.companions):
            companion.serve(ready)
        self._keep_time()
        self._display.place_notices()
        self._leave_when_quiet()

    def _interests(self) -> dict[int, int]:
        worker = 0 if self._display.full else select.POLLIN
        wanted = {
            self._wake: select.POLLIN,
            self.link.fileno(): worker | (select.POLLOUT if self.link.waiting else 0),
            self._display.fd: 0 if self._display.empty else select.POLLOUT,
        }
        if self._stdin is not None and (self._typing or self.link.waiting < INPUT_LIMIT):
            wanted[self._stdin] = select.POLLIN
        for companion in self.companions:
            wanted.update(companion.interests())
        return wanted

    def _patience(self) -> Optional[float]:
        """Milliseconds until something is due; None for ever, when only somebody's act can come next."""
        now = time.monotonic()
        due = min([self._display.overdue(), *(companion.due() for companion in self.companions)])
        if self._stdin is None:
            due = min(due, self._quiet_since + self.settings.linger - now)
        if self._then is not None:
            due = min(due, self._key_since + QUESTION_PATIENCE - now)
        if self._hint_due:
            due = min(due, self._key_since + HINT_AFTER - now)
        return None if due == float("inf") else max(due, 0) * 1000 + 1

    def _keep_time(self) -> None:
        """Help who hesitates, and go on without an answer that does not come."""
        waited = time.monotonic() - self._key_since
        if self._hint_due and waited >= HINT_AFTER:
            self._hint_due = False
            self._menu.hint()
        if self._then is not None and waited >= QUESTION_PATIENCE:
            self._keys.give_up()
            self._answered(Answer(None))
            self.say(f"no answer within {QUESTION_PATIENCE:g} s; nothing was done")

    def _leave_when_quiet(self) -> None:
        quiet = time.monotonic() - self._quiet_since >= self.settings.linger
        idle = not self.link.waiting and self._display.empty and not any(c.busy for c in self.companions)
        if self._stdin is None and quiet and idle:
            self.end(OK)

    # The worker

    def _serve_worker(self, events: int) -> None:
        if events & select.POLLOUT and self.link.write():
            self._quiet_since = time.monotonic()
        if events & ~select.POLLOUT:
            self._read_worker()

    def _read_worker(self) -> None:
        try:
            frames = self.link.read()
        except PeerError as error:
            self.end(FAILED, f"lost {self.settings.name}: the daemon was not understood: {error}")
            return
        if frames is None:
            self._lost()
            return
        self._quiet_since = time.monotonic()
        for frame in frames:
            self._take_frame(frame)

    def _lost(self) -> None:
        """The worker has gone without a word. Whether the daemon has as well, it can tell best."""
        from vspcd.ctl.info import daemon_lives

        if daemon_lives(self.settings.socket, self.settings.id, QUERY_DEADLINE):
            why = "its process has ended; the same command gets back on it"
            self.end(FAILED, f"lost {self.settings.name}: {why}")
        else:
            self.end(NO_DAEMON, f"lost {self.settings.name}: the daemon has ended")

    def _take_frame(self, frame: attach.Frame) -> None:
        if frame.type == attach.DATA:
            self._show(self.link.new(frame))
            return
        if frame.type == attach.MODE:
            self._change_mode(frame.payload != b"rw")
            return
        text = visible(frame.payload.decode("utf-8", "replace"))
        if frame.type == attach.BYE:
            code = NO_DAEMON if frame.payload in DAEMON_ENDS else FAILED
            self.end(code, f"the daemon has ended the session: {text}")
        elif frame.type in TEXTS:
            self.notice(TEXTS[frame.type].format(text))

    def _change_mode(self, read_only: bool) -> None:
        if self._mode_awaited is not None and read_only != self.read_only:
            self.say(self._mode_awaited)
        self.read_only, self._warned, self._mode_awaited = read_only, False, None

    def _show(self, data: bytes) -> None:
        self.received += len(data)
        self.latest += data
        del self.latest[:-KEPT]
        self._display.show(data)
        for companion in tuple(self.companions):
            companion.heard(data)

    # The user's side

    def _serve_display(self, events: int) -> None:
        try:
            self._display.write(events)
        except OSError:
            if self._display.is_terminal:
                self.end(SIGNALLED + signal.SIGHUP)
            else:
                raise

    def _read_stdin(self, _: int) -> None:
        try:
            data = os.read(0, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # The terminal has hung up.
        if data:
            self._take_input(data)
        elif self._typing:
            self.end(SIGNALLED + signal.SIGHUP)
        else:
            self._stdin = None
            self._quiet_since = time.monotonic()
            if self._then is not None:
                self._keys.give_up()
                self._answered(Answer(None))

    def _take_input(self, data: bytes) -> None:
        self._key_since = time.monotonic()
        for piece in self._keys.receive(data):
            if self._ended is not None:
                return
            if isinstance(piece, Action):
                self._menu.act(piece)
            elif isinstance(piece, Answer):
                self._answered(piece)
            elif not any(companion.typed(piece) for companion in tuple(self.companions)):
                self.type(piece)
        self._hint_due = self._keys.pending
        self._show_line()

    def _show_line(self) -> None:
        if self._keys.line is not None:
            self._display.typed(self._keys.line)

    def _answered(self, answer: Answer) -> None:
        then, self._then = self._then, None
        self._display.answered()
        if answer.text is not None and then is not None:
            then(answer.text)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self.say(text)

    # Signals

    def _go_on(self) -> None:
        """Take the terminal again after a stop, if it is still there."""
        try:
            self._terminal.enter()
        except termios.error:
            self.end(SIGNALLED + signal.SIGHUP)

    def _take_signals(self, _: int) -> None:
        for number in os.read(self._wake, 64):
            if number in ENDING:
                self.end(SIGNALLED + number)
            elif number == signal.SIGTSTP:
                self.suspend()
            elif number == signal.SIGCONT and self._ended is None:
                self._go_on()


def _ignore(_: int, __: Optional[FrameType]) -> None:
    """The wake-up descriptor tells of the signal."""


TEXTS: Mapping[int, str] = {
    attach.NOTICE: "[vspcd: {}]",
    attach.SKIPPED: "[vspcd: {} bytes skipped]",
}
