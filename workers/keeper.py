"""The keeper: the process that waits for disks, so that the master and the consoles need not.

Does: loads the port map, applies batches of changes and says when they are durable; brings the console logs
to the disk within a second of a worker's word, and says whose bytes the disk refuses; writes the audit log.
Owns: the port map's back end.
Never: decides anything about consoles or ports.

The audit log's lines come in batches, and a batch is in the file as a whole or not at all.

Workers write one word into a pipe when their log has new bytes, at most every 0.4 s each. The keeper waits
0.5 s and syncs the whole file system of the logs at once: one sync for thousands of consoles, another one for what came
just behind the words, and none when all is quiet.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, Callable, NamedTuple, Optional

from vspcd.portmap.base import Backend, Change, Entry, Forget, PortMapError, Put
from vspcd.proto import control
from vspcd.proto.control import Message, packed
from vspcd.unix import process
from vspcd.unix.channel import Channel, ChannelClosed
from vspcd.unix.logline import Log
from vspcd.unix.loop import READ, Loop
from workers.disksync import DiskSync

SYNC_DELAY = 0.5
AUDIT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WORDS = 1 << 20  # bytes


class KeeperStart(NamedTuple):
    """What the keeper is born with; ``log_directory`` is -1 without logging.

    ``arena`` holds the pages of the workers, ``pages`` are those in use, ``log_path`` is the log folder's.
    """

    channel: Channel
    sync: int
    log_directory: int
    open_map: Callable[[], Backend]
    arena: int = -1
    pages: tuple[int, ...] = ()
    log_path: str = ""


class Keeper:
    """The process's one object."""

    def __init__(self, start: KeeperStart) -> None:
        self._loop = Loop()
        self._start = start
        self._backend = start.open_map()
        self._audit = -1  # the audit log, while it is not on the disk
        self._answers = {
            "load": self._load,
            "changes": self._change,
            "ping": self._pong,
            "audit": self._write,
        }
        start.channel.serve(self._loop, self._received, self._loop.stop)
        self._disk: Optional[DiskSync] = None
        if start.log_directory >= 0:
            self._disk = DiskSync(start.log_directory, start.log_path, start.arena, start.pages)
            self._go_on(self._disk)

    def run(self) -> None:
        """Serve until the master is gone."""
        self._loop.run()
        self._backend.close()  # first: the next keeper waits for the map
        self._sync_audit()
        if self._disk is not None:
            self._disk.heard(self._words())
            if self._disk.waits:
                self._disk.sync()

    def _received(self, message: Message, fds: list[int]) -> None:
        kind = control.check(message, control.MASTER, control.OWNER, len(fds))
        self._answers[kind](message)

    def _pong(self, _message: Message) -> None:
        self._tell("pong")

    def _load(self, _message: Message) -> None:
        for entries in packed(vars(entry) for entry in self._backend.load()):
            self._tell("entries", entries=entries)
        self._tell("loaded", notes=list(self._backend.notes))

    def _change(self, message: Message) -> None:
        try:
            self._backend.apply([change_of(item) for item in message["changes"]])
        except PortMapError as error:
            self._tell("failed", number=message["number"], reason=str(error))
        else:
            self._tell("kept", number=message["number"])

    def _write(self, message: Message) -> None:
        """Append to the audit log. It is opened each time, so it can be rotated or removed as one likes."""
        data = "".join(line + "\n" for line in message["lines"]).encode()
        try:
            fd = _opened(message["file"])
        except OSError as error:
            self._tell("audited", number=message["number"], reason=error.strerror)
            return
        self._keep_audit(fd)
        try:
            size = os.fstat(fd).st_size
            written = os.write(fd, data)
            if written < len(data):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._tell("audited", number=message["number"], reason=error.strerror)
        else:
            self._tell("audited", number=message["number"], reason=None)

    def _keep_audit(self, fd: int) -> None:
        """Sync this file before long; one that has another file's place now is synced at once."""
        if self._audit >= 0 and not os.path.sameopenfile(self._audit, fd):
            self._sync_audit()
        if self._audit < 0:
            self._loop.call_later(SYNC_DELAY, self._sync_audit)
        else:
            os.close(self._audit)
        self._audit = fd

    def _sync_audit(self) -> None:
        fd, self._audit = self._audit, -1
        if fd >= 0:
            try:
                os.fdatasync(fd)
            except OSError:
                pass  # the disk's own trouble, and what was written before is there
            os.close(fd)

    def _tell(self, kind: str, **fields: Any) -> None:
        try:
            self._start.channel.send({"type": kind, **fields})
        except ChannelClosed:
            pass  # the master is gone; what it has sent before is still written

    # The disk of the logs.

    def _go_on(self, disk: DiskSync) -> None:
        """Sync again before long when there is a reason, or wait for one."""
        if disk.waits:
            self._loop.call_later(SYNC_DELAY, lambda: self._sync(disk))
        else:
            self._loop.watch(self._start.sync, READ, lambda _events: self._dirty(disk))

    def _dirty(self, disk: DiskSync) -> None:
        self._loop.forget(self._start.sync)
        disk.heard(self._words())
        self._loop.call_later(SYNC_DELAY, lambda: self._sync(disk))

    def _sync(self, disk: DiskSync) -> None:
        disk.heard(self._words())
        for message in disk.sync():
            self._tell(message.pop("type"), **message)
        self._go_on(disk)

    def _words(self) -> bytes:
        """What workers have said since this was asked last."""
        try:
            return os.read(self._start.sync, WORDS)
        except BlockingIOError:
            return b""


def _opened(path: str) -> int:
    """The audit log, made if it is not there; never through a link. Raises OSError."""
    os.makedirs(os.path.dirname(path), 0o750, exist_ok=True)
    return os.open(path, AUDIT_FLAGS, 0o640)


def change_of(item: dict[str, Any]) -> Change:
    """A change as it stands in a message: ``{"put": {entry}}`` or ``{"forget": console}``."""
    if "put" in item:
        return Put(Entry(**item["put"]))
    return Forget(item["forget"])


def main(start: KeeperStart) -> None:
    """The life of the keeper process."""
    process.name("vspcd: keeper")
    try:
        Keeper(start).run()
    except PortMapError as error:
        Log("error").error("port-map-unusable", reason=str(error))
        sys.exit(process.CRASHED)
