"""VMs that nobody knows yet, and whose processes die before their console is known.

Does: lets a VM say all it has to say at once, cut anywhere: options, console bytes, questions, who it is. What it hears
must be, byte for byte, what another one has heard that said the same and whose processes lived; what it said must be in
its log; and it stays at its one connection.
Owns the lists of points that are reached on the way.
"""

from __future__ import annotations

import random
import select
import time
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from tests.crash.peers import CUT_AT, Dropped, received, taken
from tests.crash.stage import PATIENCE, TURN, Kill, Stage
from tests.crash.wire import Speech, cut
from tests.system.clients import TcpClient
from tests.system.tls_peers import BalancedVm, TlsVm, version_1, version_2
from tests.system.vm import (
    ALL_KNOWN,
    AUTHENTICATION,
    BINARY,
    DO,
    DO_PROXY,
    ECHO,
    KNOWN_1,
    NAME,
    SGA,
    UNKNOWN_2,
    VC_UUID,
    VMWARE,
    WILL,
    FakeVm,
    option,
    uuid_text,
    vmware,
)
from tests.system.vmotion_vm import VMOTION_PEER
from tests.system.wait import Late, until

BALANCER = "127.0.0.50"
BALANCED = f"proxy.balancers=[{BALANCER}/32]"
HOST, TARGET = ("10.1.2.3", 4711), ("10.9.9.9", 13370)
TLS, PROXY = "tls", "proxy"

LAST = 199  # the last question of a VM
EARLY = (0, 40, 700, 2500)  # console bytes before it is known whose they are; less than 8192 in all
MUCH = 2500  # more than the kernel is made to keep
DEATHS = 3
COUNTED, ASIDE = "negotiate.counted", "negotiate.aside"
FORGETTING = ("negotiate.told", "leg.consume", "leg.forget", "leg.consumed")

ANYWHERE = (
    "leg.peeked", "turn.parsed", "turn.replied", "turn.told", "leg.send", "leg.sent", "leg.noted",
    "page.put", "page.force", "leg.consume", "leg.forget", "leg.consumed",
    "connect.begin", "connect.told", "connect.booked", "connect.done",
)  # fmt: skip


class Story(NamedTuple):
    """What a VM says, before and behind its identity, and how it comes. ``said``: the console's bytes of that."""

    before: bytes
    behind: bytes
    said: bytes
    means: frozenset[str]
    silent: bool

    def wire(self, uuid: str) -> bytes:
        """All of it."""
        return self.before + vmware(VC_UUID, uuid_text(uuid)) + self.behind


def told(
    chance: random.Random, means: frozenset[str], early: int, stranger: bool = False, silent: bool = False
) -> Story:
    """A story that nobody has heard yet."""
    speech = Speech(chance)
    speech.wire += option(WILL, AUTHENTICATION) if chance.random() < 0.5 else b""
    speech.wire += option(DO, BINARY, SGA, ECHO) + option(WILL, BINARY, SGA, VMWARE)
    speech.go_on(early)
    speech.wire += vmware(KNOWN_1, ALL_KNOWN)
    if stranger:
        speech.wire += vmware(VMOTION_PEER, chance.randbytes(12))
    speech.go_on(min(early, chance.choice(EARLY)))
    speech.wire += vmware(DO_PROXY, b"SvSPC.py")
    before = bytes(speech.wire)
    speech.wire.clear()
    speech.go_on(chance.choice(EARLY))
    speech.wire += vmware(NAME, b"early") + vmware(LAST)
    return Story(before, bytes(speech.wire), bytes(speech.said), means, silent)


class Newcomer:
    """A VM that nobody knows, and that never waits for an answer."""

    def __init__(self, stage: Stage, story: Story) -> None:
        self.stage = stage
        self.story = story
        self.heard = bytearray()
        self.vm = self._dialled()
        self._left = bytearray(story.wire(self.vm.uuid))
        self._piece = b""
        self.vm.socket.setblocking(False)

    def _dialled(self) -> FakeVm:
        means, chance = self.story.means, self.stage.chance
        header, source = b"", "127.0.0.1"
        if PROXY in means:
            header, source = chance.choice((version_1, version_2))(HOST, TARGET), BALANCER
        sort = TlsVm if TLS in means else BalancedVm
        return sort(self.stage.daemon.proxy, header=header, source=source, uuid=str(uuids.uuid4()))

    def until(self, test: Callable[[], bool], what: str) -> None:
        """Go on until it is so."""
        end = time.monotonic() + PATIENCE
        while not test():
            if time.monotonic() > end:
                raise Late(f"waited {PATIENCE:g} s in vain: {what}; it has heard {bytes(self.heard)!r}")
            self._say()
            select.select([self.vm.socket], [], [], TURN)
            self._listen()

    def _say(self) -> None:
        if not self._piece and self._left and not (self.story.silent and not self.asked):
            self._piece = bytes(self._left[: cut(self._left, self.stage.chance, CUT_AT)])
        if self._piece:
            size = taken(self.vm.socket, self._piece)
            del self._left[:size]
            self._piece = self._piece[size:]

    def _listen(self) -> None:
        while (chunk := received(self.vm.socket)) is not None:
            if not chunk:
                raise Dropped("the VM is hung up on")
            self.heard += chunk

    @property
    def asked(self) -> bool:
        """Whether it was asked for the extension."""
        return option(DO, VMWARE) in self.heard

    @property
    def done(self) -> bool:
        """Whether it has the answer to its last question."""
        return not self._left and self.heard.endswith(vmware(UNKNOWN_2, bytes([LAST])))

    def check(self) -> None:
        """Its log has what it said, and who is on its console sees what it says next."""
        daemon, story = self.stage.daemon, self.story
        port, console = daemon.port(self.vm.uuid), daemon.console(self.vm.uuid)
        peer, log = console["peer"], Path(console["log"])
        assert peer == ("10.1.2.3:4711" if PROXY in story.means else self.vm.address), peer
        until(lambda: log.stat().st_size >= len(story.said), f"{len(story.said)} bytes are logged")
        with TcpClient(port) as client:
            client.send(b"typed")
            self.until(lambda: self.heard.endswith(b"typed"), "what is typed arrives")
            self.vm.socket.setblocking(True)
            self.vm.send(b"more\xff")
            assert client.read(5) == b"more\xff"
        assert log.read_bytes() == story.said + b"more\xff"


