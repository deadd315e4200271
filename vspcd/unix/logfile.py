"""A console's log: the journal of what the VM said, in memory and in files.

Does: appends, spools what the files do not take and writes it there as soon as they do, looks after the files once a
second while the VM talks, reads any position that is still there.
Owns: the in-memory tail, the files (through ``logwriter``), the spool, the descriptors that slow clients still read.
Never: opens a name that a VM chose (the stem is a checked identity); stops the console when the disk does.

While all is well, a chunk costs one write. In trouble, it goes to the spool; what does not fit there is counted. Then
the log is tried again a few times a second, by a timer, so that it goes on even when the VM has fallen silent: first
what is spooled, then a marker for what is missing, then what the VM says. With logging off the same is done with two
small files in the run directory, for clients that lag, and nothing is ever spooled, counted or marked.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import Optional

from vspcd.core import logspace
from vspcd.core.journal import Buffer, Segments, Tail
from vspcd.unix.diskspace import DiskSpace
from vspcd.unix.failpoint import reached
from vspcd.unix.logdoubt import Doubt, Doubts
from vspcd.unix.lognotes import Notes, why
from vspcd.unix.logreader import LogReader
from vspcd.unix.logsettings import LogSettings, Ties
from vspcd.unix.logwriter import let_go, writer
from vspcd.unix.page import Page
from vspcd.unix.spool import Spool

TAIL = 65536
LOOK_EVERY = 1.0
SYNC_EVERY = 0.4
ROTATE_RETRY = 1.0
LEAVE_EVERY = 60.0  # a disk that fails again and again must not cost all rotated files
RETRY = 0.25
COPY = 65536
COPY_AT_ONCE = 4 << 20  # bytes that one try brings from the spool to the log, so that others get their turn
MAX_SEGMENTS = 32


class LogFile(LogReader):
    """The journal of a console. It touches neither files nor the page before ``begin``.

    ``directory`` is an open descriptor of the log directory, which may come to be one of another directory when the
    first is removed.
    """

    stem: str

    def __init__(self, directory: int, settings: LogSettings, page: Page, ties: Ties) -> None:
        self.settings = settings
        self._plan = settings.in_force()
        self._ties = ties
        self._notes = Notes(page, settings.enabled)
        self._doubts = Doubts(page)
        segments = Segments()
        spool = Spool(settings.spool_dir, self._plan.spool)
        log = writer(settings, directory, self._notes, segments, self._doubts, ties)
        super().__init__(Tail(TAIL), spool, segments, log)
        self._stored = 0  # the end of what is in the log or waits to be written there
        self._missing = 0  # bytes that no marker stands for yet
        self._trouble = 0
        self._retry_at = 0.0
        self._waits = False
        self._rotate_again = 0.0
        self._leave_again = 0.0
        self._last_sync = 0.0
        self._last_look = 0.0
        self._space = DiskSpace(self._log)

    @property
    def waits(self) -> bool:
        """Whether something is still to be written, as soon as the log takes it."""
        return self.settings.enabled and self._log.end < self.head

    @property
    def name(self) -> str:
        """The log file's name in its directory."""
        return f"{self.stem}.log"

    @property
    def not_logged(self) -> int:
        """Bytes that are not in the log and will not be."""
        return self._log.lost + self._missing if self.settings.enabled else 0

    def apply(self, settings: LogSettings) -> None:
        """Other settings; whether there is a log at all stays as it is."""
        if settings.enabled != self.settings.enabled:
            settings = replace(settings, enabled=self.settings.enabled)
        self.settings = settings
        plan = self._plan = self.settings.in_force()
        self._spool.limit = plan.spool
        self._log.limit = logspace.limit(plan.max_size, plan.quota, plan.keep)
        self._log.rotated.keep = plan.keep
        self._log.rotated.quota = plan.quota
        self._log.trust()
        if plan.sync != "interval":
            self._notes.on_disk = None
        elif self._notes.on_disk is None and self._log.fd >= 0:
            self._notes.on_disk = self._log.end

    # Beginning.

    def begin(self, stem: str, settings: LogSettings, resume: Optional[int] = None) -> None:
        """It is the journal of the console whose identity is ``stem``.

        ``resume``: go on for a dead worker, whose notes are in the page, and which was through with what lies before
        this position.
        """
        self.stem = self._spool.stem = stem
        self._log.identify(stem)
        self.apply(settings)
        failed, told = 0, resume or 0
        try:
            if resume is None or not self._notes.placed:
                told = max(told, self._log.begin())
            else:
                self._log.resume(resume)
            self._log.rotated.fit(self._log.limit)
        except OSError as error:
            failed = error.errno or errno.EIO
        if self._is_spooled(bool(failed), resume is not None):
            self._stored = self._spool.end
            if resume is None:
                told = max(told, self._spool.end + self._spool.missing.size)
        elif resume is None and told > self._log.end:
            # The log was moved away while nobody wrote it: positions do not go back.
            self._log.go_to(told)
        if self._plan.sync == "interval" and self._notes.on_disk is None:
            self._notes.on_disk = self._log.end
        self._stored = max(self._stored, self._log.end)
        self.tail.head = max(self._stored, told)
        self._space.begin(self.head)
        self._missing = self.head - self._stored + max(0, self._spool.base - self._log.end)
        self._notes.missed(self.not_logged)
        if failed or self.head > self._log.end:
            why_not = self._notes.trouble or self._spool.missing.code or errno.EIO
            self._fail(failed or why_not, self._stored)
            self._spool.miss(self._stored, self.head - self._stored, why_not)
            if not failed:
                self.retry()
        else:
            self._notes.trouble = 0
        if self._doubts.open is not None:
            self._ties.later(RETRY, self.look_for_doubts)

    def _is_spooled(self, failed: bool, resume: bool) -> bool:
        """Whether an earlier process has left something to be logged."""
        log, spool = self._log, self._spool
        found = self.settings.enabled and spool.find()
        if spool.strange:
            self._ties.trouble(spool.strange)
        if not found:
            return False
        end = spool.end if resume else spool.end + spool.missing.size
        if failed or (not resume and spool.base > log.end):
            log.go_to(spool.base)
        elif end <= log.end:
            spool.clear()  # all of it is in the log
            return False
        return True

    # Writing.

    def append(self, data: Buffer) -> None:
        """Take what the VM said. Never raises: what the disk refuses is spooled, or counted."""
        view = memoryview(data)
        if self._trouble and time.monotonic() >= self._retry_at:
            self.retry()
        done = 0 if self._trouble else self._write(view)
        if done < len(view):
            self._put_aside(view[done:], self.head + len(view))
        self.tail.append(data)

    def _write(self, view: memoryview) -> int:
        """Write to the log: how much that was. When it was not all, the log is in trouble."""
        log, done = self._log, 0
        now = time.monotonic()
        try:
            if now - self._last_look >= LOOK_EVERY:
                self._look(now)
            while done < len(view):
                if log.full and now >= self._rotate_again:
                    self._rotate(now)
                done += log.write(view[done:])
            self._sync(now)
        except OSError as error:
            done = min(done, max(0, log.end - self.head))
            self._fail(error.errno or errno.EIO, max(log.end, self.head + done))
        return done

    def _sync(self, now: float) -> None:
        sync = self._plan.sync
        if sync == "always":
            self._log.sync()
        elif (
            sync == "interval" and now - self._last_sync >= SYNC_EVERY and self._ties.changed(self._log.inode)
        ):
            self._last_sync = now

    def _rotate(self, now: float) -> None:
        """Begin another file. Raises OSError when there is none to write to."""
        if self._plan.sync == "always":
            self._log.sync()
        try:
            self._log.rotate()
        except OSError as error:
            if self._log.fd < 0:
                raise
            # A directory that refuses to rename must not cost a rotation per write.
            self._rotate_again = now + ROTATE_RETRY
            self._ties.trouble(f"cannot rotate: {os.strerror(error.errno or 0)}")
        else:
            self._space.check(now, self.head, self._plan)

    def _put_aside(self, view: memoryview, head: int) -> None:
        """The log does not take this, which ends at ``head``."""
        kept = 0 if self._missing else self._spool.put(self._stored, view)
        self._stored += kept
        if kept < len(view):
            self._missing += len(view) - kept
            self._notes.missed(self.not_logged)
            self._spool.miss(self._stored, head - self._stored, self._trouble)

    def missed(self, head: int) -> None:
        """What the VM said up to this position, if that is further than the head, is not to be had any more."""
        if head > self.head:
            self._missing += head - self.head
            self.tail.skip(head)
            self._notes.missed(self.not_logged)
            if not self._trouble:
                self._fail(errno.EIO, self._stored)
            self._spool.miss(self._stored, head - self._stored, self._trouble)

    # Trouble.

    def _fail(self, code: int, stored: int) -> None:
        """The log takes nothing; up to ``stored`` it has everything, or something has that can be copied."""
        self._notes.trouble = code
        if not self._trouble:
            self._stored = stored
        if code != self._trouble and self.settings.enabled:
            self._ties.trouble(why(code))
        self._trouble = code
        self._try_again(RETRY)

    def _try_again(self, seconds: float) -> None:
        self._retry_at = time.monotonic() + seconds
        if not self._waits and self.settings.enabled:
            self._waits = True
            self._ties.later(seconds, self._tick)

    def _tick(self) -> None:
        self._waits = False
        if self._trouble:
            self.retry()

    def retry(self) -> None:
        """See whether the log takes bytes again, and write what waits."""
        try:
            self._space.check(time.monotonic(), self.head, self._plan)
            self._look_after()
            self._catch_up()
        except OSError as error:
            self._fail(error.errno or errno.EIO, self._stored)
            return
        if self._log.end < self.head:
            self._try_again(0.0)
        else:
            self._recovered()

    def _look_after(self) -> None:
        """See that there is a file to write to. Raises OSError."""
        log, now = self._log, time.monotonic()
        if log.fd < 0:
            log.open()
            if log.end > self.head:
                log.go_back(self.head)
        elif now - self._last_look >= LOOK_EVERY:
            self._last_look = now
            if not log.look():
                log.replace()

    def _catch_up(self) -> None:
        """Write what waits, and a marker for what is missing. Raises OSError."""
        log, budget = self._log, COPY_AT_ONCE
        log.cut()
        while log.end < self.head and budget > 0:
            data = self._waiting(log.end)
            if not data:
                self._skip()
                continue
            now = time.monotonic()
            if log.full and now >= self._rotate_again:
                self._rotate(now)
            budget -= log.write(memoryview(data))
            reached("log.copied")
        if self._plan.sync == "always":
            log.sync()

    def _waiting(self, position: int) -> bytes:
        """What is kept elsewhere at this position: in the spool, or in a file that has lost its name."""
        data = self._spool.read(position, COPY)
        place = None if data else self._segments.locate(position)
        if place is not None:
            fd, at, length = place
            data = os.pread(fd, min(COPY, length), at)
        return data

    def _skip(self) -> None:
        """What comes next is missing."""
        log, base = self._log, self._spool.base
        if self._plan.sync == "always":
            log.sync()  # what the disk refuses is written again, and the marker stands behind it
        until = base if log.end < base < self._spool.end else self.head
        size = until - log.end
        log.skip(until, self._trouble or self._notes.trouble)
        self._missing = max(0, self._missing - size)
        self._notes.missed(self.not_logged)

    def _recovered(self) -> None:
        reached("log.recovered")
        self._spool.clear()
        reached("log.cleared")
        self._trouble = self._missing = 0
        self._notes.trouble = 0
        self._notes.missed(self.not_logged)
        if self.settings.enabled:
            self._ties.trouble("")
            self._sync(time.monotonic())
            self.look_for_doubts()

    def look_for_doubts(self) -> None:
        """The disk may have refused what the system had taken, and have noted it: see that the log tells of it."""
        doubt = self._doubts.open
        if doubt is None or not doubt.over or not self.settings.enabled or self._trouble:
            return
        try:
            self._log.tell(self._leave_what_is_in(doubt))
            self._sync(time.monotonic())
        except OSError as error:
            self._fail(error.errno or errno.EIO, self.head)
            return
        self._ties.trouble(doubt.text())
        self._ties.trouble("")

    def _leave_what_is_in(self, doubt: Doubt) -> Doubt:
        """Go on in a new file: a file system may lose what is written behind bytes that it has lost, and say nothing.

        What has been written there by now is in doubt as well. Raises OSError.
        """
        now = time.monotonic()
        if not self._log.rotated.keep or self._log.base >= doubt.until or now < self._leave_again:
            return doubt
        self._leave_again = now + LEAVE_EVERY
        end = self._log.end
        self._rotate(now)
        return doubt if self._log.size else doubt._replace(until=end)

    def adopted(self) -> None:
        """The keeper who looked after the disk is dead; there is another one."""
        self._doubts.is_over()
        self.look_for_doubts()
        if self.settings.enabled and self._plan.sync == "interval" and self._log.fd >= 0:
            self._ties.changed(self._log.inode)

    # Once a second.

    def _look(self, now: float) -> None:
        """See after the files. Raises OSError."""
        log = self._log
        self._last_look = now
        if log.index is not None:
            log.index.mark(self.head)
        self._space.check(now, self.head, self._plan)
        if not log.look():
            self._replace()

    def _replace(self) -> None:
        """The file has lost its name."""
        self._log.replace()
        while self._log.end < self.head:
            self._catch_up()
        self._notes.trouble = 0

    def reopen(self) -> None:
        """Someone may have renamed the files: go on in those that now bear the names. Nothing is lost."""
        if self._trouble or not self.settings.enabled:
            return
        try:
            if not self._log.look():
                self._replace()
        except OSError as error:
            self._fail(error.errno or errno.EIO, self.head)

    # Events and the end.

    def release(self, needed_from: int) -> None:
        """No reader stands before ``needed_from``: older files can be closed."""
        most = MAX_SEGMENTS if self.settings.enabled else self._plan.keep + 1
        for fd in self._segments.release(needed_from, most):
            if fd != self._log.fd:
                let_go(fd)

    def event(self, word: str, facts: dict[str, object], at: Optional[int] = None) -> None:
        """Note an event at this position, or at ``at``."""
        log, now = self._log, time.monotonic()
        try:
            if log.fd >= 0 and not self._trouble and log.full and now >= self._rotate_again:
                self._rotate(now)
        except OSError as error:
            self._fail(error.errno or errno.EIO, self.head)
        log.event(word, facts, self.head if at is None else at)

    def close(self) -> None:
        """Let go of all files. What was kept for clients alone is removed."""
        if self._trouble:
            self.retry()
        self._trouble = 0
        for fd in self._segments.close():
            if fd != self._log.fd:
                let_go(fd)
        self._log.close()
        self._spool.close()
        if not self.settings.enabled:
            self._log.remove_all()
            self._log.folder.leave()
