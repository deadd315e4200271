"""What the commands of the escape menu do.

Does: acts on a key of the menu; asks what it needs to know, the user or the daemon.
Owns: which companions the session has.
Never: reads the terminal or the worker; the session does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from vspcd.ctl import escape, table
from vspcd.ctl.client import Client
from vspcd.ctl.display import Question
from vspcd.ctl.escape import Action, key_name
from vspcd.ctl.failure import OK, Failure
from vspcd.ctl.terminal import columns

if TYPE_CHECKING:
    from vspcd.ctl.localcopy import LocalCopy
    from vspcd.ctl.members import Members
    from vspcd.ctl.sendfile import Sender
    from vspcd.ctl.session import Session

DEADLINE = 2.0
"""Seconds that the daemon has for an answer; the console's output waits meanwhile."""
LINES = 20
NAMES_SHOWN = 8


class Menu:
    """The menu of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._copy: Optional[LocalCopy] = None
        self._members: Optional[Members] = None
        self._sender: Optional[Sender] = None

    def act(self, action: Action) -> None:
        """Do what a key stands for."""
        ACTIONS[action.name](self, action)

    def hint(self) -> None:
        """What can follow the escape key, in a line that every terminal has room for."""
        self._session.say(". leave  ? help  Enter back")

    # What there is to be told.

    def _help(self, _: Action) -> None:
        key = self._session.escape
        lines = [*escape.EXPLAINED, (key, f"send {key} to the VM")]
        self._show([f"  {key} {keys:<6} {text}" for keys, text in lines])

    def _info(self, _: Action) -> None:
        from vspcd.ctl.info import describe

        session = self._session
        settings = session.settings
        lines = describe(settings.socket, settings.id, DEADLINE)
        mode = "read-only" if session.read_only else "read-write"
        lasted = table.age(time.monotonic() - session.began)
        lines.append(
            f"you: number {settings.client}, {mode}, for {lasted}, "
            f"{session.received} bytes received, {session.link.sent} sent"
        )
        if self._copying is not None:
            lines.append(f"local copy: {self._copying.path}, {self._copying.written} bytes")
        if self._broadcasting is not None:
            lines.append(f"{self._broadcasting.status()}: {', '.join(self._broadcasting.names)}")
        self._show([f"  {line}" for line in lines])

    def _who(self, _: Action) -> None:
        from vspcd.ctl.people import listed

        answer = self._request({"type": "who", "console": self._session.settings.id})
        if answer is not None:
            clients = [each for packet in answer for each in packet.get("clients") or ()]
            self._show(listed(clients, columns(1)))

    def _cancel(self, _: Action) -> None:
        self._session.say(f"back on {self._session.settings.name}")

    def _unknown(self, action: Action) -> None:
        self._session.say(f"{key_name(action.key)} is no command; {self._session.escape} ? lists them")

    def _detach(self, _: Action) -> None:
        self._session.end(OK, f"detached from {self._session.settings.name}")

    def _suspend(self, _: Action) -> None:
        self._session.suspend()

    # Sharing.

    def _lock(self, _: Action) -> None:
        self._ask("lock, reason: ", lambda reason: self._tell("lock", reason=reason or None, exclusive=False))

    def _unlock(self, _: Action) -> None:
        self._tell("unlock")

    def _take_over(self, _: Action) -> None:
        from vspcd.ctl.people import described

        settings = self._session.settings
        answer = self._request({"type": "status", "console": settings.id})
        if answer is None:
            return
        consoles = [each for packet in answer for each in packet.get("consoles") or ()]
        lock = next((each.get("lock") for each in consoles if each["id"] == settings.id), None)
        if not lock:
            self._session.say(f"nobody has a lock on {settings.name}; {self._session.escape} l locks it")
        elif lock["client"] == settings.client:
            self._session.say(f"you have the lock on {settings.name} already")
        else:
            about = f"[vspcctl: {settings.name} is locked by {described(lock)}]"
            self._ask(
                "take over, reason: ", lambda reason: self._tell("takeover", reason=reason or None), about
            )

    def _mode(self, action: Action) -> None:
        other = "rw" if self._session.read_only else "ro"
        wanted = {escape.WATCH: "ro", escape.TYPE: "rw"}.get(action.name, other)
        told = "you type again" if wanted == "rw" else "you only watch now"
        changes = wanted == other
        if self._tell("mode", mode=wanted):
            (self._session.say_when_changed if changes else self._session.say)(told)

    def _tell(self, kind: str, **facts: Any) -> bool:
        """Ask for something that is done for this session. The daemon tells everybody what has changed."""
        settings = self._session.settings
        return (
            self._request({"type": kind, "console": settings.id, "client": settings.client, **facts})
            is not None
        )

    # Breaks.

    def _break(self, _: Optional[Action] = None) -> None:
        if self._session.read_only:
            self._session.say("read-only: no break was sent")
        else:
            self._ask("break: Enter, SysRq or ?: ", self._chosen)

    def _chosen(self, text: str) -> None:
        from vspcd.ctl import sysrq

        if not text.strip():
            self._send_break("")
        elif text.strip() == "?":
            self._show([f"  {line}" for line in sysrq.listed((columns(1) or 80) - 2)])
            self._break()
        elif (found := sysrq.find(text)) is None:
            self._session.say(f"{text!r} is no SysRq key; no break was sent")
        elif found.harmless:
            self._send_break(found.key)
        else:
            key = found.key
            about = f"[vspcctl: SysRq {key} on {self._session.settings.name}: {found.effect}]"
            self._confirm("send it, y/N: ", lambda: self._send_break(key), about)

    def _send_break(self, key: str) -> None:
        if self._session.read_only:
            self._session.say("read-only by now: no break was sent")
            return
        self._session.link.send_break()
        if key:
            self._session.link.type(key.encode())
        self._session.say(f"break and SysRq {key} sent" if key else "break sent")

    # What goes along with the session.

    @property
    def _copying(self) -> Optional[LocalCopy]:
        return self._copy if self._copy in self._session.companions else None

    @property
    def _broadcasting(self) -> Optional[Members]:
        return self._members if self._members in self._session.companions else None

    @property
    def _sending(self) -> Optional[Sender]:
        return self._sender if self._sender in self._session.companions else None

    def _replay(self, _: Action) -> None:
        self._ask(f"replay how many lines ({LINES}): ", self._replay_lines)

    def _replay_lines(self, text: str) -> None:
        from vspcd.ctl.attaching import recent
        from vspcd.ctl.lastlines import last_lines

        wanted = text.strip() or str(LINES)
        if not (wanted.isascii() and wanted.isdigit() and int(wanted)):
            self._session.say(f"{text!r} is no number of lines")
            return
        settings, told = self._session.settings, ""
        try:
            data = recent(settings.socket, settings.id, DEADLINE)
        except Failure:
            data, told = bytes(self._session.latest), ", as far as this session remembers"
        lines = last_lines(data, int(wanted))
        self._session.say(f"the last {len(lines)} lines of {settings.name}{told}")
        self._session.notice("\r\n".join([*lines, "[vspcctl: end of these lines]"]))

    def _send(self, _: Action) -> None:
        if self._sending is not None:
            self._session.say("a file is being sent already; Ctrl-C stops it")
        elif self._broadcasting is not None:
            self._session.say("a file goes to one console: end the broadcast first")
        elif self._session.read_only:
            self._session.say("read-only: nothing can be sent")
        else:
            self._ask("send file: ", self._file_chosen)

    def _file_chosen(self, path: str) -> None:
        from vspcd.ctl import sendfile

        if not path:
            return
        try:
            data = sendfile.load(path)
        except sendfile.Unfit as unfit:
            self._session.say(f"cannot send {path}: {unfit}")
            return
        lines = data.count(b"\r")
        about = (
            f"[vspcctl: {len(data)} bytes, {lines} lines; Enter waits for echoes, a number is ms per line]"
        )
        self._ask("pace: ", lambda pace: self._paced(path, data, pace.strip()), about)

    def _paced(self, path: str, data: bytes, pace: str) -> None:
        from vspcd.ctl.sendfile import Sender

        if pace and not (pace.isascii() and pace.isdigit() and int(pace) <= 60000):
            self._session.say(f"{pace!r} is no number of milliseconds up to 60000; nothing was sent")
            return
        self._sender = Sender(self._session, path, data, int(pace) / 1000 if pace else None)
        self._session.companions.append(self._sender)

    def _toggle_copy(self, _: Action) -> None:
        copy = self._copying
        if copy is not None:
            self._session.dismiss(copy)
            self._session.say(f"the local copy has ended: {copy.path}, {copy.written} bytes")
        else:
            self._ask("local copy to file: ", self._copy_to)

    def _copy_to(self, path: str) -> None:
        from vspcd.ctl.localcopy import LocalCopy

        if not path:
            return
        try:
            self._copy = LocalCopy(path, self._session.say, self._session.dismiss)
        except (OSError, ValueError) as error:
            self._session.say(f"no local copy to {path}: {getattr(error, 'strerror', None) or error}")
            return
        self._session.companions.append(self._copy)
        how = "appends to" if self._copy.appends else "goes to"
        self._session.say(f"from now on a copy {how} {self._copy.path}; {self._session.escape} L ends it")

    # Other consoles.

    def _switch(self, _: Action) -> None:
        self._ask("change to console: ", self._switch_to)

    def _switch_to(self, name: str) -> None:
        from vspcd.ctl.attaching import get_on, settled, state

        if not name:
            return
        before = self._session.settings
        try:
            answer, worker = get_on(before.socket, name, DEADLINE, replay=None, fallback=True)
        except Failure as failure:
            self._session.say(f"{failure.message}; still on {before.name}")
            return
        settings = settled(answer, before.socket, before.escape, before.linger)
        self._session.change(worker, settings)
        self._session.say(f"on {settings.name}, {state(answer, settings.read_only)}")

    def _broadcast(self, _: Action) -> None:
        members = self._broadcasting
        if members is not None:
            self._session.dismiss(members)
            self._session.say(f"the broadcast is over; you type on {self._session.settings.name} alone")
        elif self._session.read_only:
            self._session.say("read-only: there is nothing to broadcast")
        else:
            self._ask("broadcast to (pattern): ", self._broadcast_to)

    def _broadcast_to(self, pattern: str) -> None:
        from vspcd.ctl.members import LIMIT, found
        from vspcd.ctl.status import shown_name

        answer = self._request({"type": "status"}) if pattern.strip() else None
        if answer is None:
            return
        consoles = [each for packet in answer for each in packet.get("consoles") or ()]
        ids = found(pattern, consoles, self._session.settings.id)
        if not ids or len(ids) > LIMIT:
            how = f"{len(ids)} are too many, {LIMIT} at most" if ids else "nothing else that is connected"
            self._session.say(f"{pattern} means {how}")
            return
        names = {str(each["id"]): shown_name(each) for each in consoles}
        shown = ", ".join(names[each] for each in ids[:NAMES_SHOWN])
        more = f" and {len(ids) - NAMES_SHOWN} more" if len(ids) > NAMES_SHOWN else ""
        about = f"[vspcctl: besides {self._session.settings.name}: {shown}{more}]"
        self._confirm(f"type on {len(ids) + 1} consoles, y/N: ", lambda: self._join(pattern, ids), about)

    def _join(self, pattern: str, ids: Sequence[str]) -> None:
        from vspcd.ctl.members import Members

        members = Members(self._session, pattern)
        for each in ids:
            refused = members.join(each, self._session.settings.socket, DEADLINE)
            if refused is not None:
                self._session.say(f"not there: {refused}")
        if members.names:
            self._members = members
            self._session.companions.append(members)
            self._session.say(f"{members.status()}; {self._session.escape} * ends it")

    # How.

    def _ask(self, label: str, then: Callable[[str], object], about: Optional[str] = None) -> None:
        self._session.ask(Question(about, label), then)

    def _confirm(self, label: str, then: Callable[[], None], about: str) -> None:
        def answered(text: str) -> None:
            if text.strip().lower() in ("y", "yes"):
                then()
            else:
                self._session.say("nothing was sent")

        self._ask(label, answered, about)

    def _request(self, message: dict[str, Any]) -> Optional[list[dict[str, Any]]]:
        """The daemon's answer; None when there is none, and the user was told why."""
        try:
            with Client(self._session.settings.socket, DEADLINE) as client:
                return client.ask(message)
        except Failure as failure:
            self._session.say(failure.message)
            return None

    def _show(self, lines: Sequence[str]) -> None:
        """Lines for people, no wider than the terminal."""
        width = columns(1)
        fitted = [table.rendered(table.Line(line), width, False) for line in lines]
        self._session.notice("\r\n".join("\n".join(fitted).split("\n")))


ACTIONS: Mapping[str, Callable[[Menu, Action], None]] = {
    escape.DETACH: Menu._detach,
    escape.HELP: Menu._help,
    escape.INFO: Menu._info,
    escape.WHO: Menu._who,
    escape.LOCK: Menu._lock,
    escape.UNLOCK: Menu._unlock,
    escape.TAKE_OVER: Menu._take_over,
    escape.MODE: Menu._mode,
    escape.WATCH: Menu._mode,
    escape.TYPE: Menu._mode,
    escape.BREAK: Menu._break,
    escape.REPLAY: Menu._replay,
    escape.SEND: Menu._send,
    escape.COPY: Menu._toggle_copy,
    escape.SWITCH: Menu._switch,
    escape.BROADCAST: Menu._broadcast,
    escape.SUSPEND: Menu._suspend,
    escape.CANCEL: Menu._cancel,
    escape.UNKNOWN: Menu._unknown,
}
