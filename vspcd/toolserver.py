"""The control socket: what vspcctl asks, and what it is answered.

Does: reads requests, answers them, streams long answers a packet at a time.
Owns: the conversations.
Never: lets a tool that does not read hold up the master; serves anybody whom the socket's mode and group keep
out.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, Optional, Union

from vspcd import peers
from vspcd.core.rights import Who
from vspcd.handover import ConversationState, Packets
from vspcd.proto import control
from vspcd.proto.control import Message
from vspcd.proto.errors import LocalError, PeerError
from vspcd.unix import listen
from vspcd.unix.acceptor import Acceptor
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import Loop, Timer

NAME = "control.sock"
CONVERSATIONS = 200
LOOK_AGAIN = 0.02  # seconds until an answer that was not there yet
READ_WITHIN = 60.0
TEXT_LIMIT = 8000  # characters; a packet has room for them whatever they are

TURN, PART, MOST = 0.001, 0.05, 0.003
"""Seconds that a turn of the loop may spend on telling a list, however long it is. In a storm of VMs turns are long and
few: there it is a part of the last turn, and no more than the most."""

Packet = tuple[Union[dict[str, Any], bytes], list[socket.socket]]
Answer = Iterator[Optional[Packet]]
"""Packets with the sockets that go with them; None: not yet. The last one has ``end`` set; bytes are one before it that
is encoded already."""

Handlers = Mapping[str, Callable[[Message, Who], Answer]]
"""By request: called with the message and who asks."""


class Refusal(Exception):
    """A request that cannot be granted: ``code`` for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def listener(directory: int, mode: int, group: Optional[int]) -> socket.socket:
    """The control socket. Raises OSError."""
    return listen.unix(directory, NAME, mode, group, socket.SOCK_SEQPACKET)


