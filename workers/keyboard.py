"""The keyboard: the way from the clients to the VM.

Does: lets one client after the other type, in whole batches, and stops reading them while the VM cannot take
more.
Owns: the batch that is on its way and the order of those who wait.
Never: queues typing. What the VM cannot take yet stays in the client's socket, where the kernel holds it, and
the client waits: while the VM is slow, while it is away, and while it moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Callable, Optional

from vspcd.proto.errors import PeerError
from vspcd.unix.failpoint import reached
from vspcd.unix.page import IN_DOUBT, TYPED_FROM, TYPIST, Page
from workers.client import ATTACH, Client, ClientGone, InputEnded, Typed
from workers.leg import Leg, LegGone

IAC = 0xFF


class Batch:
    """What a client typed, on its way: ``sent`` of ``typed.wire`` is with the VM's connection."""

    __slots__ = ("client", "number", "origin", "sent", "typed")

    def __init__(self, client: Client, typed: Typed, sent: int = 0) -> None:
        self.client: Optional[Client] = client
        self.number, self.origin = client.number, client.origin
        self.typed = typed
        self.sent = min(sent, len(typed.wire))


class Keyboard:
    """``listen(client, wanted)`` says whose input the loop should report, ``read(client, size)`` how much was read
    and not yet consumed, ``ended(client)`` who will type no more, ``lost(client, reason)`` who has left,
    ``typed(batch)`` what is with the VM."""

    def __init__(
        self,
        page: Page,
        listen: Callable[[Client, bool], None],
        read: Callable[[Client, int], None],
        ended: Callable[[Client], None],
        lost: Callable[[Client, str], None],
        typed: Callable[[Batch], None],
    ) -> None:
        self._page = page
        self._already_typed: dict[int, int] = {}
        self._listen = listen
        self._was_read = read
        self._ended = ended
        self._lost = lost
        self._typed = typed
        self._leg: Optional[Leg] = None
        self._held = False
        self._finishing = False
        self._batch: Optional[Batch] = None
        self._waiting: deque[Batch] = deque()

    @property
    def idle(self) -> bool:
        """Nothing is on its way and nobody waits."""
        return self._batch is None and not self._waiting

    @property
    def connected(self) -> bool:
        """Whether there is a leg to type to."""
        return self._leg is not None

    def resume(self, client: int, typed: int) -> None:
        """A worker that died had given the VM the first bytes of what this client has typed."""
        self._already_typed = {client: typed}

    def go_on(self, clients: Mapping[int, Client]) -> None:
        """Everything is here: finish the batch that a dead worker had begun before anything else goes out.

        Raises LegGone."""
        for number in tuple(self._already_typed):
            if number in clients:
                self.readable(clients[number])
        self._already_typed.clear()
        if self.idle:
            self._page.words[TYPIST] = 0

    def connect(self, leg: Optional[Leg]) -> None:
        """Type to this leg from now on; None holds everything until there is one."""
        self._leg = leg
        if leg is not None:
            leg.note_sending(self._page, self._progress)

    @property
    def _progress(self) -> int:
        """How much of the batch on its way is out."""
        if self._batch is not None:
            return self._batch.sent
        if self._waiting and self._waiting[0].sent:
            return self._waiting[0].sent
        return next(iter(self._already_typed.values()), 0)

    @property
    def typing(self) -> bool:
        """Whether a batch is on its way."""
        return self._batch is not None

    def has(self, client: Client) -> bool:
        """Whether something that this client has typed is on its way, or waits for it."""
        return any(batch is not None and batch.client is client for batch in [self._batch, *self._waiting])

    @property
    def held_bytes(self) -> int:
        """What has been taken from clients' sockets and is not yet with a VM; the rest is still in there."""
        batches = [batch for batch in [self._batch, *self._waiting] if batch is not None]
        return sum(len(batch.typed.wire) - batch.sent for batch in batches if not batch.typed.size)

    def finish(self) -> None:
        """Finish the batch on its way, and begin no other one."""
        self._finishing = True

    def hold(self) -> None:
        """Let nobody type: the batch on its way stops at the next whole byte."""
        self._held = True

    def release(self) -> None:
        """Let them type again; call ``pump`` next."""
        self._held = self._finishing = False

    def readable(self, client: Client, last: bool = False) -> None:
        """A client has typed, or has left; ``last``: it has closed its side. Raises LegGone."""
        typed = self._read(client, last)
        if typed is None:
            return
        if client.mode == "ro" or not typed.wire:
            self._drop(client, typed, self._already_typed.pop(client.number, 0))
            return
        client.note_typing()
        reached("typing.peeked")
        batch = Batch(client, typed, self._already_typed.pop(client.number, 0))
        if batch.sent:
            # It is the batch that a dead worker had begun: nothing may come between the halves of an escape.
            self._finish_escape(self._leg, batch)
            self._waiting.appendleft(batch)
        else:
            self._waiting.append(batch)
        if self._batch is None and len(self._waiting) == 1:
            try:
                self.pump()
            except LegGone:
                self._listen(client, False)  # what was read is not yet consumed, and must not be read again
                raise
        if self._batch is batch or batch in self._waiting:
            self._listen(client, False)  # nobody types ahead of what is still on its way

    def _drop(self, client: Client, typed: Typed, begun: int = 0) -> None:
        """Nobody gets this, but for the other half of an escape that a dead worker had begun."""
        if begun and self._leg is not None:
            self._finish_escape(self._leg, Batch(client, typed, begun))
            self._leg.flush()
        client.settle(typed)
        client.done(typed)

    def revoke(self, client: Client) -> None:
        """What a client has typed and nothing of which is out yet does not go out; the batch that is begun does."""
        kept = [batch for batch in self._waiting if batch.client is not client or batch.sent]
        dropped = [batch for batch in self._waiting if batch not in kept]
        self._waiting = deque(kept)
        begun = self._batch
        if begun is not None and begun.client is client and not begun.sent:
            self._page.words[TYPIST] = 0
            self._batch = None
            dropped.append(begun)
        for batch in dropped:
            self._drop(client, batch.typed)
            self._listen(client, True)

    def _read(self, client: Client, last: bool) -> Optional[Typed]:
        try:
            typed = client.read(last)
            self._was_read(client, 0 if typed is None else typed.size)
            return typed
        except InputEnded:
            self._ended(client)
        except (ClientGone, PeerError) as end:
            self._lost(client, str(end))
        return None

    def pump(self) -> None:
        """Go on: there is room, or a leg, or the hold is over. Raises LegGone."""
        while self._push() and self._waiting and not (self._held or self._finishing):
            self._begin(self._waiting.popleft())

    def _begin(self, batch: Batch) -> None:
        """Note whose batch it is before its first byte is out."""
        client = batch.client
        words = self._page.words
        if client is None or words[TYPIST] != client.number:
            words[TYPIST] = 0
        reached("typing.begin")
        if self._leg is not None:
            self._leg.begin_batch(batch.sent - len(self._leg.half))
        if client is not None:
            words[TYPED_FROM] = client.consumed()
            words[TYPIST] = client.number
        reached("typing.begun")
        self._batch = batch

    def _push(self) -> bool:
        """Send replies first, then the batch; whether the way is free. Raises LegGone."""
        leg = self._leg
        if leg is None:
            return False
        if not leg.flush() or not self._send_batch(leg):
            leg.want_room(True)
            return False
        leg.want_room(False)
        return True

    def _send_batch(self, leg: Leg) -> bool:
        batch = self._batch
        if batch is None or self._held:
            return True
        wire = batch.typed.wire
        if batch.sent < len(wire):
            batch.sent += leg.send(memoryview(wire)[batch.sent :], batch.number)
        if batch.sent < len(wire):
            self._finish_escape(leg, batch)
            return False
        self._batch = None
        self._typed(batch)
        reached("typing.sent")
        if batch.client is not None:
            batch.client.settle(batch.typed)
            reached("typing.settled")
            if not batch.client.counted:
                # Nobody could tell whether these bytes were consumed: sooner type them twice than never.
                self._page.words[IN_DOUBT] = 0 if batch.client.kind == ATTACH else batch.client.number
                self._page.words[TYPIST] = 0
                reached("typing.doubt")
            batch.client.done(batch.typed)
            self._page.words[IN_DOUBT] = 0
            reached("typing.done")
            if not batch.client.heard:
                self._listen(batch.client, True)
        self._page.words[TYPIST] = 0
        reached("typing.over")
        return True

    def _finish_escape(self, leg: Optional[Leg], batch: Batch) -> None:
        """Half an escape is out: its other half goes before anything else, on this leg; another one begins anew."""
        wire, at = batch.typed.wire, batch.sent
        run = 0
        while at - run > 0 and wire[at - run - 1] == IAC:
            run += 1
        if run % 2:
            batch.sent += 1
            if leg is not None:
                leg.cut(wire[at : at + 1], batch.number)
            reached("typing.half")

    def left(self, client: Client) -> None:
        """A client is gone. What it had begun to type is finished; the rest too, if there is a VM to type to."""
        for batch in [self._batch, *self._waiting]:
            if batch is not None and batch.client is client:
                batch.client = None
        if self._leg is None:
            self._waiting = deque(batch for batch in self._waiting if batch.client is not None)
