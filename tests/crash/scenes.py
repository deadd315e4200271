"""Which scene reaches which point: for each name of POINTS what has to happen on a console.

Owns the table ``SCENES``. A scene visits its points once and leaves the console as it found it, so that it can be
played again and again on one stage.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Callable

from tests.crash.moving import MOVES
from tests.crash.peers import CTL, RAW, TELNET, UNIX
from tests.crash.stage import Stage

Scene = Callable[[Stage, str], None]

STEADY = (
    "leg.peeked", "turn.parsed", "turn.replied", "turn.told", "leg.consume", "leg.consumed",
    "log.write", "log.wrote", "console.logged", "console.head",
    "client.send", "client.sent", "client.noted",
    "typing.peeked", "typing.begin", "typing.begun", "leg.send", "leg.sent", "leg.noted",
    "typing.sent", "typing.settled", "typing.doubt", "typing.done", "typing.over",
    "page.put", "page.force", "page.client",
)  # fmt: skip
ALONE = tuple(point for point in STEADY if point != "typing.doubt")
"""Those that one client over TCP reaches."""
RESUMING = (
    "resume.own", "resume.opened", "resume.leg", "resume.discarded", "resume.booked",
    "resume.client", "resume.resumed", "resume.begin", "resume.done",
)  # fmt: skip
ROTATING = ("log.rotate", "log.shifted", "log.renamed", "log.created")
FILLED = SMALL = 1 << 15
FILLINGS = 400
STUCK = 4  # turns in which nothing is taken


def steady(stage: Stage, point: str) -> None:
    """Everybody talks."""
    stage.crash(point)


def outside(stage: Stage, _point: str) -> None:
    """Somebody else kills it, anywhere."""
    stage.kill()


def loud(stage: Stage, point: str) -> None:
    """The VM says so much that its log is full before long."""
    stage.loud = 8
    stage.crash(point)
    stage.loud = 1


def again(stage: Stage, point: str) -> None:
    """It dies, again while another one goes on for it, and once more."""
    first, last = stage.chance.choice(ALONE), stage.chance.choice(ALONE)
    stage.crash(first, point, *([last] if last != first and stage.chance.random() < 0.5 else []))


def half(stage: Stage, point: str) -> None:
    """The VM does not read, and what it is given, full of doubled bytes, is cut anywhere."""
    if not stage.narrow:
        stage.narrow = True
        stage.drained()
        stage.dial()
        stage.quiet_vm = False
    guest, client = stage.guest, stage.clients[0]
    assert guest is not None
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    others = [other for other in stage.clients[1:] if other.types]
    for other in others:
        other.types = False
    stage.asking = False  # nobody reads the answers
    stage.arm(point)
    for _ in range(FILLINGS):
        guest.deaf = 1 << 30
        stuck = 0
        while stuck < STUCK and not stage.reached(point):
            client.type(FILLED, awkward=True)
            stuck = 0 if client.rush() else stuck + 1
            stage.turn()
        guest.deaf = 0
        if stage.reached(point):
            break
        stage.talk(stage.chance.randrange(1, 6))
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.recovered(point)
    stage.until(lambda: client.idle, "what was typed goes out")
    stage.asking = True
    for other in others:
        other.types = True


VISITORS = (RAW, TELNET, UNIX, CTL)


def comes(stage: Stage, point: str, who: Sequence[str] = VISITORS) -> None:
    """A client comes, hears something, types something and goes."""
    stage.arm(point)
    visitor = stage.join(stage.chance.choice(who), late=True)
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.recovered(point)
    _goes(stage, visitor)


def negotiates(stage: Stage, point: str) -> None:
    """A telnet client comes, and tells what it can."""
    comes(stage, point, (TELNET,))


def goes(stage: Stage, point: str) -> None:
    """A client was there and goes."""
    visitor = stage.join(stage.chance.choice(VISITORS), late=True)
    stage.arm(point)
    _goes(stage, visitor)
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.recovered(point)


def _goes(stage: Stage, visitor: object) -> None:
    client = next(client for client in stage.clients if client is visitor)
    enough = client.at + 3000
    stage.until(lambda: not client.late and client.at > enough, "the visitor hears something")
    client.type()
    client.types = False
    stage.until(
        lambda: client.idle and stage.shuffle.heard[client.number] == len(stage.shuffle.typed[client.number]),
        "what the visitor typed has arrived",
    )
    stage.leave(client)


def reboots(stage: Stage, point: str) -> None:
    """The VM's connection ends behind its last words; it dials again, and its clients are there."""
    stage.settle()
    stage.quiet = True
    stage.arm(point)
    stage.hang_up(last_words=3000)
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.until(lambda: stage.state() == "waiting", "the console knows that its VM is gone")
    stage.dial()
    stage.quiet = False
    stage.recovered(point)


def dials(stage: Stage, point: str) -> None:
    """The VM dials again, to a console whose clients have typed meanwhile."""
    stage.settle()
    stage.quiet = True
    stage.hang_up()
    stage.until(lambda: stage.state() == "waiting", "the console knows that its VM is gone")
    stage.quiet = False
    stage.talk(3)
    stage.arm(point)
    stage.dial()
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.recovered(point)


def fresh(stage: Stage, point: str) -> None:
    """A VM that nobody knows dials, and its console begins."""
    seed = str(stage.chance.random())
    with Stage(stage.daemon, stage.points, seed, (RAW, CTL), stage.tls, arming=(point,)) as other:
        other.check()
        stage.kills += other.kills


def dials_somehow(stage: Stage, point: str) -> None:
    """A VM dials: one whose console is there, or one that nobody knows."""
    stage.chance.choice((dials, fresh))(stage, point)


def replaces(stage: Stage, point: str) -> None:
    """The VM dials again from where it is, and its old connection is still there."""
    stage.drained()
    stage.arm(point)
    stage.dial()
    stage.quiet_vm = False
    stage.until(lambda: stage.reached(point), f"{point} is reached")
    stage.recovered(point)


SCENES: Mapping[str, Scene] = {
    **dict.fromkeys(STEADY, steady),
    **dict.fromkeys(RESUMING, again),
    **dict.fromkeys(ROTATING, loud),
    "leg.forget": steady,
    "typing.half": half,
    "client.attach": comes,
    "client.attached": comes,
    "client.told": negotiates,
    "client.detach": goes,
    **dict.fromkeys(("disconnect.begin", "disconnect.told"), reboots),
    "own.begin": fresh,
    **dict.fromkeys(
        ("claim.told", "connect.begin", "connect.told", "connect.booked", "connect.done"), dials_somehow
    ),
    **dict.fromkeys(("take.begin", "take.replaced", "take.told"), replaces),
    **MOVES,
}
