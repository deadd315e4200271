"""In what circumstances a point is reached: with a log or without, one client or many, over TLS, with two legs.

Owns the table ``VARIANTS`` and the daemons that it needs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from tests.crash.masters import MASTERS
from tests.crash.moving import halfway
from tests.crash.negotiating import BALANCED, ENCRYPTED, NEGOTIATING, begins
from tests.crash.peers import RAW
from tests.crash.scenes import ALONE, RESUMING, ROTATING, SCENES, STEADY, Scene
from tests.crash.stage import EVERYBODY, Stage
from tests.system import processes
from tests.system.daemon import Daemon
from tests.system.tls_peers import self_signed

LOGGED = ("log.max_size=128K", "log.keep=4000", "clients.replay=0")
TIGHT = ("log.max_size=48K", *LOGGED[1:])
UNLOGGED = ("log.dir=off", "clients.replay=0")
WITHOUT_LOG = tuple(point for point in SCENES if not point.startswith("log."))
ALL: Mapping[str, Scene] = {**SCENES, **MASTERS}
ROUND = "many"
"""The variant that goes to every point of a worker."""
TWO_LEGS = tuple(point for point in STEADY if not point.startswith("typing."))


class Variant(NamedTuple):
    """``share``: how much of a point's kills belongs here, beside those of other variants; ``scene``: instead of the
    usual one."""

    name: str
    points: Sequence[str]
    share: float
    settings: tuple[str, ...] = LOGGED
    who: Sequence[str] = EVERYBODY
    tls: bool = False
    scene: Optional[Scene] = None


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(ROUND, tuple(SCENES), 0.4),
        Variant("rotating", (*ROTATING, *STEADY, *RESUMING), 0.2, TIGHT),
        Variant("one", (*ALONE, *RESUMING), 0.1, who=(RAW,)),
        Variant("unlogged", WITHOUT_LOG, 0.1, UNLOGGED),
        Variant("tls", (*STEADY, *RESUMING), 0.1, tls=True),
        Variant("moving", TWO_LEGS, 0.1, scene=halfway),
        Variant("master", tuple(MASTERS), 0.1),
        Variant("negotiating", tuple(NEGOTIATING), 0.1, (*LOGGED, BALANCED), (RAW,), scene=begins),
        Variant("negotiating tls", ENCRYPTED, 0.1, (*LOGGED, BALANCED), (RAW,), tls=True, scene=begins),
    )
}


class FailingDaemon(Daemon):
    """The real daemon, whose processes fail where a file is put into ``points``."""

    def __init__(self, variant: Variant) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vspcd-"))
        tls = self_signed(self._folder, "vspcd").settings if variant.tls else ()
        super().__init__(self._folder, *variant.settings, *tls)
        self.variant = variant
        self.points = self._folder / "points"
        self.points.mkdir()
        self.environment = {"VSPCD_FAILPOINTS": str(self.points)}

    def visit(self, points: Sequence[str], seed: str, kills: int = 1) -> Stage:
        """So many visits to each point, on a console of their own, and everything compared at the end."""
        with Stage(self, self.points, seed, self.variant.who, self.variant.tls) as stage:
            for point in points:
                for _ in range(kills):
                    self._visit_once(stage, point)
            stage.check()
        return stage

    def _visit_once(self, stage: Stage, point: str) -> None:
        scene = self.variant.scene or ALL[point]
        try:
            scene(stage, point)
        except AssertionError as error:
            raise AssertionError(f"at {point}, after {len(stage.kills)} kills: {error}") from error

    def end(self) -> None:
        if self.process is not None:
            processes.kill(self.pid)
        self.clean_up()
        shutil.rmtree(self._folder, ignore_errors=True)
