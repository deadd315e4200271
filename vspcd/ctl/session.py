"""One attached session: the loop between the user's side, the worker and the signals.

Does: moves bytes both ways through bounded buffers, runs the escape menu, ends with an exit code.
Owns: the connection to the worker, the signal handlers and the raw terminal between enter and exit.
Never: blocks on anything but its one poll; lets a signal cut it short without the terminal being restored.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl import escape as menu
from vspcd.ctl.display import Display
from vspcd.ctl.escape import Action, EscapeKeys, key_name
from vspcd.ctl.failure import FAILED, NO_DAEMON, OK, SIGNALLED
from vspcd.ctl.terminal import RawTerminal
from vspcd.proto import attach
from vspcd.proto.errors import PeerError

READ_SIZE = 32768
PACKET = 1 << 18  # more than the longest packet of frames
INPUT_LIMIT = 1 << 20
"""Bytes of input that wait for the worker. A pipe is then not read on; typing is dropped, with a notice."""
QUERY_DEADLINE = 2.0
HAND_OVER_DEADLINE = 2.0
"""Seconds for what was typed before the end to reach the worker."""

DAEMON_ENDS = frozenset({b"vspcd is stopping", b"vspcd has ended"})
"""The reasons of a BYE that mean the daemon, not this session alone."""

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
HANDLED = (*ENDING, signal.SIGTSTP, signal.SIGCONT)


class Settings(NamedTuple):
    name: str
    id: str
    socket: str
    read_only: bool
    escape: Optional[int]
    linger: float


class Session:
    """A context: inside it the terminal is raw and the signals are ours."""

    def __init__(self, worker: int, settings: Settings) -> None:
        """Takes ownership of the descriptor ``worker``."""
        self._settings = settings
        self._keys = EscapeKeys(settings.escape)
        self._typing = os.isatty(0)
        self._terminal = RawTerminal(0)
        self._display = Display(self._typing)
        self._worker = socket.socket(fileno=worker)
        self._worker.setblocking(False)
        self._stdin: Optional[int] = 0
        self._from_worker = bytearray()
        self._position: Optional[int] = None  # the journal position up to which it was shown
        self._to_worker = bytearray()
        self._quiet_since = self._began = time.monotonic()
        self._received = self._sent = 0
        self._warned = False
        self.read_only = settings.read_only
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
            self._hand_over()
            self._display.finish(self._wake)
        finally:
            self._let_go()

    def run(self) -> int:
        """Until the session is over; the exit code."""
        while self._ended is None:
            self._turn()
        return self._ended

    def notice(self, text: str) -> None:
        self._display.notice(text)

    def _hand_over(self) -> None:
        """Send what was typed before the end, as far as the worker takes it."""
        poll = select.poll()
        poll.register(self._worker.fileno(), select.POLLOUT)
        deadline = time.monotonic() + HAND_OVER_DEADLINE
        while self._to_worker and poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            self._write_worker()

    def _let_go(self) -> None:
        self._terminal.leave()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._worker.close()
        self._display.close()
        os.close(self._wake)
        os.close(self._woken)

    # The loop

    def _turn(self) -> None:
        poll = select.poll()
        for fd, events in self._interests().items():
            poll.register(fd, events)
        ready = dict(poll.poll(self._patience()))
        reactions: tuple[tuple[Optional[int], Callable[[int], None]], ...] = (
            (self._wake, self._take_signals),
            (self._worker.fileno(), self._serve_worker),
            (self._stdin, self._read_stdin),
            (self._display.fd, self._serve_display),
        )
        for source, react in reactions:
            if source in ready and self._ended is None:
                react(ready[source])
        self._display.place_notices()
        self._leave_when_quiet()

    def _interests(self) -> dict[int, int]:
        worker = 0 if self._display.full else select.POLLIN
        wanted = {
            self._wake: select.POLLIN,
            self._worker.fileno(): worker | (select.POLLOUT if self._to_worker else 0),
            self._display.fd: 0 if self._display.empty else select.POLLOUT,
        }
        if self._stdin is not None and (self._typing or len(self._to_worker) < INPUT_LIMIT):
            wanted[self._stdin] = select.POLLIN
        return wanted

    def _patience(self) -> Optional[float]:
        """Milliseconds until something is due; None for ever, when only somebody's act can come next."""
        due = self._display.overdue()
        if self._stdin is None:
            due = min(due, self._quiet_since + self._settings.linger - time.monotonic())
        return None if due == float("inf") else max(due, 0) * 1000 + 1

    def _leave_when_quiet(self) -> None:
        quiet = time.monotonic() - self._quiet_since >= self._settings.linger
        if self._stdin is None and quiet and not self._to_worker and self._display.empty:
            self._end(OK)

    def _end(self, exit_code: int, notice: Optional[str] = None) -> None:
        if self._ended is None:
            self._ended = exit_code
            if notice is not None:
                self._display.last_notice(f"[vspcctl: {notice}]")

    # The worker

    def _serve_worker(self, events: int) -> None:
        if events & select.POLLOUT:
            self._write_worker()
        if events & ~select.POLLOUT:
            self._read_worker()

    def _write_worker(self) -> None:
        try:
            # A frame is a packet: it arrives whole or not at all, whatever becomes of the console's process.
            _, end = attach.frames(self._to_worker[:PACKET])[0]
            sent = self._worker.send(self._to_worker[:end], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self._to_worker.clear()  # What it has said before its end is still to be read.
            return
        del self._to_worker[:sent]
        self._quiet_since = time.monotonic()

    def _read_worker(self) -> None:
        try:
            data = self._worker.recv(PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._quiet_since = time.monotonic()
            self._from_worker += data
            self._take_frames()
        else:
            self._lost()

    def _lost(self) -> None:
        """The worker has gone without a word. Whether the daemon has as well, it can tell best."""
        from vspcd.ctl.info import daemon_lives

        if daemon_lives(self._settings.socket, self._settings.id, QUERY_DEADLINE):
            why = "its process has ended; the same command gets back on it"
            self._end(FAILED, f"lost {self._settings.name}: {why}")
        else:
            self._end(NO_DAEMON, f"lost {self._settings.name}: the daemon has ended")

    def _take_frames(self) -> None:
        try:
            found = attach.frames(self._from_worker)
        except PeerError as error:
            self._end(FAILED, f"lost {self._settings.name}: the daemon was not understood: {error}")
            return
        for frame, _ in found:
            self._take_frame(frame)
        if found:
            del self._from_worker[: found[-1][1]]

    def _take_frame(self, frame: attach.Frame) -> None:
        if frame.type == attach.DATA:
            self._show(frame)
            return
        if frame.type == attach.MODE:
            self.read_only, self._warned = frame.payload != b"rw", False
            return
        text = visible(frame.payload.decode("utf-8", "replace"))
        if frame.type == attach.BYE:
            code = NO_DAEMON if frame.payload in DAEMON_ENDS else FAILED
            self._end(code, f"the daemon has ended the session: {text}")
        elif frame.type in TEXTS:
            self.notice(TEXTS[frame.type].format(text))

    def _show(self, frame: attach.Frame) -> None:
        """Show what is new: a process that went on for a dead one may repeat its last frame."""
        known = 0 if self._position is None else max(0, self._position - frame.offset)
        self._position = max(self._position or 0, frame.offset + len(frame.payload))
        self._received += len(frame.payload[known:])
        self._display.show(frame.payload[known:])

    # The user's side

    def _serve_display(self, events: int) -> None:
        try:
            self._display.write(events)
        except OSError:
            if self._display.is_terminal:
                self._end(SIGNALLED + signal.SIGHUP)
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
            self._end(SIGNALLED + signal.SIGHUP)
        else:
            self._stdin = None
            self._quiet_since = time.monotonic()

    def _take_input(self, data: bytes) -> None:
        for piece in self._keys.receive(data):
            if isinstance(piece, Action):
                ACTIONS[piece.name](self, piece)
            else:
                self._type(piece)
        if self._keys.pending and self._ended is None:
            self.notice("[vspcctl: . detach  b break  s info  z suspend  ? help  Enter back]")

    def _type(self, data: bytes) -> None:
        if self.read_only:
            self._warn("read-only: what you type is not sent")
        elif self._typing and len(self._to_worker) + len(data) > INPUT_LIMIT:
            self._warn("the VM does not take what you type; some of it is dropped")
        else:
            self._to_worker += attach.frame(attach.INPUT, data, self._sent)
            self._sent += len(data)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self.notice(f"[vspcctl: {text}]")

    # The escape menu

    @property
    def _key(self) -> str:
        return "" if self._settings.escape is None else key_name(self._settings.escape)

    def _detach(self, _: Action) -> None:
        self._end(OK, f"detached from {self._settings.name}")

    def _help(self, _: Action) -> None:
        lines = [*menu.EXPLAINED, (self._key, f"send {self._key} to the VM")]
        self.notice("\r\n".join(f"  {self._key} {keys:<6} {text}" for keys, text in lines))

    def _break(self, _: Action) -> None:
        if self.read_only:
            self.notice("[vspcctl: read-only: no break was sent]")
            return
        self._to_worker += attach.frame(attach.BREAK)
        self.notice("[vspcctl: break sent]")

    def _info(self, _: Action) -> None:
        from vspcd.ctl.info import describe

        lines = describe(self._settings.socket, self._settings.id, QUERY_DEADLINE)
        mode = "read-only" if self.read_only else "read-write"
        lasted = int(time.monotonic() - self._began)
        lines.append(f"you: {mode} for {lasted} s, {self._received} bytes received, {self._sent} sent")
        self.notice("\r\n".join(f"  {line}" for line in lines))

    def _suspend(self, _: Optional[Action] = None) -> None:
        self._terminal.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _ignore)
        self._go_on()
        self.notice(f"[vspcctl: back on {self._settings.name}]")

    def _go_on(self) -> None:
        """Take the terminal again after a stop, if it is still there."""
        try:
            self._terminal.enter()
        except termios.error:
            self._end(SIGNALLED + signal.SIGHUP)

    def _cancel(self, _: Action) -> None:
        self.notice(f"[vspcctl: back on {self._settings.name}]")

    def _unknown(self, action: Action) -> None:
        self.notice(f"[vspcctl: {key_name(action.key)} is no command; {self._key} ? lists them]")

    # Signals

    def _take_signals(self, _: int) -> None:
        for number in os.read(self._wake, 64):
            if number in ENDING:
                self._end(SIGNALLED + number)
            elif number == signal.SIGTSTP:
                self._suspend()
            elif number == signal.SIGCONT and self._ended is None:
                self._go_on()


def _ignore(_: int, __: Optional[FrameType]) -> None:
    """The wake-up descriptor tells of the signal."""


TEXTS: Mapping[int, str] = {
    attach.NOTICE: "[vspcd: {}]",
    attach.SKIPPED: "[vspcd: {} bytes skipped]",
}

ACTIONS: Mapping[str, Callable[[Session, Action], None]] = {
    menu.DETACH: Session._detach,
    menu.HELP: Session._help,
    menu.BREAK: Session._break,
    menu.INFO: Session._info,
    menu.SUSPEND: Session._suspend,
    menu.CANCEL: Session._cancel,
    menu.UNKNOWN: Session._unknown,
}