def hears(stage: Stage, story: Story, points: Sequence[str] = ()) -> bytes:
    """What a VM hears that comes with this story, while processes die at these points."""
    for number, point in enumerate(points):
        failure = "segfault" if not number and stage.chance.random() < 0.3 else "kill"
        (stage.points / point).write_text(failure)
    begun = time.monotonic()
    newcomer = Newcomer(stage, story)
    try:
        newcomer.until(lambda: newcomer.done and stage.reached(*points), f"the negotiation is over: {points}")
        if points:
            stage.kills.append(Kill(tuple(points), time.monotonic() - begun))
        stage.bytes += len(story.said)
        newcomer.check()
    finally:
        newcomer.vm.close()
    return bytes(newcomer.heard)


def story_for(stage: Stage, point: str) -> Story:
    """One in which this point is reached."""
    chance = stage.chance
    means = {TLS} if stage.tls and (point == "negotiate.tls" or chance.random() < 0.6) else set()
    if point == "negotiate.source" or chance.random() < 0.4:
        means.add(PROXY)
    early = MUCH if point in FORGETTING else 0 if point == "leg.held" else chance.choice(EARLY)
    stranger = point == "negotiate.stranger" or chance.random() < 0.2
    silent = point == "negotiate.asked" or chance.random() < 0.1
    return told(chance, frozenset(means), early, stranger, silent)


def negotiates(stage: Stage, point: str) -> None:
    """One lives, the other one has processes that die: both hear the same."""
    stage.settle()
    story = story_for(stage, point)
    expected = hears(stage, story)
    # A worker that dies behind connect.told has an heir that does not go there again.
    later = point in ("connect.booked", "connect.done")
    again = stage.chance.choice((point, COUNTED, "connect.begin", point if later else "connect.told"))
    heard = hears(stage, story, [point] if again == point else [point, again])
    assert heard == expected, f"the VM hears\n{heard!r} instead of\n{expected!r}, with {story}"


def poisons(stage: Stage, point: str) -> None:
    """What it says kills everybody who looks at it, and its bytes are put aside whatever dies then."""
    stage.settle()
    log = Path(stage.daemon.console(stage.id)["log"]).parent
    before = set(log.glob("unidentified.quarantine.*"))
    story = told(stage.chance, frozenset(), early=0)
    (stage.points / COUNTED).write_text(f"segfault {DEATHS}")
    stage.arm(point)
    begun = time.monotonic()
    newcomer = Newcomer(stage, story)
    said = bytes(newcomer._left[:100])
    newcomer._left = bytearray(said)
    try:
        newcomer.until(lambda: stage.reached(point, COUNTED), f"{point} is reached")
    except Dropped:
        pass
    newcomer.vm.close()
    stage.kills.append(Kill((point,), time.monotonic() - begun))
    until(lambda: stage.daemon.status()["totals"]["pending"] == 0, "nobody negotiates any more")
    # A worker that dies behind its file leaves the rest to another one, and that to a later file.
    files = sorted(set(log.glob("unidentified.quarantine.*")) - before)
    kept = b"".join(path.read_bytes() for path in files)
    assert kept, "nothing was put aside"
    assert said.startswith(kept), f"{kept!r} was put aside of {said!r}"
    hears(stage, story)


NEGOTIATION = (
    "negotiate.begin", COUNTED, "negotiate.told", "negotiate.asked", "negotiate.stranger", "negotiate.source",
    "leg.held", "claim.told", "own.begin",
)  # fmt: skip
NEGOTIATING = (*NEGOTIATION, ASIDE, *ANYWHERE)
ENCRYPTED = ("negotiate.tls", *NEGOTIATION, *ANYWHERE)


def begins(stage: Stage, point: str) -> None:
    """A VM comes that nobody knows."""
    (poisons if point == ASIDE else negotiates)(stage, point)
