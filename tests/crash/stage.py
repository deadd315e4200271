"""One console of the real daemon, everybody on it, and the points at which its process is made to die.

Does: keeps the VM speaking and the clients typing in turns, arms points, waits until they have been reached and until
the console goes on, compares everything byte for byte.
Owns: the connections; the daemon is its caller's.
Never: waits for one of them while another one could go on.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from tests.crash import kinds, peers
from tests.crash.peers import CTL, RAW, TELNET, UNIX, Client, Guest, NarrowVm, Seat
from tests.crash.shuffle import Shuffle
from tests.crash.wire import Speech
from tests.system import processes
from tests.system.daemon import Daemon, Json
from tests.system.tls_peers import TlsVm
from tests.system.vm import GET_BIOS_UUID, GET_LOCATION_UUID, FakeVm
from tests.system.vmotion_vm import HERE, MovingVm
from tests.system.wait import Late

TURN = 0.001
PATIENCE = 30.0
BACKLOG = 1 << 20  # the VM waits when nobody has seen what it said so long ago
UNLOGGED_BACKLOG = 128 << 10  # half of what a client may lag by
LAGGER, LISTENER = "lagger", "listener"
EVERYBODY = (RAW, TELNET, UNIX, CTL, LAGGER, LISTENER)
WELL = ("worker-given-up", "worker-not-replaced", "out of turn", "Traceback", "log-trouble")
"""What the daemon's log must not say."""


class Kill(NamedTuple):
    """A visit: the points, and seconds from the kill until the console went on."""

    points: tuple[str, ...]
    recovery: float


