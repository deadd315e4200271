"""Searches many files at once: ripgrep where it is installed and means the same by the pattern, else Python.

Does: deals the files out to processes, as many as there are processors, and gives their findings in the files' order.
Owns: the processes and their pipes.
Never: reads a file through a memory map, which kills the reader when somebody cuts the file off; holds more than
HELD bytes per process that has to wait for its turn.

What a process says are lines ``<path>\\0<byte>:<line>``, with ``-`` instead of ``:`` for one beside a line that
matches; counted, ``<path>\\0<lines that match>``. Lines ``--`` mean nothing.

With a ``key`` they are the bare lines; if the files of the job are several owners', ``<path>\\0`` stands before the
first one of each file, and SEPARATOR, an empty line, before that but for the first file. The key is part of those
paths, so that no line of a log can pass for one.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Optional

from vspcd.ctl.failure import FAILED, Failure
from vspcd.ctl.lines import Choice, Splitter
from vspcd.ctl.pattern import Pattern
from vspcd.ctl.segments import Place, Segment

JOB_BYTES = 128 << 20
"""So much is searched by one process, unless one file has more."""
JOB_FILES = 200
HELD = 8 << 20
BLOCK = 1 << 20
F_SETPIPE_SZ = 1031  # fcntl has it from Python 3.10 on
ERROR = 2
SEPARATOR = b"\r\n"


class Plan(NamedTuple):
    """What is looked for, and what is to be told of it. Lines are ``counted``, up to ``most`` of a file."""

    pattern: Pattern
    offsets: bool = False
    key: str = ""
    counted: bool = False
    most: int = 0
    before: int = 0
    after: int = 0


class Target(NamedTuple):
    """A file, of which what lies from ``low`` to ``high`` is wanted; ``owner`` is the caller's."""

    segment: Segment
    owner: int
    low: int
    high: int


class Job(NamedTuple):
    """Files for one process, which then closes them."""

    files: Sequence[Target]

    @property
    def owner(self) -> Optional[int]:
        """Whose files they are, if they are all one's."""
        owners = {target.owner for target in self.files}
        return owners.pop() if len(owners) == 1 else None

    def by_path(self) -> dict[bytes, Target]:
        """The files by what the process calls them."""
        return {path_of(target.segment.fd).encode(): target for target in self.files}


class Process(NamedTuple):
    job: Job
    pid: int
    pipe: int


class Finder:
    """Starts the processes of one search."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tool = ripgrep(plan.pattern)

    def start(self, job: Job) -> Process:
        """A process that searches these files."""
        readable, writable = os.pipe2(os.O_CLOEXEC)
        _widen(writable)
        try:
            files = [target.segment.fd for target in job.files]
            start = self._ripgrep if self._tool else self._python
            return Process(job, start(files, writable, job.owner is not None), readable)
        finally:
            os.close(writable)

    def _ripgrep(self, files: Sequence[int], output: int, bare: bool) -> int:
        paths = (path_of(fd, self._plan.key) for fd in files)
        words = [*command(str(self._tool), self._plan, bare), *paths]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, pass_fds=files
        )
        process.returncode = 0  # It is waited for by its number.
        return process.pid

    def _python(self, files: Sequence[int], output: int, bare: bool) -> int:
        child = os.fork()
        if child:
            return child
        code = ERROR
        try:
            search_files(files, self._plan, output, bare)
            code = 0
        except (OSError, KeyboardInterrupt):
            pass  # Nobody wants to know any more, or the caller says so.
        finally:
            os._exit(code)


def _widen(pipe: int) -> None:
    """Let a pipe hold more, so that many findings cost fewer turns."""
    try:
        fcntl.fcntl(pipe, F_SETPIPE_SZ, BLOCK)
    except OSError:
        pass  # It holds less, and works.


def path_of(fd: int, key: str = "") -> str:
    """An open file, whatever name it has by now."""
    return f"/proc{key}/self/fd/{fd}"


def new_key() -> str:
    """Slashes and dots that change nothing in a path, and that nobody can guess."""
    return "".join("/." if bit == "1" else "/" for byte in os.urandom(16) for bit in f"{byte:08b}")


def command(tool: str, plan: Plan, bare: bool = False) -> list[str]:
    """ripgrep's command line without the files; ``bare``: they are all one owner's."""
    pattern = plan.pattern
    words = [tool, "--no-config", "--no-messages", "--color=never"]
    words += ["--no-filename"] if plan.key and bare else ["--with-filename", "--null"]
    words += ["--heading"] if plan.key and not bare else ["--no-heading"]
    words += ["--text", "--encoding=none", "--no-unicode", "--crlf", "--no-line-number", "--no-mmap"]
    words += ["--threads=1", "--max-columns=0"]
    words += ["--ignore-case"] if pattern.ignore_case else ["--case-sensitive"]
    words += ["--fixed-strings"] if pattern.fixed else []
    words += ["--count"] if plan.counted else ["--byte-offset"] if plan.offsets else []
    words += [f"--max-count={plan.most}"] if plan.most else []
    words += [f"--before-context={plan.before}", f"--after-context={plan.after}"]
    return [*words, "-e", os.fsdecode(pattern.tool or b""), "--"]


def ripgrep(pattern: Pattern) -> Optional[str]:
    """ripgrep's path, if it is installed and takes the pattern."""
    tool = _installed("rg") if pattern.tool is not None else None
    if tool is None:
        return None
    words = [*command(tool, Plan(pattern)), os.devnull]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return tool if done.returncode == 1 else None


