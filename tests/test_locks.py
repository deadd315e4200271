"""Locks, modes, rights and the audit log, as the master deals with them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.stage import Player, Stage
from vspcd import bequest, handover, inheritance
from vspcd import config as configuration
from vspcd.attachments import Objection, Wish
from vspcd.core import names
from vspcd.core.rights import Who
from vspcd.locks import facts, restore
from vspcd.proto.control import decode
from vspcd.proto.errors import PeerError
from vspcd.table import ClientRecord
from vspcd.toolserver import Refusal

ALICE, BOB, ROOT = Who(1000, 11, [100], "alice"), Who(1001, 12, [100], "bob"), Who(0, 13, [0], "root")
AFAR = Who(address="192.0.2.9:4000")


class Scene(Stage):
    """A console with a VM, and people who come."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, *overrides: str) -> None:
        super().__init__(root, patch, *overrides)
        self.player, _ = self.owner()
        self.console.name = "web01"
        self.handlers = self.master.tools._handlers if self.master.tools else {}
        self.ends: list[socket.socket] = []

    def comes(self, who: Who, mode: str = "rw", kind: str = "vspcctl", **more: Any) -> ClientRecord:
        found = self.tries(who, mode, kind, **more)
        assert isinstance(found, ClientRecord), found
        return found

    def tries(
        self, who: Who, mode: str = "rw", kind: str = "vspcctl", **more: Any
    ) -> ClientRecord | Objection:
        near, far = socket.socketpair()
        self.ends.append(far)
        wish = Wish(kind, who, mode, **more)
        return self.master.attachments.attach(self.console, wish, near, next(self.table.numbers))

    def asks(self, who: Who, kind: str, **fields: Any) -> str:
        """The text of the answer, or the code of the refusal."""
        message = {"console": "web01", "client": None, "reason": None, "exclusive": None}
        try:
            return str(self.answer(who, kind, **{**message, **fields})[-1]["message"])
        except Refusal as refusal:
            return refusal.code

    def answer(self, who: Who, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """All packets. Raises Refusal."""
        packets = [each[0] for each in self.handlers[kind]({"type": kind, **fields}, who) if each]
        return [decode(each) if isinstance(each, bytes) else each for each in packets]

    def told(self, client: ClientRecord, player: Optional[Player] = None) -> list[dict[str, Any]]:
        """What the worker was told of a client's mode since it came."""
        worker = player or self.player
        for _ in range(3):
            self.loop.call_later(0, lambda: None)
            self.until(lambda: True)
        self.until(lambda: worker.was_told("client") or worker.was_told("resume-client"))
        return [each for each in worker.was_told("mode") if each["client"] == client.number]

    def leaves(self, client: ClientRecord) -> None:
        self.serving().says("detached", client=client.number, reason="it has closed")

    def close(self) -> None:
        for end in self.ends:
            end.close()
        super().close()


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(*overrides: str) -> Scene:
        made.append(Scene(tmp_path, monkeypatch, *overrides))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


# Locks


def test_a_lock_makes_the_others_watch_and_its_end_lets_them_type(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE), scene.comes(BOB)
    assert "write lock" in scene.asks(ALICE, "lock", client=alice.number, reason="an update")
    assert (alice.mode, bob.mode) == ("rw", "ro")
    scene.until(lambda: scene.told(bob))
    notice = scene.told(bob)[-1]["notice"]
    assert scene.told(bob)[-1]["mode"] == "ro"
    assert "alice" in notice
    assert "an update" in notice
    assert "web01" in notice
    scene.asks(ALICE, "unlock")
    assert (alice.mode, bob.mode, scene.console.lock) == ("rw", "rw", None)
    scene.until(lambda: scene.told(bob)[-1]["mode"] == "rw")


def test_a_lock_ends_with_its_holder(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE, "lock"), scene.comes(BOB, fallback=True)
    assert bob.mode == "ro"
    scene.leaves(alice)
    assert bob.mode == "rw"


def test_who_comes_to_a_locked_console_is_refused_with_owner_and_reason(scene: Scene) -> None:
    scene.comes(ALICE, "lock", reason="an update")
    found = scene.tries(BOB)
    assert isinstance(found, Objection)
    assert found.code == "locked"
    since = time.strftime("%H:%M", time.localtime(scene.console.lock.since if scene.console.lock else 0))
    assert found.text == f"web01 is locked by alice (vspcctl, since {since}): an update"


def test_nobody_comes_to_an_exclusive_console_and_who_is_there_watches(scene: Scene) -> None:
    bob = scene.comes(BOB)
    scene.comes(ALICE, "exclusive")
    assert bob.mode == "ro"
    for mode in ("rw", "ro", "lock"):
        assert isinstance(scene.tries(BOB, mode, fallback=True), Objection)
    assert isinstance(scene.tries(AFAR, kind="telnet", fallback=True), Objection)


def test_a_telnet_client_of_a_locked_console_watches_and_is_told_why(scene: Scene) -> None:
    scene.comes(ALICE, "lock")
    watcher = scene.comes(AFAR, kind="telnet", fallback=True)
    scene.until(lambda: len(scene.player.was_told("client")) == 2)
    message = scene.player.was_told("client")[-1]
    assert (watcher.mode, message["mode"]) == ("ro", "ro")
    assert message["notice"].startswith("web01 is locked by alice")


def test_a_second_lock_is_refused_and_taking_over_is_not(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE, "lock"), scene.comes(BOB, fallback=True)
    assert scene.asks(BOB, "lock") == "locked"
    scene.asks(BOB, "takeover", reason="it burns")
    assert (alice.mode, bob.mode) == ("ro", "rw")
    scene.until(
        lambda: scene.told(alice) and "bob (vspcctl) has taken over" in scene.told(alice)[-1]["notice"]
    )
    assert "it burns" in scene.told(alice)[-1]["notice"]


def test_a_lock_outlives_the_worker(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE, "lock"), scene.comes(BOB, fallback=True)
    scene.dies(scene.player)
    heir = scene.serving()
    scene.until(lambda: heir.was_told("resumed"))
    modes = {each["client"]: each["mode"] for each in heir.was_told("resume-client")}
    assert modes == {alice.number: "rw", bob.number: "ro"}
    scene.leaves(alice)
    scene.until(lambda: heir.was_told("mode"))
    assert heir.was_told("mode")[-1]["client"] == bob.number
    assert heir.was_told("mode")[-1]["mode"] == "rw"


def test_a_lock_outlives_the_version(scene: Scene) -> None:
    alice = scene.comes(ALICE, "lock", reason="an update")
    fd = handover.pack(bequest.of(scene.master))
    state = handover.unpack(fd)
    with socket.socket() as stand_in:
        left = inheritance.of(state, scene.run, lambda _fd: stand_in)
    os.close(fd)
    (console,) = left.consoles.values()
    assert console.lock == scene.console.lock
    assert console.clients[alice.number].who == ALICE
    assert console.clients[alice.number].asked == "rw"


def test_what_a_worker_was_told_of_a_client_brings_its_lock_back(scene: Scene) -> None:
    alice = scene.comes(ALICE, "lock", reason="an update")
    bob = scene.comes(BOB, fallback=True)
    told = json.loads(json.dumps([facts(scene.console, alice), facts(scene.console, bob)]))
    found = [ClientRecord(each.number, "vspcctl", "x", each.mode, each.parked, 0.0) for each in (alice, bob)]
    assert restore(found[0], told[0]) == scene.console.lock
    assert restore(found[1], told[1]) is None
    assert (found[0].who, found[1].who, found[1].asked, found[1].since) == (ALICE, BOB, "rw", bob.since)


@pytest.mark.parametrize(
    "change",
    [{"asked": 1}, {"who": None}, {"lock": {}}, {"right": "x"}, {"more": 1}],
    ids=lambda change: next(iter(change)),
)
def test_nonsense_about_a_client_is_not_believed(scene: Scene, change: dict[str, Any]) -> None:
    alice = scene.comes(ALICE, "lock")
    with pytest.raises(PeerError):
        restore(alice, {**facts(scene.console, alice), **change})


def test_a_lock_of_another_client_is_not_believed(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE, "lock"), scene.comes(BOB, fallback=True)
    with pytest.raises(PeerError):
        restore(bob, facts(scene.console, alice))


def test_an_idle_lock_ends_and_typing_keeps_it(scenes: Callable[..., Scene]) -> None:
    scene = scenes("locks.idle=2s")
    alice, bob = scene.comes(ALICE), scene.comes(BOB)
    slot = scene.player.worker.page.take_client_slot(alice.number)
    scene.asks(ALICE, "lock")
    begun = time.monotonic()

    def types() -> bool:
        if time.monotonic() - begun < 3:
            scene.player.worker.page.note_typed(slot)
        return time.monotonic() - begun > 3.5

    scene.until(types)
    assert bob.mode == "ro"
    scene.until(lambda: scene.console.lock is None)
    assert bob.mode == "rw"
    scene.until(lambda: "nothing typed" in str(scene.told(alice)[-1]["notice"]))


# Who acts for whom


def test_nobody_acts_for_somebody_elses_session_but_root(scene: Scene) -> None:
    alice = scene.comes(ALICE)
    assert scene.asks(BOB, "lock", client=alice.number) == "denied"
    assert scene.asks(BOB, "mode", client=alice.number, mode="ro") == "denied"
    assert "lock" in scene.asks(ROOT, "lock", client=alice.number)
    assert scene.console.lock is not None


def test_without_a_number_the_only_session_of_the_user_is_meant(scene: Scene) -> None:
    assert scene.asks(ALICE, "lock") == "not-found"
    alice = scene.comes(ALICE)
    scene.comes(BOB)
    scene.asks(ALICE, "lock")
    assert scene.console.lock is not None
    assert scene.console.lock.client == alice.number
    scene.asks(ALICE, "unlock")
    scene.comes(ALICE)
    assert scene.asks(ALICE, "lock") == "not-found"


def test_a_session_turns_read_only_and_back_but_not_against_a_lock(scene: Scene) -> None:
    alice, bob = scene.comes(ALICE), scene.comes(BOB)
    scene.asks(BOB, "mode", client=bob.number, mode="ro")
    assert bob.mode == "ro"
    scene.asks(ALICE, "lock")
    assert scene.asks(BOB, "mode", client=bob.number, mode="rw") == "locked"
    scene.asks(ALICE, "mode", client=alice.number, mode="ro")
    assert scene.console.lock is None
    assert bob.mode == "ro"
    scene.asks(BOB, "mode", client=bob.number, mode="rw")
    assert bob.mode == "rw"


def test_a_kicked_client_is_told_by_whom_and_why(scene: Scene) -> None:
    alice = scene.comes(ALICE)
    scene.asks(BOB, "kick", client=alice.number, reason="too loud")
    scene.until(lambda: scene.player.was_told("detach"))
    assert scene.player.was_told("detach")[0]["reason"] == "kicked by bob: too loud"


def test_who_tells_of_everybody(scene: Scene) -> None:
    alice = scene.comes(ALICE, "lock")
    scene.comes(BOB, fallback=True)
    answer = scene.answer(ROOT, "who", console=None)
    seen = {each["user"]: each for packet in answer for each in packet["clients"]}
    assert seen["alice"]["lock"]
    assert seen["alice"]["mode"] == "rw"
    assert seen["alice"]["id"] == alice.number
    assert (seen["bob"]["lock"], seen["bob"]["mode"], seen["bob"]["asked"]) == (False, "ro", "rw")


# Rights

RULES = (
    "access=[{users: ['1000'], consoles: ['web*'], may: write},"
    " {users: ['1001'], may: watch}, {users: ['1002'], may: administer}]"
)
CAROL = Who(1002, 14, [], "carol")


def test_rules_say_who_may_watch_write_take_over_and_administer(scenes: Callable[..., Scene]) -> None:
    scene = scenes(RULES)
    alice = scene.comes(ALICE, "lock")
    refused = scene.tries(BOB)
    assert isinstance(refused, Objection)
    assert refused.code == "locked"
    bob = scene.comes(BOB, "ro")
    assert scene.asks(BOB, "lock", client=bob.number) == "denied"
    assert scene.asks(BOB, "kick", client=alice.number) == "denied"
    assert scene.asks(BOB, "forget") == "denied"
    assert scene.asks(ALICE, "stop") == "denied"
    assert scene.asks(ALICE, "reload") == "denied"
    assert isinstance(scene.tries(AFAR, kind="telnet", fallback=True), Objection)
    carol = scene.comes(CAROL, fallback=True)
    scene.asks(CAROL, "takeover")
    assert (alice.mode, carol.mode) == ("ro", "rw")
    scene.asks(CAROL, "unlock")
    assert scene.asks(ALICE, "takeover") != "denied"  # nobody has it
    assert "unlocked" in scene.asks(CAROL, "unlock")


def test_who_may_not_take_over_is_refused(scenes: Callable[..., Scene]) -> None:
    scene = scenes("access=[{users: ['1000', '1001'], may: write}]")
    scene.comes(ALICE, "lock")
    scene.comes(BOB, fallback=True)
    assert scene.asks(BOB, "takeover") == "denied"
    second = scene.comes(ALICE, fallback=True)
    scene.asks(ALICE, "takeover", client=second.number)
    assert scene.console.lock is not None
    assert scene.console.lock.client == second.number
    assert scene.asks(BOB, "unlock") == "denied"


def test_consoles_that_one_may_not_watch_are_not_shown(scenes: Callable[..., Scene]) -> None:
    scene = scenes("access=[{users: ['1000'], consoles: ['db*'], may: administer}]")
    for kind, key in (("status", "consoles"), ("who", "clients")):
        scene.comes(ROOT)
        told = [packet.get(key) or [] for packet in scene.answer(ALICE, kind, console=None, fields=None)]
        assert not any(told)
        assert any(packet.get(key) for packet in scene.answer(ROOT, kind, console=None, fields=None))
    assert scene.asks(ALICE, "lock") == "denied"
    assert scene.asks(ALICE, "lock", console="web99") == "not-found"


@pytest.mark.parametrize("rules", [[], ["access=[{users: ['1000'], consoles: [db*], may: watch}]"]])
def test_a_name_is_looked_for_among_suggestions_once(
    scenes: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, rules: list[str]
) -> None:
    scene = scenes(*rules)
    asked: list[str] = []

    def suggest(query: str, _known: object) -> list[str]:
        asked.append(query)
        return []

    monkeypatch.setattr(names, "_suggestions", suggest)
    assert scene.asks(ALICE, "lock", console="wob01") == "not-found"
    assert len(asked) == 1
    assert scene.master.queries.find("wob01", AFAR) is None
    assert len(asked) == 1


def test_new_rules_hold_for_those_who_are_there(scenes: Callable[..., Scene]) -> None:
    scene = scenes()
    alice, bob = scene.comes(ALICE, "lock"), scene.comes(BOB, fallback=True)
    rules = "access=[{users: ['1000'], may: watch}]"
    chosen = ["ports.enabled=false", "proxy.listen=[127.0.0.1:0]", "admin.listen=[127.0.0.1:0]", rules]
    new = configuration.load(None, chosen, scene.master.config.root)
    scene.reread = lambda: new
    scene.master.reload()
    assert (alice.mode, scene.console.lock) == ("ro", None)
    scene.until(lambda: scene.player.was_told("detach"))
    assert scene.player.was_told("detach")[0]["client"] == bob.number


# The audit log


def lines(scene: Scene) -> list[dict[str, Any]]:
    path = scene.master.config.audit.file
    assert path is not None
    text = path.read_text() if path.exists() else ""
    # The last one may be half written.
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def test_what_people_do_is_written_down_with_who_and_where(scene: Scene) -> None:
    alice = scene.comes(ALICE, "lock", reason="an update")
    scene.tries(BOB)
    scene.asks(BOB, "kick", client=alice.number, reason="x")
    scene.player.says("break", client=alice.number, count=2)
    scene.leaves(alice)
    scene.until(lambda: len(lines(scene)) == 5)
    found = lines(scene)
    assert [(each["what"], each["outcome"]) for each in found] == [
        ("attach", "ok"), ("attach", "refused"), ("kick", "ok"), ("break", "ok"), ("detach", "ok")
    ]  # fmt: skip
    assert {"user": "alice", "uid": 1000, "pid": 11, "name": "web01"}.items() <= found[0].items()
    assert (found[0]["mode"], found[2]["user"], found[2]["whom"], found[3]["count"]) == (
        "lock",
        "bob",
        "alice",
        2,
    )
    assert "locked by alice" in found[1]["reason"]


def test_a_full_disk_holds_nobody_up_and_what_is_lost_is_counted(
    scenes: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = scenes("audit.file=/dev/full")
    audit = scene.master.audit
    for _ in range(3000):
        audit.did("attach", ALICE, scene.console)
    scene.until(lambda: audit._failing)
    assert len(audit._lines) == 2000
    assert audit.lost == 1000
    chosen = ["ports.enabled=false", "proxy.listen=[127.0.0.1:0]", "admin.listen=[127.0.0.1:0]"]
    new = configuration.load(None, [*chosen, f"audit.file={tmp_path}/again.log"], scene.master.config.root)
    scene.reread = lambda: new
    scene.master.reload()
    audit.did("attach", BOB, scene.console)
    scene.until(lambda: audit.settled and not audit._failing)
    found = lines(scene)
    assert len(found) == 2000
    audit.did("attach", BOB, scene.console)
    scene.until(lambda: len(lines(scene)) == 2002)
    assert lines(scene)[2000]["what"] == "lost"
    assert lines(scene)[2000]["lines"] == 1001