class Stage:
    """``seed`` names everything that happens by chance; ``who`` is on the console from the beginning."""

    def __init__(
        self,
        daemon: Daemon,
        points: Path,
        seed: str,
        who: Sequence[str] = EVERYBODY,
        tls: bool = False,
        arming: Sequence[str] = (),
    ) -> None:
        self.daemon = daemon
        self.points = points
        self.chance = random.Random(seed)
        self.shuffle = Shuffle()
        self.speech = Speech(self.chance)
        self.tls = tls
        self.narrow = False
        self.loud = 1  # pieces that the VM says in a turn
        self.asking = True
        self.quiet = self.quiet_vm = False
        self.holding = False  # nobody's typing arrives, as during a move
        self.clients: list[Client] = []
        self.kills: list[Kill] = []
        self.bytes = 0
        self._stack = ExitStack()
        self._proxy = daemon.proxy
        self._log_begins = len(daemon.log())
        self._seats: dict[str, int] = {}
        self._gone: list[Guest] = []
        self.guest: Optional[Guest] = None
        self.uuid: Optional[str] = None
        self.arm(*arming)
        vm = self._dialled(self.vm())
        self.uuid, self.id = vm.uuid, vm.console
        found = daemon.wait_console(
            vm.console, lambda c: bool(c["socket"] and c["name"]), "is named and open"
        )
        self.port, self.path = ("127.0.0.1", int(found["port"])), str(found["socket"])
        self.control = str(daemon.root / "run" / "control.sock")
        self.log = Path(found["log"]) if found["log"] else None
        self.guest = Guest(vm, self.speech, self.shuffle)
        self._who = who
        for kind in who:
            self.join(kind)
        self._everybody_is_there()
        self.talk(10)
        if arming:
            assert self.reached(*arming), f"{arming} are not reached"
            self.recovered(*arming)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for point in self.points.iterdir():
            point.unlink(missing_ok=True)

    # Everybody on it.

    def _everybody_is_there(self) -> None:
        """Who is heard at the VM is attached, and sees what is said from now on."""
        for client in self.clients:
            client.type()
        self.quiet_vm = True
        self.until(lambda: self.shuffle.complete, "everybody is attached")
        self.quiet_vm = False

    def everybody_again(self) -> None:
        """All connections were lost; everybody had heard everything."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        assert self.guest is not None
        self.guest.vm.close()
        self.guest = None
        self._proxy = self.daemon.proxy
        self.dial()
        found = self.daemon.wait_console(self.id, lambda c: bool(c["socket"]), "takes clients")
        self.port = ("127.0.0.1", int(found["port"]))
        for kind in self._who:
            self.join(kind)
        self._everybody_is_there()

    def vm(self, source: str = HERE) -> FakeVm:
        """A connection of the VM, which has said nothing yet."""
        sort: Callable[..., FakeVm] = TlsVm if self.tls else NarrowVm if self.narrow else MovingVm
        vm = sort(self._proxy, uuid=self.uuid, source=source)
        return self._stack.enter_context(vm)

    def _dialled(self, vm: FakeVm) -> FakeVm:
        vm.handshake()
        asked = {GET_BIOS_UUID, GET_LOCATION_UUID}
        vm.until(lambda: asked <= set(vm.vmware_codes()), "is asked for all it knows of itself")
        return vm

    def dial(self) -> None:
        """The VM dials again. What its old connection was told came before."""
        vm = self.vm()
        vm.name = self.speech.name or vm.name
        if self.guest is not None:
            self._gone.append(self.guest)
            self.guest = None
        self._dialled(vm)
        self.until(lambda: not self._gone, "the old connection is over")
        self.guest = Guest(vm, self.speech, self.shuffle)

    def drained(self) -> None:
        """The VM has said what it says at this connection, and has its answers."""
        self.quiet_vm = True
        self.until(lambda: not self.speech.wire and not self.speech.due, "the VM is answered")

    def hang_up(self, last_words: int = 0) -> None:
        """The VM's host closes behind the VM's last words."""
        assert self.guest is not None
        if last_words:
            self.speech.go_on(last_words, asking=False)
        self.guest.leave()
        self._gone.append(self.guest)
        self.guest = None

    def replaced_by(self, guest: Guest) -> None:
        """The VM runs elsewhere; the host where it was closes behind its last words."""
        self.hang_up()
        self.until(lambda: not self._gone, "the source's connection is over")
        self.guest = guest

    def join(self, who: str, late: bool = False) -> Client:
        """Somebody comes: a kind of client, or one with a habit."""
        client = self._joined(who, self._seat(who, late))
        self._stack.callback(client.close)
        self.clients.append(client)
        return client

    def _seat(self, who: str, late: bool) -> Seat:
        """Visitors of one kind have one seat, one after the other."""
        since = min((client.at for client in self.clients), default=0) if late else len(self.speech.said)
        name = f"{who} visitor" if late else who
        if who == LISTENER:
            return Seat(self.shuffle, self.chance, -1, since, late=True)
        if name not in self._seats:
            self._seats[name] = self.shuffle.join(repeatable=who == UNIX)
        return Seat(self.shuffle, self.chance, self._seats[name], since, late)

    def _joined(self, who: str, seat: Seat) -> Client:
        if who in (RAW, LAGGER):
            return kinds.raw(self.port, seat, small=who == LAGGER)
        if who == TELNET:
            return kinds.telnet(self.port, seat)
        if who == UNIX:
            return kinds.unix(self.path, seat)
        return kinds.ctl(self.control, self.id, seat, types=who == CTL)

    def leave(self, client: Client) -> None:
        """A visitor goes."""
        self.clients.remove(client)
        client.close()

    # The traffic.

    def turn(self) -> None:
        """Everybody says a little, types a little and takes what is there."""
        speaks = not (self.quiet or self.quiet_vm) and self.guest is not None
        if speaks and self._seen_enough() and len(self.speech.wire) < 2000 * self.loud:
            self.speech.go_on(1500 * self.loud, self.asking)
        for client in self.clients:
            if not self.quiet and self.chance.random() < 0.3:
                client.type()
            client.send()
        if self.guest is not None:
            for _ in range(self.loud):
                self.guest.speak()
            self._listen_guest(self.guest)
        self._gone = [guest for guest in self._gone if not guest.gone()]
        awake = [client for client in self.clients if not client.asleep]
        for client in self.clients:
            client.asleep = max(0, client.asleep - 1)
        ready = select.select([client.socket for client in awake], [], [], TURN)[0]
        for client in awake:
            if client.socket in ready:
                client.listen(self.speech.said)

    def _seen_enough(self) -> bool:
        """Whether the VM may go on. Without a log it waits for the last of them, for the daemon keeps little then."""
        said = len(self.speech.said)
        seen = [client.at for client in self.clients if not client.late]
        if self.log is None:
            return said - min(seen, default=said) < UNLOGGED_BACKLOG
        return said - max(seen, default=said) < BACKLOG

    def _listen_guest(self, guest: Guest) -> None:
        if guest.deaf:
            guest.deaf -= 1
        else:
            guest.listen()

    def talk(self, turns: int) -> None:
        """A while of traffic."""
        for _ in range(turns):
            self.turn()

    def until(self, test: Callable[[], bool], what: str, pause: float = 0.0) -> None:
        """Traffic until it is so, with a pause after each turn when others need the processor."""
        end = time.monotonic() + PATIENCE
        while not test():
            if time.monotonic() > end:
                raise Late(f"waited {PATIENCE:g} s in vain: {what}; {self.told()}")
            self.turn()
            if pause:
                time.sleep(pause)

    # The kills.

    def arm(self, *points: str) -> None:
        """The last one first: who goes on after the death at the first one must find it."""
        for point in reversed(points):
            (self.points / point).touch()

    def reached(self, *points: str) -> bool:
        """Whether all these points have killed somebody."""
        return not any((self.points / point).exists() for point in points)

    def crash(self, *points: str) -> None:
        """Let the process die at these points, in whatever order it comes there, and see the console go on."""
        self.vary()
        self.arm(*points)
        self.until(lambda: self.reached(*points), f"{points} are reached")
        self.recovered(*points)

    def kill(self) -> None:
        """Kill the process from outside, wherever it is."""
        self.vary()
        pid = self.daemon.worker(self.id)
        self.talk(self.chance.randrange(6))
        processes.kill(pid)
        self.recovered("outside")

    def recovered(self, *points: str) -> None:
        """It has just died: go on until what is said and what is typed from now on arrives."""
        begun, said = time.monotonic(), len(self.speech.said)
        typed = tuple(map(len, self.shuffle.typed))
        awake = [client for client in self.clients if not client.asleep]
        if awake:
            self.until(
                lambda: any(client.at > said for client in awake), f"what is said after {points} arrives"
            )
        else:
            self.until(lambda: not self.log or self.log.stat().st_size > said, "it is logged")
        self.kills.append(Kill(points, time.monotonic() - begun))
        if not self.holding and any(client.types for client in awake):
            self.until(
                lambda: any(now > then for now, then in zip(self.shuffle.heard, typed)),
                f"what is typed after {points} arrives",
            )
        self.talk(self.chance.randrange(4))

    def vary(self) -> None:
        """Now and then somebody does not read for a while."""
        if self.guest is not None and self.chance.random() < 0.2:
            self.guest.deaf = self.chance.randrange(30)
        for client in self.clients:
            if isinstance(client, kinds.Raw) and client is not self.clients[0] and self.chance.random() < 0.3:
                client.asleep = self.chance.randrange(60)

    # How it went.

    def state(self) -> str:
        return str(self.daemon.console(self.id)["state"])

    def moves(self) -> list[Json]:
        """The records in the status, ten at most."""
        return list(self.daemon.console(self.id)["moves"])

    def settle(self) -> None:
        """Everybody falls silent and hears the rest."""
        self.quiet = True
        for client in self.clients:
            client.asleep = 0
        if self.guest is not None:
            self.guest.deaf = 0
        self.until(self._settled, "everything has arrived")
        self.quiet = self.quiet_vm = False

    def _settled(self) -> bool:
        for client in self.clients:
            client.finish(self.speech.said)
        return (
            not self.speech.wire
            and not self.speech.due
            and all(client.idle and client.at == len(self.speech.said) for client in self.clients)
            and (self.guest is None or self.shuffle.complete)
        )

    def repeats(self) -> int:
        """Sends that came twice over Unix sockets, either way."""
        return self.shuffle.repeats + sum(client.repeats for client in self.clients)

    def told(self) -> str:
        """How things stand, for people."""
        seen = ", ".join(f"{client} {client.at}" for client in self.clients)
        due = self.speech.due[:3]
        return (
            f"the VM said {len(self.speech.said)}, {len(self.speech.wire)} not sent; seen: {seen}; "
            f"typed: {self.shuffle.told()}; answers due: {due}; armed: {[p.name for p in self.points.iterdir()]}"
        )

    def check(self) -> None:
        """Nothing is lost, doubled or out of order, and nothing else has gone wrong."""
        self.settle()
        self.bytes = len(self.speech.said)
        if self.log is not None:
            self._check_log(self.log)
        told = self.daemon.log()[self._log_begins :]
        bad = [line for line in told.splitlines() if any(word in line for word in WELL)]
        assert not bad, "\n".join(bad)
        if self.speech.name:
            self.daemon.wait_console(
                self.id, lambda c: c["name"] == self.speech.name, f"is {self.speech.name}"
            )

    def _check_log(self, log: Path) -> None:
        logged, said = b"".join(path.read_bytes() for path in rotated(log)), bytes(self.speech.said)
        if logged != said:
            at = next(
                (i for i, (a, b) in enumerate(zip(logged, said)) if a != b), min(len(logged), len(said))
            )
            raise AssertionError(
                f"{len(logged)} bytes are logged instead of {len(said)}; at {at}: {logged[at : at + 40]!r} "
                f"instead of {said[at : at + 40]!r}{peers.placed(logged[at:], self.speech.said)}"
            )
        indexes = b"".join(path.read_bytes() for path in rotated(log.with_suffix(".idx")))
        marks = indexes.count(b" may-repeat ")
        assert marks >= self.repeats(), f"{self.repeats()} sends came twice, and {marks} are marked"


def rotated(log: Path) -> list[Path]:
    """A log and what was rotated away of it, oldest first."""
    older = [path for path in log.parent.glob(f"{log.name}.*") if path.suffix[1:].isdigit()]
    return [*sorted(older, key=lambda path: -int(path.suffix[1:])), log]
