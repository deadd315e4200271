"""The vMotion of one serial port, as a table of states and events.

Does: says what follows from each event while a VM moves from one host to another, and what is to be done.
Owns: the current state.
Never: touches a connection or a clock; the worker carries the actions out and turns time into events.

The source announces the move (BEGIN) and gets a secret (GOAHEAD). The target shows it (PEER) and says when the VM runs
there (COMPLETE). Between GOAHEAD and COMPLETE nobody types; what the source still says goes to everybody. An event that
the table does not have in a state has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# States.
IDLE = "idle"
DELIVERING = "delivering"  # what was typed before is on its way to the source
MOVING = "moving"  # GOAHEAD is out, the target is awaited
JOINED = "joined"  # the target has shown its pair
FLUSHING = "flushing"  # the VM runs on the target; the source's last bytes come before the target's first

# Events.
BEGIN = "begin"
DELIVERED = "delivered"
TOO_SLOW = "too slow"
PEER = "peer"
COMPLETE = "complete"
ABORT = "abort"
SOURCE_GONE = "source gone"
TARGET_GONE = "target gone"
EXPIRED = "expired"
FLUSHED = "flushed"

# Actions.
START = "start"  # begin a record, finish the batch that is being typed, watch it drain
NOTNOW = "notnow"  # tell the source that it takes too long
GOAHEAD = "goahead"  # make the pair known, tell the source, hold typing
PEER_OK = "peer ok"  # greet the target
REVOKE = "revoke"  # the pair is worth nothing any more
RELEASE = "release"  # let them type to the source again
GIVE_UP = "give up"  # the same if the source is there; else the VM is gone
DROP_TARGET = "drop target"
SOURCE_LEFT = "source left"  # its connection is over, the console is not
TYPE_TO_TARGET = "type to target"  # what was held goes first
SWITCH = "switch"  # the target's bytes from now on
DISCONNECT = "disconnect"  # the VM is gone
RECORD = "record"  # note how it went

Step = tuple[str, tuple[str, ...]]

TABLE: Mapping[tuple[str, str], Step] = {
    (IDLE, BEGIN): (DELIVERING, (START,)),
    (DELIVERING, BEGIN): (DELIVERING, (START,)),
    (DELIVERING, DELIVERED): (MOVING, (GOAHEAD,)),
    (DELIVERING, TOO_SLOW): (IDLE, (NOTNOW, RELEASE, RECORD)),
    (DELIVERING, ABORT): (IDLE, (RELEASE, RECORD)),
    (DELIVERING, SOURCE_GONE): (IDLE, (RECORD, DISCONNECT)),
    (MOVING, BEGIN): (DELIVERING, (REVOKE, START)),
    (MOVING, PEER): (JOINED, (PEER_OK,)),
    (MOVING, ABORT): (IDLE, (REVOKE, RELEASE, RECORD)),
    (MOVING, SOURCE_GONE): (MOVING, (SOURCE_LEFT,)),
    (MOVING, EXPIRED): (IDLE, (REVOKE, RECORD, GIVE_UP)),
    (JOINED, BEGIN): (DELIVERING, (DROP_TARGET, START)),
    (JOINED, COMPLETE): (FLUSHING, (TYPE_TO_TARGET,)),
    (JOINED, ABORT): (IDLE, (DROP_TARGET, RELEASE, RECORD)),
    (JOINED, SOURCE_GONE): (JOINED, (SOURCE_LEFT,)),
    (JOINED, TARGET_GONE): (IDLE, (RECORD, GIVE_UP)),
    (JOINED, EXPIRED): (IDLE, (DROP_TARGET, RECORD, GIVE_UP)),
    (FLUSHING, SOURCE_GONE): (IDLE, (SWITCH, RECORD)),
    (FLUSHING, FLUSHED): (IDLE, (SWITCH, RECORD)),
    (FLUSHING, TARGET_GONE): (IDLE, (SWITCH, RECORD, DISCONNECT)),
}

OUTCOMES: Mapping[str, str] = {
    TOO_SLOW: "not now: the VM does not take what was typed",
    ABORT: "aborted by the source",
    EXPIRED: "expired: it never ended",
    TARGET_GONE: "the target's connection was lost",
    SOURCE_GONE: "the source's connection was lost",
}
"""How a move ended, by its last event, when the VM did not reach the target."""

MOVED = "moved"


class Vmotion:
    """The state of one console's vMotion."""

    def __init__(self) -> None:
        self.state = IDLE

    def step(self, event: str) -> tuple[str, ...]:
        """Take an event; the actions that follow from it, in order. None do when it has no place in this state."""
        self.state, actions = TABLE.get((self.state, event), (self.state, ()))
        return actions

    @property
    def under_way(self) -> bool:
        """Whether the VM is about to move."""
        return self.state != IDLE


@dataclass
class MoveRecord:
    """What is kept of a move: hosts, milliseconds of each step since BEGIN, bytes held, the outcome."""

    source: str
    begun: float
    target: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    held: int = 0
    outcome: str = ""

    def as_dict(self) -> dict[str, object]:
        """The record for messages, the log and status. Times are milliseconds, ``when`` is Unix time."""
        steps = {f"{name}_ms": round(elapsed * 1000, 1) for name, elapsed in self.steps.items()}
        return {
            "when": round(self.begun, 3),
            "from": self.source,
            "to": self.target,
            **steps,
            "held": self.held,
            "outcome": self.outcome,
        }