class ToolServer:
    """``directory`` is an open descriptor of the run directory, ``listener`` the control socket there."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        directory: int,
        listener: socket.socket,
        handlers: Handlers,
    ) -> None:
        self.listener = listener
        self._loop = loop
        self._directory = directory
        self._handlers = handlers
        self._conversations: dict[Conversation, None] = {}  # the oldest first
        self._acceptor = Acceptor(loop, log, "control", listener, self._came)

    def give_access(self, mode: int, group: Optional[int]) -> None:
        """Let these use the control socket from now on. Raises OSError."""
        listen.give_access(self._directory, NAME, mode, group)

    @property
    def quiet(self) -> bool:
        """Whether nobody is in the middle of an answer, but those that wait for something."""
        return all(each.lasting is not None for each in self._conversations)

    def lasting(self) -> list[ConversationState]:
        """The conversations that another version can go on with."""
        found = (each.lasting for each in self._conversations)
        return [each for each in found if each is not None]

    def inherit(self, state: ConversationState, answer: Optional[Answer]) -> None:
        """Go on with a conversation; with an answer, if the tool waits for one."""
        sock = socket.socket(fileno=state.fd)
        conversation = self._begin(sock)
        if answer is not None:
            conversation.answer(answer, state.request or {})

    def _came(self, sock: socket.socket, _peer: str) -> None:
        if len(self._conversations) >= CONVERSATIONS and not self._dismiss_one():
            sock.close()
            return
        self._begin(sock)

    def _begin(self, sock: socket.socket) -> Conversation:
        conversation = Conversation(self._loop, sock, self._handlers, self._over)
        self._conversations[conversation] = None
        return conversation

    def _over(self, conversation: Conversation) -> None:
        self._conversations.pop(conversation, None)

    def _dismiss_one(self) -> bool:
        """End the conversation of whoever has asked for nothing, the longest: else some could keep all others out."""
        idle = next((each for each in self._conversations if not each.busy), None)
        if idle is not None:
            idle.close()
        return idle is not None

    def close(self) -> None:
        """Nobody can ask any more."""
        self._acceptor.close()
        listen.remove(self._directory, NAME)
        for conversation in tuple(self._conversations):
            conversation.close()


class Conversation:
    """One tool's connection: a request, its answer, the next request."""

    def __init__(
        self, loop: Loop, sock: socket.socket, handlers: Handlers, over: Callable[[Conversation], None]
    ) -> None:
        self._who = peers.behind(sock)
        self._loop = loop
        self._handlers = handlers
        self._over = over
        self._answer: Optional[Answer] = None
        self._request: Message = {}
        self._waiting = False
        self._patience: Optional[Timer] = None  # with a tool that does not read
        self._channel = Channel(sock)
        self._channel.serve(loop, self._received, self.close)

    def _received(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        if self._answer is not None:
            self.close()  # it did not wait for the end of the answer
            return
        try:
            kind = control.check(message, control.TOOL, control.OWNER, len(fds))
            self.answer(self._handlers[kind](message, self._who), message)
        except PeerError as fault:
            self.answer(refused("bad-request", str(fault)), message)

    @property
    def lasting(self) -> Optional[ConversationState]:
        """What another version needs to go on; None in the middle of an answer."""
        if self._channel.fileno() < 0 or self._channel.backlog:
            return None
        if self._answer is None:
            return ConversationState(Packets(self._channel.fileno()), None)
        return ConversationState(Packets(self._channel.fileno()), self._request) if self._waiting else None

    @property
    def busy(self) -> bool:
        """Whether the tool waits for an answer, or for the rest of one."""
        return self._answer is not None

    def answer(self, answer: Answer, request: Message) -> None:
        """Answer this request."""
        self._answer, self._request = answer, request
        self._continue()

    def _continue(self) -> None:
        """Send the next packet, and come back for the one after it when others have had their turn."""
        if self._answer is None or self._channel.sock.fileno() < 0:
            return
        if self._channel.backlog:
            self._wait_for_reader()
            return
        try:
            following = next(self._answer)
        except Refusal as refusal:
            following = (refusal_packet(refusal.code, str(refusal)), [])
        except LocalError as error:
            following = (refusal_packet("too-big", f"the answer cannot be told: {error}"), [])
        self._waiting = following is None
        if following is None:
            self._loop.call_later(LOOK_AGAIN, self._continue)
            return
        packet, socks = following
        try:
            self._channel.send(packet, [sock.fileno() for sock in socks])
        except (ChannelClosed, OSError, LocalError):
            self.close()
            return
        finally:
            for sock in socks:
                sock.close()
        if isinstance(packet, dict) and packet.get("end"):
            answer, self._answer = self._answer, None
            # What an answer does after its last packet, it does when that packet is out.
            self._loop.call_later(0, lambda: _finish(answer))
        else:
            self._loop.call_later(0, self._continue)

    def _wait_for_reader(self) -> None:
        self._patience = self._loop.call_later(READ_WITHIN, self.close)
        self._channel.when_room(self._has_read)

    def _has_read(self) -> None:
        self._end_patience()
        self._loop.call_later(0, self._continue)

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def close(self) -> None:
        """The tool has gone, or has to go."""
        self._answer = None
        self._end_patience()
        self._channel.close()
        self._over(self)


def _finish(answer: Optional[Answer]) -> None:
    for _ in answer or ():
        pass  # nothing is sent behind the end


def refusal_packet(code: str, text: str) -> dict[str, Any]:
    """What a tool is told when its request is not granted."""
    if len(text) > TEXT_LIMIT:
        text = f"{text[:TEXT_LIMIT]}..."
    return {"type": "error", "code": code, "message": text, "end": True}


def listed(kind: str, key: str, items: Iterable[Optional[dict[str, Any]]]) -> Answer:
    """Packets with a list each: as many items as one takes, or as are found in a turn's share. None is left out."""
    listing, until = control.Listing(kind, key), time.monotonic() + TURN
    for item in items:
        text = b"" if item is None else control.encoded(item)
        fits = not text or listing.take(text)
        now = time.monotonic()
        if not fits or now >= until:
            yield listing.packet(), []
            until = time.monotonic() + share(time.monotonic() - now)
        if not fits:
            listing.take(text)
    yield listing.packet(), []


def share(turn: float) -> float:
    """Seconds that an answer may take of a turn, when the last one took so many."""
    return min(max(TURN, turn * PART), MOST)


def refused(code: str, text: str) -> Answer:
    """An answer that is a refusal."""
    yield refusal_packet(code, text), []