def _installed(name: str) -> Optional[str]:
    """Where a program is; shutil would take longer to be imported than to look."""
    paths = (os.path.join(folder, name) for folder in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)), None)


# The same in Python.


def search_files(files: Iterable[int], plan: Plan, output: int, bare: bool = False) -> None:
    """Search the files one after the other, and tell as ripgrep does."""
    separator = b""
    for fd in files:
        head = b"" if plan.key and bare else path_of(fd, plan.key).encode() + b"\0"
        found = _with_context(fd, plan) if plan.before or plan.after else _lines(fd, plan.pattern)
        if plan.counted:
            count = sum(1 for _ in islice(found, plan.most or None))
            _write(output, head + b"%d\n" % count if count else b"")
            continue
        held: list[bytes] = []
        for byte, line, mark in found:
            place = b"%d%s" % (byte, mark) if plan.offsets else b""
            if plan.key and head:
                held.append(separator + head)
                head, separator = b"", SEPARATOR
            held.append(head + place + line)
            if len(held) >= 1000:
                _write(output, b"".join(held))
                held.clear()
        _write(output, b"".join(held))


def _write(output: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]


def _lines(fd: int, pattern: Pattern) -> Iterator[tuple[int, bytes, bytes]]:
    """The lines that match, each with its byte in the file."""
    base = 0
    while True:
        block = os.pread(fd, BLOCK, base)
        whole = _whole_lines(block)
        if not whole:
            return
        at = 0
        while at < whole:
            found = pattern.candidate(block, at, whole)
            if found < 0:
                break
            begin = block.rfind(b"\n", 0, found) + 1
            at = block.find(b"\n", found, whole) + 1 or whole
            line = block[begin:at]
            if line and pattern.matches(line):
                yield base + begin, line if line.endswith(b"\n") else line + b"\n", b":"
        base += whole


def _whole_lines(block: bytes) -> int:
    """How much of a block are whole lines; the line at the end of a file is whole, and one without an end is cut."""
    return len(block) if len(block) < BLOCK else block.rfind(b"\n") + 1 or len(block)


def _with_context(fd: int, plan: Plan) -> Iterator[tuple[int, bytes, bytes]]:
    choice, splitter = Choice(plan.pattern, plan.before, plan.after), Splitter()
    at = 0
    while True:
        data = os.pread(fd, BLOCK, at)
        lines = list(splitter.feed(data, Place(0, at)) if data else splitter.rest())
        at += len(data)
        for line in lines:
            for each in choice.feed(line):
                assert each.line.place is not None
                text = each.line.text if each.line.text.endswith(b"\n") else each.line.text + b"\n"
                yield each.line.place.byte, text, b":" if each.matches else b"-"
        if not data:
            return


# All of them.


def run(plan: Plan, jobs: Iterable[Job], processes: Optional[int] = None) -> Iterator[tuple[Job, bytes]]:
    """What the jobs' processes say, in pieces of whole lines, the jobs in their order.

    Raises Failure when a process could not search.
    """
    finder = Finder(plan)
    at_once = processes or len(os.sched_getaffinity(0))
    todo = iter(jobs)
    running: deque[Running] = deque()
    try:
        more = True
        while more or running:
            busy = sum(not each.ended for each in running)
            while more and busy < at_once and len(running) < 4 * at_once:
                job = next(todo, None)
                more = job is not None
                if job is not None:
                    running.append(Running(finder.start(job)))
                    busy += 1
            if running:
                yield from _turn(running)
    finally:
        for each in running:
            each.close()


class Running:
    """A process and what it has said that nobody has taken yet."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[bytes] = []
        self.held = 0
        self.ended = False
        self._line = b""

    def read(self) -> None:
        """Take what there is to be read."""
        data = os.read(self.process.pipe, BLOCK)
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._add(self._line + whole + newline)
            self._line = rest
        else:
            self._line += data
        if not data:
            self.ended = True
            _, status = os.waitpid(self.process.pid, 0)
            self._add(self._line)
            if os.waitstatus_to_exitcode(status) not in (0, 1):
                raise Failure("a search has failed: the files cannot all be read", FAILED)

    def _add(self, data: bytes) -> None:
        if data:
            self.said.append(data)
            self.held += len(data)

    def taken(self) -> Iterator[tuple[Job, bytes]]:
        said, self.said, self.held = self.said, [], 0
        for data in said:
            yield self.process.job, data

    def close(self) -> None:
        """Let go of it; a process that still searches ends, since nobody reads what it says."""
        os.close(self.process.pipe)
        if not self.ended:
            os.kill(self.process.pid, 15)
            os.waitpid(self.process.pid, 0)
        for target in self.process.job.files:
            target.segment.close()


def _turn(running: deque[Running]) -> Iterator[tuple[Job, bytes]]:
    """Read what has come; give what the first one has said, and all of those that come to be the first."""
    poll = select.poll()
    waited = {each.process.pipe: each for each in running if not each.ended and each.held < HELD}
    for pipe in waited:
        poll.register(pipe, select.POLLIN)
    for pipe, _ in poll.poll() if waited else ():
        waited[pipe].read()
    while running:
        yield from running[0].taken()
        if not running[0].ended:
            return
        running.popleft().close()
