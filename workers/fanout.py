"""Fan-out: what the VM says goes into the journal, and from there to every client.

Does: appends to the journal, sends each chunk to the clients at the head, feeds those that lag from the journal.
Owns: who is at the head and who is behind.
Never: queues anything for a client; stalls for anybody's slowness.

Every client is a cursor on the journal. Those at the head are sent each chunk as it comes; the others are fed when
their socket has room. There is no queue per client, so memory stays flat whatever a client does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from vspcd.core.journal import Buffer
from vspcd.unix.failpoint import reached
from vspcd.unix.logfile import LogFile
from vspcd.unix.page import BYTES_IN, HEAD
from workers.client import CHUNK, Client, ClientGone
from workers.shell import Shell

CATCH_UP = 16
"""Chunks that a lagging client is fed in one turn, so that others get theirs."""

REPLAY_LIMIT = 1 << 20


class FanOut:
    """``watch(client)``: it waits for something else now; ``detach(client, reason)``: it is gone."""

    def __init__(
        self,
        shell: Shell,
        journal: LogFile,
        clients: Mapping[int, Client],
        watch: Callable[[Client], None],
        detach: Callable[[Client, str], None],
    ) -> None:
        self.shell = shell
        self.journal = journal
        self._clients = clients
        self._watch = watch
        self._detach = detach
        self._live: list[Client] = []
        self._behind: set[Client] = set()
        self._logged_already = 0

    # What the VM says.

    def go_on(self) -> None:
        """The journal has begun."""
        self.shell.page.words[HEAD] = self.journal.head

    def say_again(self, head: int) -> None:
        """A dead worker had logged more than it had consumed: the VM's connection will say again what is behind
        ``head``."""
        self.journal.missed(head)
        self._logged_already = max(0, self.journal.head - head)
        self.shell.page.words[HEAD] = head

    def nothing_comes_again(self) -> None:
        """The VM's connection is over: what clients have seen and no file has, nobody says again."""
        for client in self._clients.values():
            client.nothing_comes_again()
            self.journal.missed(client.cursor)

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
        reached("console.logged")
        words = self.shell.page.words
        words[HEAD] = base + len(data)
        reached("console.head")
        words[BYTES_IN] += len(data)
        if self._live:
            self._send_live(data)
        if self._behind:
            self._limit_lag()
        if self.journal.rotated_files:
            self.release_files()

    def _send_live(self, data: Buffer) -> None:
        view = memoryview(data)
        for client in tuple(self._live):
            ahead = client.cursor - (self.journal.head - len(view))
            try:
                # Without a log, a client can have seen more than a worker that goes on for a dead one knows of.
                if ahead < len(view) and not client.put(view[ahead:] if ahead else view):
                    self._fell_behind(client)
            except ClientGone as gone:
                self._detach(client, str(gone))

    def _fell_behind(self, client: Client) -> None:
        self._live.remove(client)
        self._behind.add(client)
        self._watch(client)

    def _limit_lag(self) -> None:
        limit = self.shell.settings["clients"]["max_lag"]
        for client in tuple(self._behind):
            if self.journal.head - client.cursor > limit:
                self._skip(client, max(self.journal.tail.start, self.journal.head - limit))

    def release_files(self) -> None:
        """Rotated files that nobody reads any more can go."""
        cursors = (client.cursor for client in self._clients.values())
        self.journal.release(min(cursors, default=self.journal.head))

    def _skip(self, client: Client, position: int) -> None:
        size = position - client.cursor
        client.cursor = position
        client.note()
        client.skipped(size)
        self.journal.event("skipped", {"client": client.origin, "bytes": size})
        self.shell.log.warning("client-skipped", console=self.journal.stem, client=client.origin, bytes=size)

    def catch_up(self, client: Client) -> None:
        """Feed a client that is behind; it is live again once it stands at the head."""
        try:
            if not client.decided:
                client.flush()
            elif self._feed(client):
                self._at_the_head(client)
            self._watch(client)
        except ClientGone as gone:
            self._detach(client, str(gone))

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

    # Coming and going.

    def begin(self, client: Client) -> None:
        """From now on it gets what the VM says."""
        self._behind.add(client)
        self.catch_up(client)

    def last_lines(self, replay: int) -> int:
        """Where so many bytes before the head begin, a whole line first."""
        begin = max(self.journal.oldest, self.journal.head - min(replay, REPLAY_LIMIT))
        seen = self.journal.read(begin, self.journal.head - begin)
        if not seen:
            return self.journal.head
        cut = seen.find(b"\n") + 1 if begin else 0
        return begin + (cut if cut < len(seen) else 0)

    def rewind(self, client: Client, replay: int) -> None:
        """Let it begin with the last lines."""
        client.cursor = self.last_lines(replay)
        client.note()

    def lags(self, client: Client) -> bool:
        """Whether there is something for it when it has room."""
        return client in self._behind

    def held_up(self, client: Client) -> None:
        """What waits for it beside the journal goes first."""
        if client in self._live:
            self._live.remove(client)
            self._behind.add(client)

    def left(self, client: Client) -> None:
        """It gets nothing more."""
        if client in self._live:
            self._live.remove(client)
        self._behind.discard(client)
