"""One console: its journal, its clients and its keyboard, whatever sort of leg feeds it.

Does: appends what the VM says to the journal and sends it on to every client, attaches and detaches clients,
feeds those that lag from the log, gives notices.
Owns: the journal, the clients, the keyboard.
Never: parses the VM's protocol (the kind does), listens, stalls for anybody's slowness.

Every client is a cursor on the journal. Those at the head are sent each chunk as it comes; the others are fed
when their socket has room. There is no queue per client, so memory stays flat whatever a client does.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from vspcd.core import names
from vspcd.core.journal import Buffer
from vspcd.proto.terminal import Terminal
from vspcd.proto.vmware_codes import format_uuid
from vspcd.unix.byname import ByName
from vspcd.unix.logfile import LogFile, LogSettings, Place
from vspcd.unix.loop import HANGUP, PEER_CLOSED, READ, WRITE
from vspcd.unix.page import BYTES_IN, HEAD, LOG_PLACE, NOT_LOGGED, READ_UP_TO, TYPED_FROM
from workers.client import ATTACH, CHUNK, RAW, TELNET, Client, ClientGone
from workers.keyboard import Keyboard
from workers.leg import Leg, LegGone
from workers.shell import Shell, socket_of

OFFER_AFTER = 0.25
"""A telnet client says nothing until it is spoken to; a debugger speaks at once and must not be spoken to."""

DECIDE_AFTER = 1.0
"""A client that has not answered the offer by then is a raw one."""

CATCH_UP = 16
"""Chunks that a lagging client is fed in one turn, so that others get theirs."""

LINGER = 10.0
"""A TCP client that has said its last word may still want to hear; whether it does, TCP cannot tell."""

HELD_INPUT = 60.0
"""How long what somebody typed before leaving may wait for a VM that is busy, moving or away."""

REPLAY_LIMIT = 1 << 20


class Console:
    """The part of a worker that every kind shares. ``leg_broke(reason)``: the leg ended under somebody's
    typing; ``alone()``: the last client has left."""

    def __init__(
        self,
        shell: Shell,
        console: dict[str, Any],
        leg_broke: Callable[[str], None],
        alone: Callable[[], None],
        resume: bool = False,
    ) -> None:
        self.shell = shell
        self.uuid: str = console["uuid"]
        self.label: str = console["label"]
        self.name: Optional[str] = console["name"]
        self.id = format_uuid(self.uuid) + (f".{self.label}" if self.label else "")
        self._leg_broke = leg_broke
        self._alone = alone
        self._by_name = ByName(shell.log_directory)
        self.journal = LogFile(
            shell.log_directory,
            self.id,
            log_settings(shell.settings),
            shell.changed,
            self._log_trouble,
            lambda inode, base: shell.page.put(LOG_PLACE, inode, base),
            resume=Place(*shell.page.get(LOG_PLACE)[:2], shell.page.get(READ_UP_TO)[1]) if resume else None,
        )
        self._logged_already = 0
        self.clients: dict[int, Client] = {}
        self._live: list[Client] = []
        self._behind: set[Client] = set()
        self.keyboard = Keyboard(shell.page, self._listen, self._ended, self.detach)
        if resume:
            self._resume()
        shell.page.words[HEAD] = self.journal.head - self._logged_already
        self.journal.event("resumed" if resume else "started", {"name": self.name})
        self._show_name()

    # What the VM says.

    def _resume(self) -> None:
        """A dead worker had logged more than it had consumed: the VM's connection will say that part again."""
        _, head, _ = self.shell.page.get(READ_UP_TO)
        if self.journal.settings.enabled:
            self._logged_already = max(0, self.journal.head - head)
        else:
            self.journal.tail.head = head

    def all_logged(self) -> None:
        """The dead worker was through with all that it had logged: the VM's connection will not say it again."""
        self._logged_already = 0
        self.shell.page.words[HEAD] = self.journal.head

    def _not_logged_yet(self, data: Buffer) -> Buffer:
        known = min(self._logged_already, len(data))
        self._logged_already -= known
        self.shell.page.words[HEAD] = self.journal.head - self._logged_already
        return memoryview(data)[known:]

    def said(self, data: Buffer) -> None:
        """The VM has said this: into the journal, then to every client."""
        if self._logged_already:
            data = self._not_logged_yet(data)
        if not data:
            return
        base = self.journal.head
        self.journal.append(data)
        words = self.shell.page.words
        words[HEAD] = base + len(data)
        words[BYTES_IN] += len(data)
        words[NOT_LOGGED] = self.journal.not_logged
        if self._live:
            self._send_live(data)
        if self._behind:
            self._limit_lag()
        if self.journal.rotated_files:
            self._release_files()

    def _send_live(self, data: Buffer) -> None:
        view = memoryview(data)
        for client in tuple(self._live):
            ahead = client.cursor - (self.journal.head - len(view))
            try:
                # Without a log, a client can have seen more than a worker that goes on for a dead one knows of.
                if ahead < len(view) and not client.put(view[ahead:] if ahead else view):
                    self._fell_behind(client)
            except ClientGone as gone:
                self.detach(client, str(gone))

    def _fell_behind(self, client: Client) -> None:
        if client in self._live:
            self._live.remove(client)
        self._behind.add(client)
        self._watch(client)

    def _limit_lag(self) -> None:
        limit = self.shell.settings["clients"]["max_lag"]
        for client in tuple(self._behind):
            if self.journal.head - client.cursor > limit:
                self._skip(client, max(self.journal.tail.start, self.journal.head - limit))

    def _release_files(self) -> None:
        """Rotated files that nobody reads any more can go."""
        cursors = (client.cursor for client in self.clients.values())
        self.journal.release(min(cursors, default=self.journal.head))

    def _skip(self, client: Client, position: int) -> None:
        size = position - client.cursor
        client.cursor = position
        client.note()
        client.skipped(size)
        self.journal.event("skipped", {"client": client.origin, "bytes": size})
        self.shell.log.warning("client-skipped", console=self.id, client=client.origin, bytes=size)

    def catch_up(self, client: Client) -> None:
        """Feed a client that is behind; it is live again once it stands at the head."""
        try:
            if not client.decided:
                client.flush()
            elif self._feed(client):
                self._at_the_head(client)
            self._watch(client)
        except ClientGone as gone:
            self.detach(client, str(gone))

    def _at_the_head(self, client: Client) -> None:
        client.live()
        if client.flush():
            self._behind.discard(client)
            self._live.append(client)

    def _feed(self, client: Client) -> bool:
        """Send what it lacks, a bounded number of chunks; whether it has everything."""
        if not client.flush():
            return False
        for _ in range(CATCH_UP):
            data = self.journal.read(client.cursor, CHUNK)
            if data is None:
                self._skip(client, self.journal.next_readable(client.cursor))
            elif not data:
                return True
            elif not client.put(data):
                return False
        return False

    # Clients.

    def attach(self, message: dict[str, Any], fd: int) -> None:
        """A client that the master has let in."""
        kind = message["kind"]
        client = Client(
            message["client"],
            kind,
            socket_of(fd),
            message["from"],
            message["mode"],
            self.journal.head,
            self.shell.page,
        )
        self.clients[client.number] = client
        self.shell.loop.watch(
            client.sock.fileno(), READ | PEER_CLOSED, lambda events: self._client_ready(client, events)
        )
        self.journal.event("attached", {"client": client.origin, "kind": kind})
        if kind == TELNET:
            self.shell.loop.call_later(OFFER_AFTER, lambda: self._offer(client))
            return
        if kind == ATTACH:
            self._rewind(client, message["replay"])
        self._begin(client)

    def resume_client(self, message: dict[str, Any], fd: int, typist: int, typed: int) -> None:
        """A client of a dead worker: it goes on where it was. ``typed`` of its batch is with the VM already."""
        client = Client(
            message["client"],
            TELNET if message["kind"] == RAW and message["terminal"] is not None else message["kind"],
            socket_of(fd),
            message["from"],
            message["mode"],
            self.journal.head,
            self.shell.page,
        )
        client.announce_live = False
        if message["terminal"] is not None:
            client.terminal = Terminal.restore(message["terminal"])
            client.decided = client.terminal.kind != "undecided" or message["kind"] == RAW
            client.told_coded = client.coded
        self.journal.reach(client.cursor)
        client.resume(self.journal.read)
        self.clients[client.number] = client
        self.shell.loop.watch(
            client.sock.fileno(), READ | PEER_CLOSED, lambda events: self._client_ready(client, events)
        )
        if client.number == typist and not self._batch_was_consumed(client):
            self.keyboard.resume(client.number, typed)
        if client.decided:
            self._begin(client)
        else:
            self._offer(client)

    def _batch_was_consumed(self, client: Client) -> bool:
        return client.counted and client.consumed() > self.shell.page.words[TYPED_FROM]

    def _begin(self, client: Client) -> None:
        """From now on it gets what the VM says."""
        self._behind.add(client)
        self.catch_up(client)

    def _rewind(self, client: Client, replay: int) -> None:
        """Let it begin with the last lines, a whole one first."""
        begin = max(self.journal.oldest, self.journal.head - min(replay, REPLAY_LIMIT))
        seen = self.journal.read(begin, self.journal.head - begin)
        if seen:
            cut = seen.find(b"\n") + 1 if begin else 0
            client.cursor = begin + (cut if cut < len(seen) else 0)
            client.note()

    def _offer(self, client: Client) -> None:
        terminal = client.terminal
        if client.number in self.clients and terminal is not None and terminal.kind == "undecided":
            terminal.offer()
            client.answer(terminal.take_output())
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
        if client.coded:
            self._rewind(client, self.shell.settings["clients"]["replay"])
        self._begin(client)

    def _client_ready(self, client: Client, events: int) -> None:
        if events & WRITE:
            self.catch_up(client)
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
        if client.coded:
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
        terminal = client.terminal
        if terminal is not None and client.number in self.clients:
            self._tell_terminal(client, terminal.snapshot())
            if terminal.kind != "undecided":
                self._decided(client)
            if client.out:
                self._flush(client)

    def _tell_terminal(self, client: Client, state: dict[str, Any]) -> None:
        if state != client.told_terminal:
            client.told_terminal = state
            self.shell.tell("terminal", client=client.number, state=state)

    def _flush(self, client: Client) -> None:
        """Send what waits for it beside the journal."""
        try:
            if not client.flush():
                if client in self._live:
                    self._fell_behind(client)
                self._watch(client)
        except ClientGone as gone:
            self.detach(client, str(gone))

    def _listen(self, client: Client, wanted: bool) -> None:
        client.heard = wanted
        self._watch(client)

    def _watch(self, client: Client) -> None:
        """Ask the loop for just what this client is waited for."""
        loop, fd = self.shell.loop, client.sock.fileno()
        if client.number not in self.clients:
            return
        if not loop.watches(fd):
            if not client.heard:
                return
            loop.watch(fd, 0, lambda events: self._client_ready(client, events))
        loop.change(fd, self._wanted(client))

    def _wanted(self, client: Client) -> int:
        wanted = WRITE if client.out or (client in self._behind and client.decided) else 0
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
        if client in self._live:
            self._live.remove(client)
        self._behind.discard(client)
        self.keyboard.left(client)
        client.close()
        self.journal.event("detached", {"client": client.origin, "reason": reason})
        self.shell.tell("detached", client=client.number, reason=reason)
        if self.journal.rotated_files:
            self._release_files()
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
        self.shell.name(f"{self.shown_name if self.name else 'console'} [{self.id}]")
        if self.name and self.journal.settings.enabled:
            try:
                self._by_name.show(self.shown_name, self.journal.name, self.id)
            except OSError as error:
                self._log_trouble(f"no link by name: {error.strerror}")

    def apply_settings(self) -> None:
        """The configuration was read again."""
        self.journal.settings = log_settings(self.shell.settings)._replace(
            enabled=self.journal.settings.enabled
        )

    def reopen(self) -> None:
        """Someone may have rotated the log."""
        self.journal.reopen()
        self._show_name()

    def _log_trouble(self, reason: str) -> None:
        if reason:
            self.shell.log.error("log-trouble", console=self.id, reason=reason)
        else:
            self.shell.log.info("log-works-again", console=self.id)

    def close(self, reason: str) -> None:
        """Let everybody go, with the reason."""
        for client in tuple(self.clients.values()):
            self.dismiss(client, reason)
        self.journal.event("stopped", {"reason": reason})
        self.journal.close()


def log_settings(settings: dict[str, Any]) -> LogSettings:
    """The worker's settings as the log file wants them."""
    return LogSettings(**settings["log"])
