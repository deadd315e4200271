"""One console: its journal, its clients and its keyboard, whatever sort of leg feeds it.

Does: attaches and detaches clients, lets them type, gives notices, names things.
Owns: the journal, the clients, the keyboard, the fan-out.
Never: parses the VM's protocol (the kind does), listens, stalls for anybody's slowness.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

from vspcd.core import names
from vspcd.proto import pickles
from vspcd.proto.vmware_codes import format_uuid
from vspcd.unix.byname import ByName
from vspcd.unix.failpoint import reached
from vspcd.unix.logfile import LogFile
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.loop import HANGUP, PEER_CLOSED, READ, WRITE
from vspcd.unix.page import IN_DOUBT, READ_UP_TO, TYPED_FROM
from workers import manners
from workers.client import ATTACH, CHUNK, RAW, TELNET, Client, ClientGone
from workers.fanout import FanOut
from workers.keyboard import Batch, Keyboard
from workers.leg import Leg, LegGone
from workers.shell import Shell, socket_of
from workers.typedlog import TypedLog

OFFER_AFTER = 0.25
"""A telnet client says nothing until it is spoken to; a debugger speaks at once and must not be spoken to."""

DECIDE_AFTER = 1.0
"""A client that has not answered the offer by then is a raw one."""

SEED_LIMIT = 65536
"""Bytes that a client of the admin port is shown before it speaks telnet."""

LINGER = 10.0
"""A TCP client that has said its last word may still want to hear; whether it does, TCP cannot tell."""

HELD_INPUT = 60.0
"""How long what somebody typed before leaving may wait for a VM that is busy, moving or away."""


class Console:
    """The part of a worker that every kind shares. ``leg_broke(reason)``: the leg ended under somebody's
    typing; ``alone()``: the last client has left, or the log no longer waits; ``broke()``: the VM was sent a break.

    It is made before the fork, and touches nothing until ``begin``.
    """

    uuid: str
    label: str
    name: Optional[str]
    id: str

    def __init__(
        self,
        shell: Shell,
        leg_broke: Callable[[str], None],
        alone: Callable[[], None],
        broke: Callable[[], None],
    ) -> None:
        self.shell = shell
        self._leg_broke = leg_broke
        self._alone = alone
        self._broke = broke
        self._by_name = ByName(shell.log_directory)
        self._settings = shell.settings
        self.journal = LogFile(
            shell.log_directory,
            log_settings(shell.settings),
            shell.page,
            Ties(
                shell.changed,
                self._log_trouble,
                shell.loop.call_later,
                lambda: shell.loop.call_later(0, self._show_name),
            ),
        )
        self.clients: dict[int, Client] = {}
        self._unmet: list[tuple[dict[str, Any], int]] = []  # those whom a dead worker had not met
        self.keyboard = Keyboard(
            shell.page, self._listen, self._was_read, self._ended, self.detach, self._was_typed
        )
        self.typed_log = TypedLog(shell.log_directory, self)
        self.fanout = FanOut(shell, self.journal, self.clients, self._watch, self._unreachable)

    def begin(self, console: dict[str, Any], resume: bool = False) -> None:
        """It is this console. ``resume``: go on for a dead worker."""
        self.uuid, self.label, self.name = console["uuid"], console["label"], console["name"]
        self.id = format_uuid(self.uuid) + (f".{self.label}" if self.label else "")
        settings = self.journal.settings
        if self.shell.settings is not self._settings:
            settings = log_settings(self.shell.settings)  # they were read again since
        self.journal.begin(self.id, settings, self.shell.page.get(READ_UP_TO)[2] if resume else None)
        self.fanout.go_on()
        self.journal.event("resumed" if resume else "started", {"name": self.name})
        self._show_name()

    # Clients.

    def attach(self, message: dict[str, Any], fd: int) -> None:
        """A client that the master has let in."""
        reached("client.attach")
        kind, seed = message["kind"], message.get("seed")
        client = Client(
            message["client"],
            kind,
            socket_of(fd),
            message["from"],
            message["mode"],
            self.fanout.last_lines(message["replay"]) if kind == ATTACH else self.journal.head,
            self.shell.page,
            seeded=seed is not None,
        )
        client.facts, client.greeting = message["facts"], message["notice"]
        self.clients[client.number] = client
        self._meet(client)
        self.journal.event("attached", {"client": client.origin, "kind": kind})
        reached("client.attached")
        if kind == TELNET:
            if seed is not None:
                self._seed(client, seed, message["replay"])
            self.shell.loop.call_later(OFFER_AFTER, lambda: self._offer(client))
            return
        self.fanout.begin(client)

    def _seed(self, client: Client, strings: str, replay: int) -> None:
        """A client of the admin port: what was said before is a pickled string, then comes telnet."""
        begin, client.cursor = self.fanout.last_lines(min(replay, SEED_LIMIT)), self.journal.head
        said = self.journal.read(begin, self.journal.head - begin) or b""
        client.answer(pickles.dump(said, bytes if strings == "bytes" else str))
        self._flush(client)

    def resume_client(self, message: dict[str, Any], fd: int, typist: int, typed: int) -> None:
        """A client of a dead worker, which goes on where it was once everybody is here: see ``go_on``.

        ``typed`` of its batch is with the VM already.
        """
        reached("resume.client")
        if self.shell.page.slot_of(message["client"]) is None:
            self._unmet.append((message, fd))  # the dead worker had not got so far
            return
        client = Client(
            message["client"],
            TELNET if message["kind"] == RAW and message["terminal"] is not None else message["kind"],
            socket_of(fd),
            message["from"],
            message["mode"],
            self.journal.head,
            self.shell.page,
            seeded=message["seed"] is not None,
        )
        client.facts, client.greeting = message["facts"], message["notice"]
        unsaid = b""
        if message["terminal"] is not None:
            unsaid = manners.restore(client, message["terminal"])
            client.decided = message["kind"] == RAW or client.kind_known
            client.told_coded = client.coded
        self.journal.reach(client.cursor)
        unseeded = client.unseeded()
        client.resume(self.journal.read, unsaid)
        if unseeded:
            self._seed(client, message["seed"], message["replay"])
        client.tell_mode()
        self._mark_repeats(client)
        self.clients[client.number] = client
        if client.number == typist and not self._batch_was_consumed(client):
            self.keyboard.resume(client.number, typed)
        reached("resume.resumed")

    def go_on(self) -> None:
        """Everybody is here. Nobody is heard before that: who had begun to type is the first."""
        for client in self.clients.values():
            self._meet(client)
        try:
            self.keyboard.go_on(self.clients)
        except LegGone:
            pass  # the loop reports the end of the connection
        for client in tuple(self.clients.values()):
            if client.decided:
                self.fanout.begin(client)
            elif client.kind_known:
                self._decided(client)
            else:
                # What it has said already is heard first.
                self.shell.loop.call_later(OFFER_AFTER, partial(self._offer, client))
        unmet, self._unmet = self._unmet, []
        for message, fd in unmet:
            self.attach(message, fd)

    def change_mode(self, message: dict[str, Any]) -> None:
        """The master says who may type. What was on its way is finished, what has not begun is dropped."""
        client = self.clients.get(message["client"])
        if client is None:
            return  # it has just left
        client.facts = message["facts"]
        client.change_mode(message["mode"], message["notice"])
        if client.mode == "ro":
            self.keyboard.revoke(client)
        self._flush(client)

    def _was_typed(self, batch: Batch) -> None:
        """All of this is with the VM."""
        if batch.typed.breaks:
            self.shell.tell("break", client=batch.number, count=batch.typed.breaks)
            self._broke()
        self.typed_log.typed(batch.number, batch.origin, batch.typed.wire, batch.typed.breaks)

    def _mark_repeats(self, client: Client) -> None:
        """A Unix socket cannot tell what a dead worker has sent last, or consumed: that may come twice."""
        if client.counted or client.kind == ATTACH:
            return
        if client.cursor < self.journal.head:
            size = min(self.journal.head - client.cursor, CHUNK)
            self.journal.event("may-repeat", {"client": client.origin, "what": "output", "bytes": size})
        words = self.shell.page.words
        if words[IN_DOUBT] == client.number:
            size = client.unread()
            self.journal.event("may-repeat", {"client": client.origin, "what": "typing", "bytes": size})
            words[IN_DOUBT] = 0

    def _batch_was_consumed(self, client: Client) -> bool:
        return client.counted and client.consumed() > self.shell.page.words[TYPED_FROM]

    def _offer(self, client: Client) -> None:
        terminal = client.terminal
        if client.number in self.clients and terminal is not None and not client.kind_known:
            terminal.offer()
            client.answer(terminal.take_output())
            self._was_read(client, 0)
            self._flush(client)
            self.shell.loop.call_later(DECIDE_AFTER, lambda: self._decided(client))

    def _decided(self, client: Client) -> None:
        """It has shown whether it speaks telnet, or has kept silent for long enough."""
        if client.number not in self.clients:
            return
        if client.coded != client.told_coded:
            client.told_coded = client.coded
            self.shell.tell("client-kind", client=client.number, kind=TELNET if client.coded else RAW)
        if client.decided:
            return
        client.decided = True
        client.greet()
        if client.coded and not client.seeded:
            self.fanout.rewind(client, self.shell.settings["clients"]["replay"])
        self.fanout.begin(client)

    def _client_ready(self, client: Client, events: int) -> None:
        if events & WRITE:
            self.fanout.catch_up(client)
        if client.number not in self.clients:
            return
        if client.heard and not client.ended:
            if events & (READ | HANGUP | PEER_CLOSED):
                self._typed(client, bool(events & PEER_CLOSED))
        elif events & HANGUP:
            self._hung_up(client)
        elif events & PEER_CLOSED:
            self._left_before_the_vm_came(client)

    def _ended(self, client: Client) -> None:
        """It types no more. A Unix socket says when it is gone for good, TCP does not."""
        client.ended = True
        if client.coded or client.deaf:
            self.detach(client, "it has closed")
            return
        self._watch(client)
        if client.kind == TELNET:
            self._linger(client, LINGER)

    def _left_before_the_vm_came(self, client: Client) -> None:
        """Somebody on a TCP port has closed while no VM is there: a person has gone, a script may wait."""
        if client.coded:
            self.detach(client, "it has closed")
        else:
            self._linger(client, HELD_INPUT)

    def _hung_up(self, client: Client) -> None:
        """It is gone. What it typed before waits for the VM, as long as there is one."""
        if client.ended or not self.keyboard.connected:
            self.detach(client, "it has closed")
        else:
            self.shell.loop.forget(client.sock.fileno())
            self._linger(client, HELD_INPUT)

    def _linger(self, client: Client, seconds: float) -> None:
        if not client.lingering:
            client.lingering = True
            self._watch(client)
            self.shell.loop.call_later(seconds, lambda: self.detach(client, "it has closed"))

    def held_bytes(self) -> int:
        """What clients have typed and the VM has not got, here and in their sockets."""
        return self.keyboard.held_bytes + sum(client.unread() for client in self.clients.values())

    def type_to(self, leg: Optional[Leg]) -> None:
        """The VM is there, or gone: None."""
        self.keyboard.connect(leg)
        for client in tuple(self.clients.values()):
            self._watch(client)

    def _typed(self, client: Client, last: bool) -> None:
        try:
            self.keyboard.readable(client, last)
        except LegGone as gone:
            self._leg_broke(str(gone))
        if client.terminal is not None and client.number in self.clients:
            if client.kind_known:
                self._decided(client)
            if client.out:
                self._flush(client)

    def _was_read(self, client: Client, size: int) -> None:
        """So much of what it has said is about to be dealt with: whoever goes on has to know what that changes."""
        state = manners.told(client, size)
        if state is not None:
            self.shell.tell("terminal", client=client.number, state=state)
            reached("client.told")

    def _flush(self, client: Client) -> None:
        """Send what waits for it beside the journal."""
        try:
            if not client.flush():
                self.fanout.held_up(client)
                self._watch(client)
        except ClientGone as gone:
            self._unreachable(client, str(gone))

    def _unreachable(self, client: Client, reason: str) -> None:
        """Nothing reaches it any more. What it typed before it went is heard first."""
        if client.ended or not (client.unread() or self.keyboard.has(client)):
            self.detach(client, reason)
            return
        client.out.clear()
        if not client.deaf:
            client.deaf = True
            self.fanout.left(client)
            self._linger(client, HELD_INPUT)

    def _listen(self, client: Client, wanted: bool) -> None:
        client.heard = wanted
        self._watch(client)

    def _meet(self, client: Client) -> None:
        """Let the loop know it."""
        loop, fd = self.shell.loop, client.sock.fileno()
        if not loop.watches(fd):
            loop.watch(fd, READ | PEER_CLOSED, lambda events: self._client_ready(client, events))

    def _watch(self, client: Client) -> None:
        """Ask the loop for just what this client is waited for."""
        loop, fd = self.shell.loop, client.sock.fileno()
        if client.number not in self.clients:
            return
        if not loop.watches(fd):
            if not client.heard:
                return
            self._meet(client)
        loop.change(fd, self._wanted(client))

    def _wanted(self, client: Client) -> int:
        if client.deaf:
            return READ | PEER_CLOSED if client.heard and not client.ended else 0
        wanted = WRITE if client.out or (self.fanout.lags(client) and client.decided) else 0
        if client.heard and not client.ended:
            return wanted | READ | PEER_CLOSED
        leaving = client.kind == TELNET and not (client.ended or client.lingering or self.keyboard.connected)
        return wanted | PEER_CLOSED if leaving else wanted

    def dismiss(self, client: Client, reason: str) -> None:
        """A client has to leave, and is told why."""
        client.goodbye(reason)
        self._flush(client)
        self.detach(client, reason)

    def detach(self, client: Client, reason: str) -> None:
        """A client leaves, or has to."""
        if self.clients.pop(client.number, None) is None:
            return
        self.shell.loop.forget(client.sock.fileno())
        reached("client.detach")
        self.fanout.left(client)
        self.keyboard.left(client)
        client.close()
        self.journal.event("detached", {"client": client.origin, "reason": reason})
        self.shell.tell("detached", client=client.number, reason=reason)
        if self.journal.rotated_files:
            self.fanout.release_files()
        if not self.clients:
            self._alone()

    # Notices, settings, the end.

    def notice(self, text: str) -> None:
        """Tell every client whose coding has a place for it."""
        for client in tuple(self.clients.values()):
            client.notice(f"{names.visible(self.shown_name)} {text}")
            self._flush(client)

    @property
    def shown_name(self) -> str:
        """The VM's name and the port's label, or the identity of a VM without a name."""
        if not self.name:
            return self.id
        return f"{self.name}.{self.label}" if self.label else self.name

    def rename(self, name: str) -> None:
        """The VM has another name now."""
        if name != self.name:
            old, self.name = self.name, name
            self.journal.event("renamed", {"from": old, "to": name})
            self._show_name()

    def _show_name(self) -> None:
        self.typed_log.apply(self.shell.settings["audit"]["typing"])
        self.shell.name(f"{self.shown_name if self.name else 'console'} [{self.id}]")
        if self.name and self.journal.settings.enabled:
            try:
                self._by_name.show(self.shown_name, self.journal.name, self.id)
            except OSError as error:
                self._log_trouble(f"no link by name: {error.strerror}")

    def apply_settings(self) -> None:
        """The configuration was read again."""
        self.journal.apply(log_settings(self.shell.settings))
        self.typed_log.apply(self.shell.settings["audit"]["typing"])

    def reopen(self) -> None:
        """Someone may have rotated the log."""
        self.journal.reopen()
        self._show_name()

    def _log_trouble(self, reason: str) -> None:
        if reason:
            self.shell.log.error("log-trouble", console=self.id, reason=reason)
        else:
            self.shell.log.info("log-works-again", console=self.id)
            self.shell.loop.call_later(0, self._alone)

    def close(self, reason: str) -> None:
        """Let everybody go, with the reason."""
        for client in tuple(self.clients.values()):
            self.dismiss(client, reason)
        self.journal.event("stopped", {"reason": reason})
        self.journal.close()


def log_settings(settings: dict[str, Any]) -> LogSettings:
    """The worker's settings as the log file wants them."""
    return LogSettings(**settings["log"])
