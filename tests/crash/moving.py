"""A VM that moves between hosts while the process of its console dies.

Owns the table ``MOVES``: at which step of a move each point lies. A move ends on the target, whatever dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from tests.crash.peers import Guest
from tests.crash.stage import Stage
from tests.system.vm import vmware
from tests.system.vmotion_vm import (
    HERE,
    THERE,
    VMOTION_BEGIN,
    VMOTION_GOAHEAD,
    VMOTION_PEER_OK,
    MovingVm,
)

BEGIN, SHOW, COMPLETE = "begin", "show", "complete"
STEPS = (BEGIN, SHOW, COMPLETE)


class Move:
    """One move of the VM of a stage; ``before(step)`` is called before each step."""

    def __init__(self, stage: Stage, before: Callable[[str], None]) -> None:
        self.stage = stage
        self._before = before
        self._sequence = stage.chance.randbytes(4)
        self._records = stage.moves()

    def go(self) -> None:
        """All of it."""
        target = self.join()
        self.complete(target)

    def join(self) -> MovingVm:
        """From BEGIN until the target is let in."""
        self._before(BEGIN)
        pair = self._begin()
        self._before(SHOW)
        return self._show(pair)

    def _begin(self) -> bytes:
        stage, source = self.stage, self.stage.guest
        assert source is not None
        stage.holding = True
        stage.speech.wire += vmware(VMOTION_BEGIN, self._sequence)
        stage.until(lambda: bool(source.said(VMOTION_GOAHEAD)), "GOAHEAD")
        stage.talk(stage.chance.randrange(6))
        return source.said(VMOTION_GOAHEAD)[0]

    def _show(self, pair: bytes) -> MovingVm:
        stage = self.stage
        assert stage.guest is not None
        target = stage.vm(THERE if stage.guest.vm.socket.getsockname()[0] == HERE else HERE)
        assert isinstance(target, MovingVm)
        target.name = stage.speech.name or target.name
        target.show(pair)
        target.until(lambda: target.admitted(self._sequence), "PEER-OK")
        stage.talk(stage.chance.randrange(6))
        return target

    def complete(self, target: MovingVm) -> None:
        """The VM runs on the target, behind the last words of the source."""
        stage, source = self.stage, self.stage.guest
        assert source is not None
        stage.drained()
        self._before(COMPLETE)
        stage.speech.go_on(stage.chance.randrange(6000), asking=False)
        assert not target.late
        target.complete(self._sequence)
        stage.replaced_by(Guest(target, stage.speech, stage.shuffle))
        assert len(source.said(VMOTION_GOAHEAD)) == 1
        assert target.vmware_codes().count(VMOTION_PEER_OK) == 1
        stage.holding = stage.quiet_vm = False
        # The target has told the console's name; what the source said of it since then is over.
        stage.speech.name = target.name
        stage.until(lambda: stage.moves() != self._records, "the move is recorded")
        outcome = stage.moves()[-1]["outcome"]
        assert outcome == "moved", outcome


def moves(*steps: str) -> Callable[[Stage, str], None]:
    """A scene: the point is armed before one of these steps."""

    def scene(stage: Stage, point: str) -> None:
        when = stage.chance.choice(steps)
        Move(stage, lambda step: stage.arm(point) if step == when else None).go()
        stage.until(lambda: stage.reached(point), f"{point} is reached")
        stage.recovered(point)

    return scene


def halfway(stage: Stage, point: str) -> None:
    """There are two legs, and the point lies in the usual traffic."""
    move = Move(stage, lambda _step: None)
    target = move.join()
    stage.crash(point)
    move.complete(target)
    stage.settle()


MOVES: Mapping[str, Callable[[Stage, str], None]] = {
    **dict.fromkeys(("move.action", "move.acted", "move.told"), moves(*STEPS)),
    **dict.fromkeys(("move.joins", "move.joined"), moves(SHOW)),
    **dict.fromkeys(("move.drained", "move.switched"), moves(COMPLETE)),
}
